"""pgr-basebackup --delta refuses: says why, and has changed nothing.  So does --dry-run, whatever it says."""

import os
import re
import shutil
import signal

import pytest

from pgrtest import controlfile, content
from pgrtest.checks import start_standby
from pgrtest.delta import Scene
from pgrtest.place import wait_until
from pgrtest.programs import failed, succeeded
from pgrtest.trees import picture

HASH = "--delta=hash"


@pytest.fixture
def scene(pg, clusters, run, tmp):
    return Scene(pg, clusters, run, tmp)


def refused(scene, *words, options=(), of=None):
    """With --dry-run and without, each time with all the words, and nothing is different afterwards."""
    tops = [scene.target, *(of or [])]
    before = [picture(top) for top in tops]
    slots, log = scene.primary.slots(), len(scene.primary.log_text())
    for more in [["--dry-run"], []]:
        failed(scene.start_make_over(*options, *more), *words)
        for top, was in zip(tops, before):
            assert picture(top) == was, f"{top} was changed"
    assert scene.primary.slots() == slots
    said = scene.primary.log_text()[log:]
    assert "START_REPLICATION" not in said and ("-j1" in options or "BASE_BACKUP" not in said)
    assert os.listdir(scene.tmp) == ([os.path.basename(scene.target)] if os.path.lexists(scene.target) else [])


# ---- a server runs there


def test_a_running_standby(scene):
    """Its files change all the time, so only what a run would take away is looked at."""
    scene.seed()
    standby = scene.standby()
    for more in (["--dry-run"], [], ["--delta=hash"]):
        failed(scene.start_make_over(*more), scene.target, "running")
    assert os.path.exists(scene.path("global", "pg_control")) and os.path.exists(scene.path("postmaster.pid"))
    scene.change()
    standby.wait_replayed(scene.primary.lsn())
    assert content.fingerprint(standby) == content.fingerprint(scene.primary)


def test_a_server_that_has_just_stopped(scene):
    scene.seed()
    standby = start_standby(scene.clusters, scene.pg, scene.target, scene.primary)
    standby.kill()
    assert os.path.exists(scene.path("postmaster.pid"))
    scene.make_over(HASH)
    scene.is_complete()


def test_a_server_without_its_lock_file(scene):
    """Somebody has removed it."""
    scene.seed()
    standby = scene.standby()
    aside = os.path.join(scene.tmp, "aside")
    shutil.move(scene.path("postmaster.pid"), aside)
    for more in (["--dry-run"], [HASH], ["-j1"]):
        failed(scene.start_make_over("--delta", *more), scene.target, "a server is running", "lock file")
    assert os.path.exists(scene.path("global", "pg_control"))
    shutil.move(aside, scene.path("postmaster.pid"))
    scene.change()
    standby.wait_replayed(scene.primary.lsn())
    assert content.fingerprint(standby) == content.fingerprint(scene.primary)


def test_a_server_that_lost_its_postmaster(scene):
    """Its processes go on for a while, and write."""
    scene.seed()
    standby = scene.standby()
    with standby.orphaned():
        for more in (["--dry-run"], [HASH]):
            failed(scene.start_make_over(*more), scene.target, "processes of a server that has ended", "postmaster.pid")
        # whoever removes the file, as the message says
        os.unlink(scene.path("postmaster.pid"))
        failed(scene.start_make_over(HASH), scene.target, "a server is running")
    scene.make_over(HASH)
    scene.is_complete()


def clone_of_standby(scene, *options):
    """A running standby and, as scene.target, a copy of its directory made with cp -a: links lead to the standby's."""
    scene.seed(*options)
    standby = scene.standby()
    scene.change()
    standby.wait_replayed(scene.primary.lsn())
    clone = os.path.join(scene.tmp, "clone")
    standby.stop()
    scene.place.copy_tree(scene.target, clone)
    standby.start()
    scene.primary.sql("UPDATE in_space SET note = 'x' WHERE id % 100 = 1" if scene.spaces else "SELECT 1")
    standby.wait_replayed(scene.primary.lsn())
    scene.target = clone
    return standby


@pytest.mark.parametrize("option", [HASH, "-j1"])
def test_tablespaces_of_another_server(scene, option):
    scene.space("space")
    standby = clone_of_standby(scene)
    before = picture(scene.target)
    for more in (["--dry-run"], []):
        failed(scene.start_make_over("--delta", option, *more), scene.target, "pg_tblspc", "is in use by a server")
    assert picture(scene.target) == before
    scene.primary.sql("UPDATE in_space SET note = 'y' WHERE id % 100 = 2")
    standby.wait_replayed(scene.primary.lsn())
    assert content.fingerprint(standby) == content.fingerprint(scene.primary)


def test_wal_of_another_server(scene):
    wal = scene.directory("wal", exists=False)
    standby = clone_of_standby(scene, "--waldir", wal)
    before = picture(scene.target)
    for more in (["--dry-run"], []):
        failed(scene.start_make_over(HASH, *more), scene.target, "pg_wal", "is in use by a server")
    assert picture(scene.target) == before
    standby.restart()
    scene.change()
    standby.wait_replayed(scene.primary.lsn())
    assert content.fingerprint(standby) == content.fingerprint(scene.primary)


def test_wal_that_is_none(scene):
    """The link leads to a directory that has other things in it, too: it would be emptied."""
    scene.cold_copy()
    wal = scene.directory("wal")
    shutil.move(scene.path("pg_wal"), os.path.join(wal, "pg_wal"))
    os.symlink(wal, scene.path("pg_wal"))
    before = [picture(scene.target), picture(wal)]
    for more in (["--dry-run"], []):
        failed(scene.start_make_over(HASH, *more), wal, "no WAL directory", "pg_wal")
    assert [picture(scene.target), picture(wal)] == before


def test_wal_of_another_cluster(scene):
    """Of a server that does not run just now: it may need it to start."""
    other = scene.clusters.create(scene.pg).start()
    other.stop()
    scene.cold_copy()
    shutil.rmtree(scene.path("pg_wal"))
    os.symlink(other.wal_path(), scene.path("pg_wal"))
    refused(scene, "pg_wal", "has the WAL of another cluster", options=[HASH], of=[other.wal_path()])
    other.start()


def test_another_data_directory_inside(scene):
    """Somebody's old backup, say; it stays when it is named."""
    scene.cold_copy()
    scene.place.copy_tree(scene.target, f"{scene.target}.old")
    shutil.move(f"{scene.target}.old", scene.path("old"))
    inside = picture(scene.path("old"))
    refused(scene, scene.path("old"), "--keep", options=[HASH])
    scene.make_over(HASH, "--keep=old")
    assert picture(scene.path("old")) == inside
    scene.follows()


def test_a_process_of_another_user(scene):
    """Who may not be sent a signal lives all the same."""
    if not scene.place.root:
        pytest.skip("all processes are ours")
    scene.cold_copy()
    lines = [str(os.getpid()), scene.target, "1700000000", "5432", "/tmp", "localhost", "0 0", "ready"]
    scene.place.write(scene.path("postmaster.pid"), "\n".join(lines) + "\n")
    refused(scene, scene.target, str(os.getpid()))


@pytest.mark.parametrize("text", ["", "-1\n", "99999999999999\n"])
def test_a_lock_file_that_says_nothing(scene, text):
    """Whoever lost it in a crash; it is refused or taken for nobody's, but never misunderstood as a signal to all."""
    scene.cold_copy()
    scene.place.write(scene.path("postmaster.pid"), text)
    before = picture(scene.target)
    process = scene.start_make_over(HASH)
    if process.wait() != 0:
        failed(process, "postmaster.pid")
        assert picture(scene.target) == before
    else:
        scene.is_complete()


def test_another_run(scene):
    """The first one goes on as if nobody had come."""
    scene.cold_copy()
    scene.primary.sql("CREATE TABLE new AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
    scene.quiesce()
    first = scene.start_make_over(HASH, "-r", "4M")
    wait_until(lambda: not os.path.exists(scene.path("global", "pg_control")), "it has begun")
    for more in (["--dry-run"], []):
        failed(scene.start_make_over(HASH, *more), scene.target)
    assert first.running(), str(first)
    succeeded(first)
    scene.is_right()


# ---- not this cluster


def test_another_cluster(scene):
    shutil.rmtree(scene.clusters.initdb(scene.pg))  # so that its system identifier is not of the same second
    scene.target = scene.clusters.initdb(scene.pg, ["--data-checksums"])
    before = picture(scene.target)
    for more in (["--dry-run"], []):
        failed(scene.start_make_over(*more), scene.target, "system identifier")
        assert picture(scene.target) == before


def test_another_system_identifier(scene):
    scene.cold_copy()
    controlfile.change(scene.target, system_identifier=7123456789012345678)
    refused(scene, scene.target, "7123456789012345678")


@pytest.mark.parametrize("version", ["9.6", "99", ""])
def test_another_major_version(scene, version):
    scene.cold_copy()
    scene.place.write(scene.path("PG_VERSION"), f"{version}\n")
    refused(scene, scene.target, version)


@pytest.mark.parametrize("name, value", [("block_bytes", 16384), ("segment_blocks", 65536)])
def test_other_sizes(scene, name, value):
    scene.cold_copy()
    controlfile.change(scene.target, **{name: value})
    refused(scene, scene.target, value)


def test_a_damaged_control_file(scene):
    """Nobody knows whose cluster this is."""
    scene.cold_copy()
    controlfile.damage(scene.target)
    refused(scene, scene.target, "pg_control")


# ---- the server's own directories


@pytest.fixture
def hidden(scene):
    """The primary's directory, but that it is running is not seen: as from another container that shares the disk."""
    pid_file = os.path.join(scene.primary.data, "postmaster.pid")
    aside = os.path.join(scene.tmp, "aside")
    shutil.move(pid_file, aside)
    yield scene
    shutil.move(aside, pid_file)
    scene.primary.sql("CHECKPOINT")
    scene.primary.restart()
    assert scene.primary.sql("SELECT count(*) FROM big") == "120000"


@pytest.mark.parametrize("through", ["name", "link"])
def test_the_servers_own_directory(hidden, through):
    scene = hidden
    scene.target = scene.primary.data
    if through == "link":
        scene.target = os.path.join(scene.tmp, "link")
        os.symlink(scene.primary.data, scene.target)
    before = {path: entry[:2] for path, entry in picture(scene.primary.data).items()}
    for more in (["--dry-run"], [], ["-j1"]):
        failed(scene.start_make_over("--delta", *more), scene.target)
        wait_until(lambda: not os.listdir(os.path.join(scene.primary.data, "pg_replslot")), "the slot of the run is gone")
        after = {path: entry[:2] for path, entry in picture(scene.primary.data).items()}
        assert {path for path in before if not path.startswith(("pg_wal/", "pg_stat"))} <= after.keys()
        assert not [path for path in after if "pgr" in path]


def test_the_servers_own_directory_by_its_lock(scene):
    scene.target = scene.primary.data
    failed(scene.start_make_over(), scene.primary.data, "running")
    assert scene.primary.sql("SELECT count(*) FROM big") == "120000"


@pytest.mark.parametrize("options", [[], ["-j1"]], ids=["lanes", "stream"])
def test_the_servers_own_tablespace(scene, options):
    """A copy that was made on the server's machine: its links lead into the primary's tablespaces."""
    location = scene.space("space", here=False)
    scene.primary.stop()
    scene.place.copy_tree(scene.primary.data, scene.target)
    scene.primary.start()
    assert list(scene.links().values()) == [location]
    scene.primary.sql("VACUUM", "CHECKPOINT")
    refused(scene, location, options=["--delta", *options], of=[location])
    assert scene.primary.sql("SELECT count(*) FROM in_space") == "20000"


def test_the_servers_own_tablespace_by_another_name(scene):
    """The link leads there through a link."""
    location = scene.space("space", here=False)
    alias = scene.place.directory()
    os.rmdir(alias)
    os.symlink(location, alias)
    scene.primary.stop()
    scene.place.copy_tree(scene.primary.data, scene.target)
    scene.primary.start()
    (oid,) = scene.links()
    os.unlink(scene.path("pg_tblspc", oid))
    os.symlink(alias, scene.path("pg_tblspc", oid))
    scene.primary.sql("VACUUM", "CHECKPOINT")
    refused(scene, options=["--delta", "-T", f"{location}={alias}"], of=[location])


def test_the_servers_own_wal_directory(scene):
    """As pg_wal, and as --waldir."""
    scene.cold_copy()
    before = set(os.listdir(scene.primary.wal_path()))
    failed(scene.start_make_over(HASH, "--waldir", scene.primary.wal_path().rstrip("/")), "")
    shutil.rmtree(scene.path("pg_wal"))
    os.symlink(scene.primary.wal_path().rstrip("/"), scene.path("pg_wal"))
    was = picture(scene.target)
    failed(scene.start_make_over(HASH), "")
    assert picture(scene.target) == was
    assert {name for name in before if len(name) == 24} <= set(os.listdir(scene.primary.wal_path()))


# ---- not a data directory


def test_not_a_data_directory(scene):
    for names in (["mine"], [".hidden"], ["lost+found"], ["PG_VERSION"], ["base/1", "global/1"], ["pg_wal/1"]):
        scene.place.give(os.mkdir(scene.target) or scene.target)
        for name in names:
            if "/" in name:
                scene.place.give(os.mkdir(scene.path(os.path.dirname(name))) or scene.path(os.path.dirname(name)))
            scene.place.write(scene.path(name), "mine")
        refused(scene, scene.target)
        shutil.rmtree(scene.target)


def test_a_file(scene):
    scene.place.write(scene.target, "mine")
    refused(scene, scene.target)


def test_a_directory_of_somebody_else(scene):
    if not scene.place.root:
        pytest.skip("all directories are ours")
    scene.cold_copy()
    os.chown(scene.target, 0, 0)
    os.chmod(scene.target, 0o755)
    for name in os.listdir(scene.target):
        os.chown(scene.path(name), 0, 0)
    refused(scene, scene.target)


# ---- options


PATTERNS = ["base/*", "global/pg_control", "*", "PG_VERSION", "pg_xact", "pg_tblspc/*",
            "base", "global/*", "pg_wal/*", "pg_multixact/offsets/0000", "/etc/passwd", ""]


def test_patterns_that_cannot_be_kept(scene):
    scene.cold_copy()
    for pattern in PATTERNS:
        refused(scene, pattern, options=[HASH, f"--keep={pattern}"])


def test_options_that_do_not_go_together(scene):
    scene.cold_copy()
    before = picture(scene.target)
    for options in (["--delta=nonsense"], ["--delta", "-Ft"], ["--delta=hash", "-X", "fetch"],
                    ["--delta=hash", "-Z", "server-gzip"], ["--delta=hash", "-j1"], ["--delta", "--retry=-1"],
                    ["--delta", "--retry=x"], ["--delta", "--retry"]):
        failed(scene.start_make_over(*options))
    assert picture(scene.target) == before


def test_options_that_need_delta(scene):
    for option in ("--keep=mine", "--no-keep", "--dry-run", "--retry=3"):
        failed(scene.run.start_basebackup("-D", scene.target, option, *scene.primary.address()), "--delta")
    assert not os.path.exists(scene.target)


def test_hashes_without_the_grants(scene):
    """What was asked for is not to be had, and no other way is taken behind the user's back."""
    scene.cold_copy()
    scene.primary.sql("CREATE ROLE streamer LOGIN REPLICATION")
    before = picture(scene.target)
    failed(scene.run.start_basebackup("-D", scene.target, HASH, "-c", "fast", *scene.primary.address("streamer")),
           "streamer")
    assert picture(scene.target) == before


def test_summaries_before_17(pg, scene):
    if pg.major >= 17:
        pytest.skip("has summaries")
    scene.cold_copy()
    refused(scene, "17", options=["--delta=summary"])


def test_summaries_that_nobody_makes(pg, scene):
    if pg.major < 17:
        pytest.skip("summaries came with 17")
    scene.cold_copy()
    scene.primary.sql("ALTER SYSTEM SET summarize_wal = off", "SELECT pg_reload_conf()")
    wait_until(lambda: scene.primary.sql("SHOW summarize_wal") == "off", "it is off")
    refused(scene, "summarize_wal", options=["--delta=summary"])


# ---- --dry-run


def numbers(text):
    return [int(n.replace(",", "")) for n in re.findall(r"\b\d[\d,]*\b", text)]


def test_dry_run(scene):
    """It tells what would be fetched and deleted, and changes nothing: here, and on the server."""
    scene.seed()
    for n in range(7):
        scene.place.write(scene.path(f"stray{n}"), "x" * 1000)
    scene.quiesce()
    before, log = picture(scene.target), len(scene.primary.log_text())
    done = scene.make_over(HASH, "--dry-run", "-C", "-S", "mine")
    listed = scene.make_over(HASH, "--dry-run", "-v")
    assert picture(scene.target) == before
    assert scene.primary.slots() == []
    said = scene.primary.log_text()[log:]
    assert "START_REPLICATION" not in said and "pg_backup_start" not in said
    assert "would be deleted: 7 files, 7000 bytes" in done.out, str(done)
    assert {f"delete stray{n}" for n in range(7)} <= set(listed.out.split("\n")), str(listed)
    scene.make_over(HASH)
    scene.is_right()


def test_dry_run_tells_what_differs(scene):
    """A table of some megabytes that is new, and one that differs here and there."""
    scene.seed()
    scene.primary.sql("CREATE TABLE new AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i",
                      "UPDATE big SET b = a WHERE id % 10000 = 5")
    scene.quiesce()
    size = os.path.getsize(os.path.join(scene.primary.data, scene.primary.sql("SELECT pg_relation_filepath('new')")))
    done = scene.make_over(HASH, "--dry-run")
    told = numbers(done.out + done.err)
    assert any(size <= n < size + 4_000_000 for n in told), f"{size}: {done}"


def test_dry_run_into_nothing(scene):
    done = scene.make_over("--dry-run")
    assert not os.path.exists(scene.target) and os.listdir(scene.tmp) == []
    assert max(numbers(done.out + done.err)) > 20_000_000, str(done)


def test_dry_run_of_a_full_copy(scene):
    scene.cold_copy()
    before = picture(scene.target)
    done = scene.make_over("--delta", "-j1", "--dry-run")
    assert picture(scene.target) == before
    assert "full" in done.out + done.err or "anew" in done.out + done.err, str(done)


def test_dry_run_goes_on_where_a_run_was_killed(scene):
    scene.primary.sql("CREATE TABLE new AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
    process = scene.start_make_over(HASH, "-r", "8M")
    wait_until(lambda: os.path.isdir(scene.path("base")) or not process.running(), "it has begun")
    process.signal(signal.SIGKILL)
    process.wait()
    before = picture(scene.target)
    scene.make_over(HASH, "--dry-run")
    assert picture(scene.target) == before
    scene.does_not_start()
