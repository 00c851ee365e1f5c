"""pgr-basebackup makes a standby, from every major version, with everything that a cluster may hold."""

import os
import stat

import pytest

from pgrtest import conninfo, content
from pgrtest.checks import nothing_of_ours, paths_below, start_standby, verify_backup
from pgrtest.server import wal_segsize

pytestmark = pytest.mark.every_major

ODD = "we'ird \"näme\" \\ ☃"


def needs(pg, major, what):
    if pg.major < major:
        pytest.skip(f"{what} came with {major}")


def assert_follows(standby, primary):
    """What is committed on the primary now arrives, and both hold the same."""
    primary.sql("CREATE TABLE afterwards AS SELECT generate_series(1, 1000) AS i")
    try:
        standby.wait_replayed(primary.lsn())
        assert "afterwards" in content.fingerprint(standby)
        assert content.fingerprint(standby) == content.fingerprint(primary)
        content.check_indexes(standby)
    finally:
        primary.sql("DROP TABLE afterwards")


def test_standby_from_a_busy_primary(pg, primary, clusters, run, tmp):
    target = os.path.join(tmp, "standby")
    with content.Writer(primary) as writer:
        done = run.basebackup("-D", target, "-j1", "-R", "-X", "stream", "-c", "fast", *primary.address())
        assert done.out == "" and done.err == ""
        nothing_of_ours(target)
        verify_backup(pg, primary.place, target)
        standby = start_standby(clusters, pg, target, primary)
        writer.wait_for(100)
    assert_follows(standby, primary)


def test_wal_fetched_with_the_copy(pg, primary, clusters, run, tmp):
    target = os.path.join(tmp, "standby")
    with content.Writer(primary):
        run.basebackup("-D", target, "-R", "-X", "fetch", "-c", "fast", *primary.address())
        nothing_of_ours(target)
        verify_backup(pg, primary.place, target)
    assert_follows(start_standby(clusters, pg, target, primary), primary)


def test_no_wal_and_an_archive_instead(pg, primary, clusters, run, tmp):
    target = os.path.join(tmp, "standby")
    with content.Writer(primary):
        run.basebackup("-D", target, "-R", "-X", "none", "-c", "fast", *primary.address())
    expected = {"archive_status"} | ({"summaries"} if pg.major >= 17 else set())
    assert set(os.listdir(os.path.join(target, "pg_wal"))) == expected
    verify_backup(pg, primary.place, target, wal=False)
    restore = f"restore_command = 'cp {primary.wal_path('%f')} %p'\n"
    with open(os.path.join(target, "postgresql.conf" if pg.major >= 12 else "recovery.conf"), "a",
              encoding="utf-8") as f:
        f.write(restore)
    assert_follows(start_standby(clusters, pg, target, primary), primary)


@pytest.mark.parametrize("jobs", [1, 3], ids=["stream", "lanes"])
def test_tablespaces_go_where_they_are_mapped(pg, clusters, run, tmp, jobs):
    primary = clusters.create(pg).start()
    content.populate(primary)
    place = primary.place
    # An equals sign in the name has to be written as \= in -T.
    old, new = [os.path.join(tmp, name) for name in ('old "one"', "new = 'näme'")]
    for number, path in enumerate((old, os.path.join(tmp, "second"))):
        place.give(os.mkdir(path) or path)
        primary.sql(f"CREATE TABLESPACE space{number} LOCATION '{path}'",
                    f"CREATE TABLE spaced{number} TABLESPACE space{number} AS SELECT generate_series(1, 5000) i")
    target = os.path.join(tmp, "standby")
    run.basebackup("-D", target, "-j", jobs, "-R", "-c", "fast", "-T", f"{old}={new.replace('=', chr(92) + '=')}",
                   f"--tablespace-mapping={tmp}/second={tmp}/third", *primary.address())
    links = {os.readlink(os.path.join(target, "pg_tblspc", n)) for n in os.listdir(os.path.join(target, "pg_tblspc"))}
    assert links == {new, f"{tmp}/third"}
    assert paths_below(new) == paths_below(old)
    nothing_of_ours(target)
    verify_backup(pg, place, target)
    assert_follows(start_standby(clusters, pg, target, primary), primary)


@pytest.mark.parametrize("jobs", [1, 3], ids=["stream", "lanes"])
def test_unlogged_table_is_empty_on_the_standby(pg, primary, clusters, run, tmp, jobs):
    assert primary.sql("SELECT count(*) FROM scratch") == "5000"
    path = primary.sql("SELECT pg_relation_filepath('scratch')")
    target = os.path.join(tmp, "standby")
    run.basebackup("-D", target, "-j", jobs, "-R", "-c", "fast", *primary.address())
    if pg.major >= 11:  # before, servers sent it in vain
        assert not os.path.exists(os.path.join(target, path))
    assert os.path.exists(os.path.join(target, path + "_init"))
    verify_backup(pg, primary.place, target)
    standby = start_standby(clusters, pg, target, primary)
    standby.promote()
    assert standby.sql("SELECT count(*) FROM scratch") == "0"
    standby.sql("INSERT INTO scratch VALUES (1, 'usable')")


@pytest.mark.parametrize("group", [False, True], ids=["owner", "group"])
def test_modes(pg, clusters, run, tmp, group):
    if group:
        needs(pg, 11, "group access")
    primary = clusters.create(pg, initdb=["--allow-group-access"] if group else []).start()
    target = os.path.join(tmp, "standby")
    run.basebackup("-D", target, "-R", "-c", "fast", *primary.address())
    directories, files = (0o750, 0o640) if group else (0o700, 0o600)
    for path in [""] + paths_below(target):
        found = os.lstat(os.path.join(target, path))
        expected = directories if stat.S_ISDIR(found.st_mode) else files
        assert stat.S_IMODE(found.st_mode) == expected, f"{path}: {stat.S_IMODE(found.st_mode):o}"
    start_standby(clusters, pg, target, primary)


@pytest.mark.parametrize("jobs", [1, 3], ids=["stream", "lanes"])
def test_odd_names(pg, clusters, run, tmp, jobs):
    """Of a database, of a role, and of files that somebody put into the data directory."""
    primary = clusters.create(pg).start()
    quoted = '"' + ODD.replace('"', '""') + '"'
    primary.sql(f"CREATE DATABASE {quoted}", f"CREATE ROLE {quoted} LOGIN SUPERUSER")
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 100) i", db=ODD)
    invalid = [b"not utf-8 \xff\xfe"] if jobs == 1 else []  # SQL cannot say it
    for name in (ODD.encode(), b"two\nlines", b"trailing space ", b"-dash", b"%s%n", *invalid):
        path = os.path.join(primary.data.encode(), name)
        primary.place.give(os.mkdir(path) or path)
        with open(os.path.join(path, name), "wb") as f:
            f.write(name)
        primary.place.give(os.path.join(path, name))
    target = os.path.join(tmp, "standby")
    run.basebackup("-D", target, "-j", jobs, "-R", "-c", "fast", "-d", primary.conninfo(user=ODD, dbname=ODD))
    assert {p for p in paths_below(target.encode()) if b"base/" not in p} >= {
        p for p in paths_below(primary.data.encode()) if p.split(b"/")[0] == ODD.encode()}
    for name in invalid:
        with open(os.path.join(target.encode(), name, name), "rb") as f:
            assert f.read() == name
    verify_backup(pg, primary.place, target)
    standby = start_standby(clusters, pg, target, primary)
    assert standby.sql("SELECT count(*) FROM t", db=ODD) == "100"


@pytest.mark.parametrize("megabytes", [1, 64])
def test_wal_segment_sizes(pg, clusters, run, tmp, megabytes):
    needs(pg, 11, "initdb --wal-segsize")
    primary = clusters.create(pg, initdb=wal_segsize(pg, megabytes), max_wal_size="'2GB'").start()
    content.populate(primary)
    target = os.path.join(tmp, "standby")
    with content.Writer(primary):
        run.basebackup("-D", target, "-R", "-c", "fast", *primary.address())
    sizes = {os.path.getsize(os.path.join(target, "pg_wal", n)) for n in os.listdir(os.path.join(target, "pg_wal"))
             if len(n) == 24}
    assert sizes == {megabytes << 20}
    verify_backup(pg, primary.place, target)
    assert_follows(start_standby(clusters, pg, target, primary), primary)


def test_a_standby_as_the_source(pg, primary, clusters, run, tmp):
    first, second = os.path.join(tmp, "first"), os.path.join(tmp, "second")
    run.basebackup("-D", first, "-R", "-c", "fast", *primary.address())
    source = start_standby(clusters, pg, first, primary)
    with content.Writer(primary):
        run.basebackup("-D", second, "-j1", "-R", "-c", "fast", *source.address())
        verify_backup(pg, primary.place, second)
    cascaded = start_standby(clusters, pg, second, source)
    source.wait_replayed(primary.lsn())
    cascaded.wait_replayed(primary.lsn())
    assert content.fingerprint(cascaded) == content.fingerprint(primary)


def test_tls_and_scram(pg, primary, clusters, run, tmp, certificates):
    target = os.path.join(tmp, "standby")
    settings = {"user": "keeper", "password": "it's a \\secret", "sslmode": "verify-full", "host": "localhost",
                "sslrootcert": certificates.ca}
    process = run.start_basebackup("-D", target, "-R", "-c", "fast", "-r", "16M", "-d", primary.conninfo(**settings))
    primary.sender_pid("backup")
    ssl = primary.rows("SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_replication USING (pid)")
    assert ssl and all(row == ["t"] for row in ssl)
    assert process.wait() == 0, str(process)
    verify_backup(pg, primary.place, target)
    written = conninfo.of_standby(pg, target)
    assert {k: written.get(k) for k in settings} == settings
    start_standby(clusters, pg, target, primary)
    assert primary.rows("SELECT usename FROM pg_stat_replication") == [["keeper"]]


def test_the_standby_is_told_only_what_was_set(pg, primary, clusters, run, tmp):
    """libpq's defaults are not for the standby, whose own libpq may be older and know fewer keywords."""
    target = os.path.join(tmp, "standby")
    service = primary.place.write(os.path.join(tmp, "services"), "[source]\nkeepalives_idle=77\n")
    run.basebackup("-D", target, "-R", "-c", "fast", "-d", "service=source connect_timeout=17", *primary.address(),
                   env={"PGSERVICEFILE": service, "PGAPPNAME": "a 'name'"})
    written = conninfo.of_standby(pg, target)
    assert written == {"user": "postgres", "host": primary.host, "port": str(primary.port), "keepalives_idle": "77",
                       "connect_timeout": "17", "application_name": "a 'name'"}
    assert conninfo.setting(conninfo.recovery_text(pg, target), "primary_slot_name") is None
    start_standby(clusters, pg, target, primary)
    assert primary.senders()[0][0] == "a 'name'"


def test_keywords_that_the_standby_does_not_know_are_left_out(pg, primary, clusters, run, tmp):
    """Set by the user, understood by our libpq, but newer (13) than the server's own."""
    target = os.path.join(tmp, "standby")
    done = run.basebackup("-D", target, "-R", "-c", "fast", "-d", primary.conninfo(channel_binding="disable"))
    known = pg.major >= 13
    assert ("channel_binding" in conninfo.of_standby(pg, target)) == known
    assert ("channel_binding" in done.err) == (not known), str(done)
    start_standby(clusters, pg, target, primary)
