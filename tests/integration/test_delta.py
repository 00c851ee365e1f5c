"""pgr-basebackup --delta: whatever the directory was before, afterwards it is what a fresh seed would be."""

import os
import random
import re
import shutil

import pytest

from pgrtest import conninfo, content, installs, powercut
from pgrtest.churn import Churn
from pgrtest.delta import Scene
from pgrtest.oldcopies import DISTURBED, SOUND
from pgrtest.programs import failed
from pgrtest.relay import Relay, socket_of
from pgrtest.trees import RELATION, bytes_of, disturb, files_below, picture, relations

# Where the configuration is as broken as all the rest, so that nobody wants to keep it.
BROKEN_CONFIGURATION = ("half copied", "of other types")

HASH = "--delta=hash"
SUMMARY = "--delta=summary"


@pytest.fixture
def scene(pg, clusters, run, tmp):
    return Scene(pg, clusters, run, tmp)


def needs(pg, major, what):
    if pg.major < major:
        pytest.skip(f"{what} came with {major}")


def text_of(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


# ---- what was there before


@pytest.mark.every_major
@pytest.mark.parametrize("kind", [*SOUND, *DISTURBED])
def test_hashes(scene, kind):
    (SOUND.get(kind) or DISTURBED[kind])(scene)
    scene.quiesce()
    scene.make_over(HASH, *(["--no-keep"] if kind in BROKEN_CONFIGURATION else []))
    scene.is_right()


def test_read_only_files(scene):
    scene.cold_copy()
    for name in relations(scene.target, 8192):
        os.chmod(scene.path(name), 0o400)
    scene.change()
    scene.quiesce()
    scene.make_over(HASH)
    scene.is_right()


@pytest.mark.parametrize("options", [["--delta", "-j1"], ["--delta=summary"]], ids=" ".join)
def test_modes_in_other_ways(pg, scene, options):
    if "-j1" not in options:
        needs(pg, 17, "WAL summaries")
    scene.seed()
    for path, directories, files in os.walk(scene.target):
        for name in directories + files:
            if not os.path.islink(os.path.join(path, name)) and not name.endswith(".conf"):
                os.chmod(os.path.join(path, name), 0o755)
    scene.change()
    scene.quiesce()
    scene.make_over(*options)
    assert all(os.stat(scene.path("pg_wal", name)).st_mode & 0o777 == 0o700 for name in (".", "archive_status"))
    scene.is_right()


@pytest.mark.every_major
@pytest.mark.parametrize("kind", SOUND)
def test_summaries(pg, scene, kind):
    needs(pg, 17, "WAL summaries")
    SOUND[kind](scene)
    scene.quiesce()
    scene.make_over(SUMMARY)
    scene.is_right()


@pytest.mark.every_major
@pytest.mark.parametrize("kind", ["promoted and written to", "promoted and killed", "a former primary",
                                  "a former primary that crashed"])
def test_summaries_do_not_do_for_another_history(pg, scene, kind):
    """Asked for, they are refused, with the reason; left to itself the program takes another way."""
    needs(pg, 17, "WAL summaries")
    DISTURBED[kind](scene)
    scene.quiesce()
    before = picture(scene.target)
    refused = scene.start_make_over(SUMMARY)
    assert refused.wait() == 1 and "--delta=summary cannot be used: " in refused.err, str(refused)
    assert "hint: --delta=hash " in refused.err, str(refused)
    assert picture(scene.target) == before
    scene.make_over("--delta")
    scene.is_right()


@pytest.mark.every_major
def test_summaries_do_not_do_after_pg_resetwal(pg, scene):
    """It says of any directory that it was shut down, whatever its pages hold."""
    needs(pg, 17, "WAL summaries")
    scene.seed()
    standby = scene.standby()
    scene.change()
    standby.kill()
    program, _ = installs.reader_of("pg_resetwal", pg.major)
    os.unlink(scene.path("postmaster.pid"))
    scene.place.call([program, "-f", "-D", scene.target])
    while scene.primary.sql(f"SELECT pg_current_wal_lsn() > '{checkpoint_of(scene)}'") != "t":
        scene.primary.switch_wal()
        scene.change()
    scene.quiesce()
    failed(scene.start_make_over(SUMMARY), "--delta=summary cannot be used", "pg_resetwal", "--delta=hash")
    scene.make_over("--delta")
    scene.is_right()


def checkpoint_of(scene):
    program, _ = installs.reader_of("pg_controldata", scene.pg.major)
    return re.search("Latest checkpoint location: *(.*)", scene.place.call([program, scene.target]))[1]


@pytest.mark.long
@pytest.mark.every_major
@pytest.mark.parametrize("way", ["hash", "summary"])
def test_twice(pg, scene, way):
    """What it has made is a directory like any other; nothing is left to be done."""
    needs(pg, 17 if way == "summary" else 10, "WAL summaries")
    scene.seed()
    scene.change()
    scene.make_over(f"--delta={way}")
    scene.quiesce()
    scene.make_over(f"--delta={way}")
    scene.is_right()


# ---- what goes over the line


@pytest.mark.every_major
def test_only_what_differs_is_sent(pg, scene):
    scene.seed()
    scene.primary.sql("UPDATE big SET b = a WHERE id % 10000 = 5")
    scene.quiesce()
    with Relay(scene.place, socket_of(scene.primary)) as relay:
        scene.make_over(HASH, "-X", "none", server=relay)
        passed = relay.stop()["from_server"]
    # 12 of the chunks of one table, the names and hashes of all, some catalogs
    assert passed < 0.12 * bytes_of(scene.target), f"{passed} of {bytes_of(scene.target)} bytes"
    scene.is_complete(wal=False)
    scene.equals_a_fresh_copy()


def test_nothing_is_written_to_what_is_the_same(scene):
    """Files that do not change keep their times, so that a tool that looks at these has less to do as well."""
    scene.seed()
    scene.quiesce()
    before = picture(scene.target)
    scene.make_over(HASH)
    after = picture(scene.target)
    names = relations(scene.target, 8192)
    touched = [name for name in names if before.get(name) != after[name]]
    assert len(names) > 500 and len(touched) < 20, touched
    scene.is_right()


# ---- under load


@pytest.mark.every_major
@pytest.mark.parametrize("way", ["hash", "summary"])
def test_everything_changes_meanwhile(pg, scene, way):
    needs(pg, 17 if way == "summary" else 10, "WAL summaries")
    settings = {"wal_keep_size": "'2GB'"} if pg.major >= 13 else {"wal_keep_segments": "2000"}
    if pg.major >= 15:
        settings["allow_in_place_tablespaces"] = "on"
    scene.primary.configure(**settings)
    scene.primary.restart()
    scene.seed()
    scene.standby().stop()
    with content.Writer(scene.primary), Churn(scene.primary) as churn:
        scene.change()
        scene.make_over(f"--delta={way}", "-r", "16M")
    assert min(churn.rounds.values()) > 1, f"hardly anything changed: {churn.rounds}"
    scene.is_complete()
    scene.follows()


@pytest.mark.long
@pytest.mark.parametrize("options", [["-j2"], ["-j8", "--verify-transfer"]], ids=" ".join)
def test_writers_do_not_wait(scene, options):
    scene.seed()
    scene.change()
    with content.Writer(scene.primary) as writer:
        for _ in range(3):
            scene.make_over(HASH, *options)
        writer.wait_for(100)
    scene.is_complete()
    scene.follows()


@pytest.mark.long
def test_from_a_standby(pg, scene, tmp):
    first = os.path.join(tmp, "first")
    scene.run.basebackup("-D", first, "-R", "-c", "fast", *scene.primary.address())
    scene.seed()
    scene.change()
    primary, target = scene.primary, scene.target
    scene.target = first
    source = scene.standby()
    scene.target, scene.primary = target, source
    scene.make_over(HASH)
    scene.primary = primary
    scene.is_complete()
    scene.follows()


# ---- tablespaces


@pytest.fixture
def spaced(scene):
    """Tablespaces `old`, `moved` and `stays` on the primary and in a copy."""
    scene.locations = {name: scene.space(name) for name in ("old", "moved", "stays")}
    scene.seed()
    return scene


def version_directories(path):
    return [name for name in os.listdir(path) if name.startswith("PG_")]


def move(scene, name):
    """As an administrator does it: the server is stopped, the directory moved, the link made anew."""
    old = scene.locations[name]
    oid = scene.primary.sql(f"SELECT oid FROM pg_tablespace WHERE spcname = '{name}'")
    scene.primary.stop()
    new = scene.place.directory()
    os.rmdir(new)
    os.rename(old, new)
    link = os.path.join(scene.primary.data, "pg_tblspc", oid)
    os.unlink(link)
    os.symlink(new, link)
    scene.place.give(link)
    scene.primary.start()
    scene.spaces[new] = scene.spaces.pop(old)
    return new


@pytest.mark.every_major
def test_tablespaces_come_go_and_move(spaced):
    scene = spaced
    old = scene.spaces.pop(scene.locations["old"])
    scene.place.write(os.path.join(old, "mine"), "not a tablespace's")
    scene.place.write(os.path.join(scene.spaces[scene.locations["stays"]], "mine"), "not a tablespace's")
    scene.primary.sql("DROP TABLE in_old", "DROP TABLESPACE old")
    scene.space("new")
    move(scene, "moved")
    stays = scene.spaces[scene.locations["stays"]]
    elsewhere = scene.spaces[scene.locations["stays"]] = os.path.join(scene.tmp, "elsewhere")
    scene.change()
    scene.quiesce()
    scene.make_over(HASH)
    assert os.listdir(old) == ["mine"] and os.listdir(stays) == ["mine"]
    assert set(scene.links().values()) == set(scene.spaces.values())
    assert version_directories(elsewhere)
    scene.is_right()


@pytest.mark.long
@pytest.mark.every_major
def test_what_is_in_tablespaces(spaced):
    """Strays go, what is wrong is mended, what is missing comes."""
    scene = spaced
    top = scene.spaces[scene.locations["stays"]]
    (version,) = version_directories(top)
    (database,) = os.listdir(os.path.join(top, version))
    inside = os.path.join(top, version, database)
    for name in (f"{version}/stray", f"{version}/{database}/999999", f"{version}/pgsql_tmp"):
        scene.place.write(os.path.join(top, name), "stray")
    first, second, *_ = [path for path in files_below(inside) if os.path.getsize(os.path.join(inside, path)) > 8192]
    disturb(os.path.join(inside, first), random.Random(1), 5)
    os.unlink(os.path.join(inside, second))
    shutil.rmtree(os.path.join(scene.spaces[scene.locations["moved"]], version))
    scene.change()
    scene.quiesce()
    scene.make_over(HASH)
    scene.is_right()


@pytest.mark.parametrize("options", [[HASH], ["--delta", "-j1"]], ids=" ".join)
def test_links_of_tablespaces_that_lie_elsewhere(spaced, options):
    """pg_tblspc itself is a link: nobody knows then whose those are that it leads to."""
    scene = spaced
    outside = os.path.join(scene.tmp, "outside")
    shutil.move(scene.path("pg_tblspc"), outside)
    os.symlink(outside, scene.path("pg_tblspc"))
    scene.protect(outside, picture)
    scene.spaces = {location: f"{here}.new" for location, here in scene.spaces.items()}
    scene.quiesce()
    scene.make_over(*options)
    scene.is_right()


@pytest.mark.long
@pytest.mark.every_major
def test_a_copy_that_followed_the_links(spaced):
    """cp -rL: directories where links are to be."""
    scene = spaced
    for name, path in scene.links().items():
        os.unlink(scene.path("pg_tblspc", name))
        scene.place.copy_tree(path, scene.path("pg_tblspc", name))
        shutil.rmtree(path)
    scene.quiesce()
    scene.make_over(HASH)
    scene.is_right()


@pytest.mark.long
def test_a_tablespace_where_another_one_was(spaced):
    """The servers' `old` and `new` one lie in one place, one after the other, and so they do here."""
    scene = spaced
    location = scene.locations["old"]
    scene.primary.sql("DROP TABLE in_old", "DROP TABLESPACE old", f"CREATE TABLESPACE new LOCATION '{location}'",
                      "CREATE TABLE in_new TABLESPACE new AS SELECT generate_series(1, 10000) i")
    scene.quiesce()
    scene.make_over(HASH)
    scene.is_right()


def test_links_that_lead_into_the_servers_own_tablespaces(spaced):
    """Such is a copy made on the server's machine.  With -T they lead elsewhere afterwards, and nothing is removed there."""
    scene = spaced
    for name, path in scene.links().items():
        location = next(location for location, here in scene.spaces.items() if here == path)
        os.unlink(scene.path("pg_tblspc", name))
        os.symlink(location, scene.path("pg_tblspc", name))
        shutil.rmtree(path)
    # This one's link is not in the server's list any more, but a later tablespace lies where it leads to.
    scene.primary.sql("DROP TABLE in_old", "DROP TABLESPACE old", "CREATE TABLESPACE again LOCATION "
                      f"'{scene.locations['old']}'",
                      "CREATE TABLE in_again TABLESPACE again AS SELECT generate_series(1, 10000) i")
    scene.quiesce()
    scene.primary.sql("CHECKPOINT")
    before = {location: picture(location) for location in scene.spaces}
    scene.make_over(HASH)
    assert before == {location: picture(location) for location in scene.spaces}
    scene.is_right()


@pytest.mark.every_major
def test_tablespaces_in_place(pg, scene):
    needs(pg, 15, "in-place tablespaces")
    scene.primary.configure(allow_in_place_tablespaces="on")
    scene.primary.restart()
    create = ("CREATE TABLESPACE {0} LOCATION ''",
              "CREATE TABLE in_{0} TABLESPACE {0} AS SELECT i AS id, md5(i::text) FROM generate_series(1, 9000) i")
    for name in ("one", "two"):
        scene.primary.sql(*[query.format(name) for query in create])
    scene.seed()
    scene.primary.sql("UPDATE in_one SET md5 = 'x' WHERE id % 1000 = 0", "DROP TABLE in_two", "DROP TABLESPACE two",
                      *[query.format("three") for query in create])
    scene.quiesce()
    scene.make_over(HASH)
    assert len(os.listdir(scene.path("pg_tblspc"))) == 2 and not scene.links()
    scene.is_right()


# ---- configuration


def configured(scene):
    """A copy whose configuration is its own, with files of its own besides."""
    scene.seed()
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        with open(scene.path(name), "a", encoding="utf-8") as f:
            f.write("# ours\n")
    scene.place.give(os.mkdir(scene.path("conf.d")) or scene.path("conf.d"))
    for name in ("conf.d/one.conf", "conf.d/two", "server.key", "mine.conf"):
        scene.place.write(scene.path(name), "# ours\n")
    for name in ("shared.conf", "other.conf"):
        scene.place.write(os.path.join(scene.primary.data, name), "# the server's\n")
        scene.place.write(scene.path(name), "# ours\n")
    with open(scene.path("postgresql.auto.conf"), "a", encoding="utf-8") as f:
        f.write("work_mem = '17MB'\n")


def ours(scene, *names):
    return [name for name in names if os.path.exists(scene.path(name)) and "# ours" in text_of(scene.path(name))]


CONFIGURATION = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d/one.conf", "conf.d/two", "server.key",
                 "mine.conf", "shared.conf", "other.conf")


@pytest.mark.every_major
def test_configuration_stays(scene):
    configured(scene)
    scene.quiesce()
    scene.make_over(HASH)
    assert ours(scene, *CONFIGURATION) == ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"]
    scene.is_right(but={"postgresql.conf", "pg_hba.conf", "pg_ident.conf"})


def test_keep(pg, scene):
    """What the user names stays too, whether the server has it or not."""
    configured(scene)
    scene.quiesce()
    scene.make_over(HASH, "--keep=conf.d/*.conf", "--keep", "server.key", "--keep=shared.*")
    kept = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d/one.conf", "server.key", "shared.conf"]
    assert ours(scene, *CONFIGURATION) == kept
    scene.equals_a_fresh_copy(but={*kept, "conf.d"})
    scene.follows()


WAYS = [[HASH], ["--delta", "-j1"], [SUMMARY]]


@pytest.mark.parametrize("options", WAYS, ids=" ".join)
def test_links_to_configuration_stay(pg, scene, options):
    """Where the files themselves are somebody else's business; one leads to nowhere."""
    if SUMMARY in options:
        needs(pg, 17, "WAL summaries")
    configured(scene)
    outside = scene.directory("etc")
    for name in ("postgresql.conf", "pg_hba.conf", "server.key"):
        shutil.move(scene.path(name), os.path.join(outside, name))
        os.symlink(os.path.join(outside, name), scene.path(name))
    os.unlink(scene.path("pg_ident.conf"))
    os.symlink("/nowhere/at/all", scene.path("pg_ident.conf"))
    scene.protect(outside, picture)
    scene.quiesce()
    scene.make_over(*options, "--keep=server.key")
    links = {name for name in CONFIGURATION + ("pg_ident.conf",) if os.path.islink(scene.path(name))}
    assert links == {"postgresql.conf", "pg_hba.conf", "server.key", "pg_ident.conf"}
    os.unlink(scene.path("pg_ident.conf"))
    scene.is_complete()
    scene.equals_a_fresh_copy(but=links)


@pytest.mark.long
def test_a_directory_is_kept(scene):
    configured(scene)
    scene.quiesce()
    scene.make_over(HASH, "--keep=conf.d")
    assert ours(scene, "conf.d/one.conf", "conf.d/two", "mine.conf") == ["conf.d/one.conf", "conf.d/two"]


def test_no_keep(scene):
    configured(scene)
    scene.quiesce()
    scene.make_over(HASH, "--no-keep", "--keep=server.key")
    assert ours(scene, *CONFIGURATION) == ["server.key"]
    scene.equals_a_fresh_copy(but={"server.key"})
    scene.follows()


@pytest.mark.long
def test_configuration_that_is_missing_comes(scene):
    scene.seed()
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        os.unlink(scene.path(name))
    scene.quiesce()
    scene.make_over(HASH)
    scene.is_right()


# ---- options of a fresh seed


@pytest.mark.every_major
def test_recovery_configuration(pg, scene):
    """-R writes what it writes into a fresh seed, whatever was there."""
    scene.seed()
    fresh = conninfo.recovery_text(pg, scene.target)
    name = "postgresql.auto.conf" if pg.major >= 12 else "recovery.conf"
    scene.place.write(scene.path(name), "primary_conninfo = 'host=old'\nprimary_slot_name = 'old'\n")
    scene.make_over(HASH)
    assert conninfo.recovery_text(pg, scene.target) == fresh
    assert os.path.exists(scene.path("standby.signal" if pg.major >= 12 else "recovery.conf"))
    scene.follows()


def test_without_r_it_is_no_standby(pg, scene):
    """As a fresh seed without -R: the server's own settings, and no signal."""
    scene.seed()
    scene.quiesce()
    scene.run.basebackup("-D", scene.target, HASH, "-c", "fast", *scene.primary.address())
    scene.is_complete()
    assert "primary_conninfo" not in text_of(scene.path("postgresql.auto.conf"))
    assert not os.path.exists(scene.path("standby.signal")) and not os.path.exists(scene.path("recovery.conf"))
    scene.equals_a_fresh_copy()


def long(options):
    return pytest.param(options, marks=pytest.mark.long)


@pytest.mark.parametrize("options", [
    ["-j8"], ["--verify-transfer"], ["--manifest-checksums=SHA512", "-j3"],
    *map(long, (["-j2"], ["--no-sync"], ["--sync-method=syncfs"], ["--no-verify-checksums"],
                ["--manifest-checksums=SHA256"], ["--manifest-checksums=NONE"], ["--manifest-force-encode"],
                ["-X", "stream", "--no-slot"]))], ids=" ".join)
def test_options(scene, options):
    scene.cold_copy()
    scene.change()
    scene.quiesce()
    scene.make_over(HASH, *options)
    scene.is_right()


@pytest.mark.every_major
def test_no_wal(pg, scene):
    scene.seed()
    scene.change()
    scene.quiesce()
    scene.make_over(HASH, "-X", "none")
    expected = {"archive_status"} | ({"summaries"} if pg.major >= 17 else set())
    assert set(os.listdir(scene.path("pg_wal"))) == expected
    scene.is_complete(wal=False)
    scene.equals_a_fresh_copy()


@pytest.mark.long
def test_no_manifest(scene):
    """An old one would lie."""
    scene.seed()
    scene.quiesce()
    scene.make_over(HASH, "--no-manifest")
    assert not os.path.exists(scene.path("backup_manifest"))
    scene.equals_a_fresh_copy()
    scene.follows()


@pytest.mark.every_major
def test_slot(pg, scene):
    scene.seed()
    scene.change()
    scene.quiesce()
    scene.make_over(HASH, "-C", "-S", "mine")
    assert scene.primary.slots() == ["mine"]
    assert conninfo.setting(conninfo.recovery_text(pg, scene.target), "primary_slot_name") == "mine"
    scene.make_over(HASH, "-S", "mine")
    scene.is_right()


# ---- the WAL directory


def test_a_linked_wal_directory_stays(scene):
    wal = scene.directory("wal", exists=False)
    scene.seed("--waldir", wal)
    scene.place.write(os.path.join(wal, "stray"), "stray")
    scene.change()
    scene.quiesce()
    scene.make_over(HASH)
    assert os.readlink(scene.path("pg_wal")) == wal and "stray" not in os.listdir(wal)
    scene.is_right()


@pytest.mark.parametrize("before", ["directory", long("link"), long("same")])
def test_waldir(scene, before):
    wal, old = (scene.directory(name, exists=False) for name in ("wal", "old"))
    scene.seed(*{"directory": [], "link": ["--waldir", old], "same": ["--waldir", wal]}[before])
    scene.change()
    scene.quiesce()
    scene.make_over(HASH, "--waldir", wal)
    assert os.readlink(scene.path("pg_wal")) == wal
    assert any(len(name) == 24 for name in os.listdir(wal))
    scene.is_right()


def test_waldir_that_is_in_use(scene):
    """Of something else: it is not emptied."""
    scene.seed()
    wal = scene.directory("wal")
    scene.place.write(os.path.join(wal, "mine"), "mine")
    before = picture(scene.target)
    refused = scene.start_make_over(HASH, "--waldir", wal)
    assert refused.wait() == 1 and f'"{wal}" exists but is not empty' in refused.err, str(refused)
    assert picture(scene.target) == before and os.listdir(wal) == ["mine"]


# ---- where neither hashes nor summaries can be had


@pytest.mark.every_major
def test_a_full_copy_where_nothing_else_is_possible(pg, scene):
    """It is said before, with the reason, and the directory is made over nevertheless."""
    scene.seed()
    scene.change()
    scene.primary.sql("CREATE ROLE streamer LOGIN REPLICATION", "ALTER SYSTEM SET wal_level = 'replica'",
                      *(["ALTER SYSTEM SET summarize_wal = off", "SELECT pg_reload_conf()"] if pg.major >= 17 else []))
    scene.place.write(scene.path("stray"), "stray")
    scene.quiesce()
    done = scene.run.basebackup("-D", scene.target, "-R", "--delta", "-c", "fast", *scene.primary.address("streamer"))
    assert re.search("full|anew", done.err) and ("streamer" in done.err or "execute" in done.err), str(done)
    scene.is_right()


@pytest.mark.long
def test_a_full_copy_keeps_configuration(scene):
    configured(scene)
    scene.quiesce()
    scene.make_over("--delta", "-j1")
    assert ours(scene, *CONFIGURATION) == ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"]
    scene.is_right(but={"postgresql.conf", "pg_hba.conf", "pg_ident.conf"})


# ---- the last steps


@pytest.mark.every_major
@pytest.mark.parametrize("way", ["hash", "summary"])
def test_all_but_pg_control(pg, scene, way):
    """A run that ends just before it writes pg_control has copied everything: the next one need not do it again."""
    needs(pg, 17 if way == "summary" else 10, "WAL summaries")
    scene.seed()
    scene.standby().stop()
    scene.change()
    scene.quiesce()
    fails = powercut.preload(scene.place, fail="create@pg_control.tmp:1:ENOSPC")
    process = scene.run.start(*fails, scene.run.basebackup_path, *scene.command(HASH))
    assert process.wait() == 1 and "pg_control" in process.err, str(process)
    assert not os.path.exists(scene.path("global", "pg_control.pgr"))
    scene.does_not_start()
    scene.primary.sql("UPDATE big SET b = a WHERE id % 5000 = 0")
    scene.quiesce()
    done = scene.make_over(f"--delta={way}", "-v")
    if way == "summary":
        assert int(re.search(r"(\d+) files were changed in place", done.err)[1]) > 100, str(done)
    scene.is_right()


def test_all_but_the_manifest(pg, scene):
    """The same command goes on after its very last steps, too, with the slot that it has made."""
    needs(pg, 13, "manifests")
    scene.cold_copy()
    options = [HASH, "-C", "-S", "mine"]
    fails = powercut.preload(scene.place, fail="rename@backup_manifest.tmp:1:EIO")
    process = scene.run.start(*fails, scene.run.basebackup_path, *scene.command(*options, "--no-clean"))
    assert process.wait() == 1 and "backup_manifest" in process.err, str(process)
    assert os.path.exists(scene.path("global", "pg_control")) and scene.primary.slots() == ["mine"]
    scene.quiesce()
    scene.make_over(*options)
    assert scene.primary.slots() == ["mine"]
    scene.is_complete()
    scene.equals_a_fresh_copy(but={"postgresql.conf", "pg_hba.conf", "pg_ident.conf"})


# ---- what is wrong on the server


@pytest.mark.parametrize("options", WAYS, ids=" ".join)
def test_a_manifest_that_was_not_finished(pg, scene, options):
    """The server was made by a backup that found bad pages, say: this run makes a file of the same name."""
    if SUMMARY in options:
        needs(pg, 17, "WAL summaries")
    scene.seed()
    for top in (scene.target, scene.primary.data):
        scene.place.write(os.path.join(top, "backup_manifest.tmp"), "{")
    scene.change()
    scene.make_over(*options)
    assert os.path.exists(scene.path("backup_manifest")) == (pg.major >= 13)
    assert not os.path.exists(scene.path("backup_manifest.tmp"))
    scene.follows()


def test_a_bad_page_on_the_server_is_reported(scene):
    """Also where the same bad page lies here, so that nothing is fetched."""
    path = scene.primary.sql("SELECT pg_relation_filepath('accounts')")
    scene.primary.stop()
    with open(os.path.join(scene.primary.data, path), "r+b") as f:
        f.seek(3 * 8192 + 4000)
        f.write(b"\0changed\0")
    scene.place.copy_tree(scene.primary.data, scene.target)
    scene.primary.start()
    process = scene.start_make_over(HASH)
    assert process.wait() == 1, str(process)
    assert re.search(rf'WARNING:  checksum verification failed in file "\./{path}", block 3: calculated', process.err)
    assert "checksum error occurred" in process.err
    assert content.hash_of(scene.path(path)) == content.hash_of(os.path.join(scene.primary.data, path))
    assert re.fullmatch(RELATION, path) and not os.path.exists(scene.path("backup_manifest"))


@pytest.mark.long
def test_bytes_that_change_on_the_way(scene):
    """--verify-transfer: a chunk that came damaged is fetched again, a hash that came damaged costs a fetch."""
    scene.seed()
    scene.change()
    scene.quiesce()
    for position in (100_003, 400_007):
        with Relay(scene.place, socket_of(scene.primary), when="COPY (SELECT", flip_byte=position) as relay:
            process = scene.start_make_over(HASH, "--verify-transfer", server=relay)
            if process.wait() != 0:
                assert "error:" in process.err, str(process)
                scene.does_not_start()
                scene.make_over(HASH)
        scene.is_complete()
        scene.equals_a_fresh_copy()
    scene.follows()
