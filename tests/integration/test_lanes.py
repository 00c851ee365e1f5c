"""pgr-basebackup --jobs: files read over SQL by several sessions.  What comes out is what one BASE_BACKUP would have made."""

import os
import re
import signal

import pytest

from pgrtest import content, installs
from pgrtest.checks import nothing_of_ours, paths_below, start_standby, verify_backup
from pgrtest.place import wait_until
from pgrtest.programs import failed
from pgrtest.relay import Balancer, Holder
from pgrtest.tls import Certificates

LANES = ["-j", "3", "-c", "fast"]

# What two backups of one quiet cluster differ in: times, positions, counters.
VARIES = {"backup_label", "backup_manifest", "global/pg_control"}


@pytest.fixture
def target(tmp):
    return os.path.join(tmp, "copy")


def assert_follows(standby, primary):
    primary.sql("CREATE TABLE afterwards AS SELECT generate_series(1, 1000) AS i")
    try:
        standby.wait_replayed(primary.lsn())
        assert content.fingerprint(standby) == content.fingerprint(primary)
        content.check_indexes(standby)
    finally:
        primary.sql("DROP TABLE afterwards")


def assert_same_copies(one, other):
    def of_interest(top):
        return [p for p in paths_below(top) if not p.startswith("pg_wal/") and p not in VARIES
                and not p.endswith("pg_internal.init")]  # a cache, which the lanes' own sessions may make

    assert of_interest(one) == of_interest(other)
    for path in of_interest(one):
        a, b = os.path.join(one, path), os.path.join(other, path)
        assert os.lstat(a).st_mode == os.lstat(b).st_mode, path
        if os.path.isfile(a):
            assert content.hash_of(a) == content.hash_of(b), path


@pytest.mark.every_major
def test_standby_from_a_busy_primary(pg, primary, clusters, run, target):
    with content.Writer(primary) as writer:
        done = run.basebackup("-D", target, "-R", *LANES, *primary.address())
        assert done.out == "" and done.err == ""
        nothing_of_ours(target)
        verify_backup(pg, primary.place, target)
        standby = start_standby(clusters, pg, target, primary)
        writer.wait_for(100)
    assert_follows(standby, primary)


@pytest.mark.every_major
def test_same_as_the_stream(pg, clusters, run, tmp):
    """On a quiet server: every file but those that say when, byte for byte, with the same modes."""
    server = clusters.create(pg).start()
    content.populate(server)
    space = os.path.join(tmp, "space")
    server.place.give(os.mkdir(space) or space)
    server.sql(f"CREATE TABLESPACE space LOCATION '{space}'",
               "CREATE TABLE spaced TABLESPACE space AS SELECT generate_series(1, 50000) i",
               "CREATE UNLOGGED TABLE gone TABLESPACE space AS SELECT generate_series(1, 5000) i",
               "CREATE TABLE empty ()", "VACUUM", "CHECKPOINT")
    place, where = server.place, [*server.address(), "-c", "fast"]
    ways = {"stream": ["-j1"], "lanes": ["-j3"]}
    if pg.major <= 15:  # what Debian's own program can read
        ways["stock"] = None
    for name, more in ways.items():
        target = os.path.join(tmp, name)
        into = ["-D", target, "-T", f"{space}={target}-space", *where]
        if more is None:
            place.call([installs.client("pg_basebackup"), *into])
        else:
            run.basebackup(*into, *more)
            verify_backup(pg, place, target)
        for link in os.listdir(os.path.join(target, "pg_tblspc")):  # they differ as -T asked
            os.unlink(os.path.join(target, "pg_tblspc", link))
    one, *others = ways
    for other in others:
        assert_same_copies(*(os.path.join(tmp, name) for name in (one, other)))
        assert_same_copies(*(os.path.join(tmp, f"{name}-space") for name in (one, other)))


def test_a_pipe_in_the_data_directory(pg, clusters, run, target):
    """SQL shows it as an empty file; a server that opened it would wait for a writer for ever."""
    server = clusters.create(pg).start()
    pipe = os.path.join(server.data, "pipe")
    os.mkfifo(pipe)
    server.place.give(pipe)
    run.basebackup("-D", target, *LANES, *server.address())
    verify_backup(pg, server.place, target)


def test_from_a_standby(pg, primary, clusters, run, tmp, target):
    first = os.path.join(tmp, "first")
    run.basebackup("-D", first, "-R", "-c", "fast", *primary.address())
    source = start_standby(clusters, pg, first, primary)
    with content.Writer(primary):
        run.basebackup("-D", target, "-R", *LANES, *source.address())
        verify_backup(pg, primary.place, target)
    cascaded = start_standby(clusters, pg, target, source)
    cascaded.wait_replayed(primary.lsn())
    assert content.fingerprint(cascaded) == content.fingerprint(primary)


@pytest.mark.parametrize("options", [[], ["--delta=hash", "--dry-run"]], ids=["seed", "dry run"])
def test_lanes_that_meet_another_server(pg, primary, clusters, run, tmp, target, options):
    """One name for several: what a standby has may be older than the backup, and no WAL of it would mend that."""
    first = os.path.join(tmp, "first")
    run.basebackup("-D", first, "-R", "-c", "fast", *primary.address())
    standby = start_standby(clusters, pg, first, primary)
    if options:
        run.basebackup("-D", target, "-c", "fast", *primary.address())
    # the lanes come after the run's own three connections (that for WAL may be among the lanes'), two of a dry run
    own = 2 if options else 3
    with Balancer(lambda n: primary if n <= own else standby) as name:
        failed(run.start_basebackup("-D", target, *LANES, *options, *name.address()),
               "another server than the one on which the backup was started", "Name a single host")
    assert os.path.exists(target) == bool(options)


@pytest.mark.every_major
def test_what_is_not_waited_for(pg, primary, run, target):
    """Far away each wait is a round trip: no answer is needed for what is asked for at the same time."""
    start = b"'pgr-basebackup base backup'"  # the label
    together = [  # as soon as the first of them was sent, the others are, whatever the server says
        (b"IDENTIFY_SYSTEM\0", b"CREATE_REPLICATION_SLOT"),
        (b"SHOW wal_segment_size", b"IDENTIFY_SYSTEM"),
        (b"has_function_privilege", b"pg_postmaster_start_time"),
        (start, b"pg_control_checkpoint", b"segment_size", b"'pg_tblspc'"),
        (b"stats_temp_directory", b"WITH RECURSIVE"),
    ]

    def hold(n, sent):
        for first, *others in together:
            if first in sent and not (first == b"IDENTIFY_SYSTEM\0" and b"SHOW" in sent):
                wait_until(lambda others=others: all(o in sent for o in others), f"{others} of connection {n}")
        if n == 2:  # for WAL, or the coordinator's: whichever
            wait_until(lambda: name.connections >= 3, "the other one is begun")
        if start in sent:
            wait_until(lambda: name.connections == 6, "the lanes connect while the backup starts")
        if b"COPY (" in sent:
            wait_until(lambda: sent.count(b"COPY (") >= 2, f"a second request on connection {n}")

    with Holder(primary, hold) as name:
        run.basebackup("-D", target, *LANES, *name.address())
    verify_backup(pg, primary.place, target)


@pytest.mark.every_major
def test_no_more_questions(pg, clusters, run, tmp, target):
    """What is asked of the server, but for the files: a question more should be worth a round trip."""
    server = clusters.create(pg, log_statement="'all'", log_replication_commands="on").start()
    run.basebackup("-D", target, *LANES, *server.address())
    sessions = {}
    for pid, text in re.findall(r"\[(\d+)\] pgr-basebackup LOG:  (?:statement|received replication command): (.*)",
                                server.log_text()):
        if not text.startswith("COPY ("):
            sessions.setdefault(pid, []).append(text)
    replication = [s for s in sessions.values() if "IDENTIFY_SYSTEM" in s]
    coordinator = [s for s in sessions.values() if any("_backup" in text for text in s) and s not in replication]
    lanes = [s for s in sessions.values() if s not in replication + coordinator]
    assert len(lanes) == 3 and [len(s) for s in lanes] == [3, 3, 3], lanes
    assert len(coordinator) == 1 and len(coordinator[0]) == 12, coordinator
    first, wal = replication if not any("SLOT" in text for text in replication[0]) else reversed(replication)
    assert len(first) == (3 if pg.major >= 11 else 2), first
    assert len(wal) == 4, wal


def test_the_source_is_promoted(pg, primary, clusters, run, tmp, target):
    """Such a copy could not be recovered: the server says so, and nothing stays."""
    first = os.path.join(tmp, "first")
    run.basebackup("-D", first, "-R", "-c", "fast", *primary.address())
    source = start_standby(clusters, pg, first, primary)
    process = run.start_basebackup("-D", target, *LANES, "-r", "8M", *source.address())
    wait_until(lambda: os.path.isdir(os.path.join(target, "base")), "it copies")
    source.promote()
    failed(process, "promoted")
    assert not os.path.exists(target)


def test_grants(pg, clusters, run, tmp, target):
    """A role that is no superuser is told what it needs; --print-grants gives it."""
    server = clusters.create(pg).start()
    server.sql("CREATE ROLE copier LOGIN REPLICATION")
    failed(run.start_basebackup("-D", target, *LANES, *server.address("copier")), "copier", "may not execute")
    assert not os.path.exists(target)
    grants = run.basebackup("--print-grants", *server.address("copier")).out
    assert '"copier"' in grants
    server.sql(grants)
    run.basebackup("-D", target, *LANES, *server.address("copier"))
    verify_backup(pg, server.place, target)


def test_a_signal_ends_all(primary, run, tmp, target):
    process = run.start_basebackup("-D", target, *LANES, "-r", "4M", *primary.address())
    wait_until(lambda: os.path.isdir(os.path.join(target, "base")), "it copies")
    process.signal(15)
    assert process.wait() == -15
    assert paths_below(tmp) == []
    wait_until(lambda: primary.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgr-basebackup'")
               == "0", "no session is left")


def test_a_bad_page_is_reported_and_the_copy_kept(pg, clusters, run, target):
    server = clusters.create(pg, initdb=["--data-checksums"]).start()
    content.populate(server)
    path = server.sql("SELECT pg_relation_filepath('accounts')")
    server.stop()
    with open(os.path.join(server.data, path), "r+b") as f:
        f.seek(3 * 8192 + 4000)
        f.write(b"\0changed\0")
    server.start()
    process = run.start_basebackup("-D", target, *LANES, *server.address())
    assert process.wait() == 1
    assert re.match(rf'WARNING:  checksum verification failed in file "\./{path}", block 3: calculated', process.err)
    assert "checksum error occurred" in process.err and process.out == ""
    assert os.path.exists(os.path.join(target, "global", "pg_control"))
    assert not os.path.exists(os.path.join(target, "backup_manifest"))


@pytest.mark.parametrize("options", [["-X", "fetch"], ["-Z", "server-gzip"], ["-j", "0"], ["-j", "many"]],
                         ids=lambda o: " ".join(o))
def test_refused(primary, run, tmp, target, options):
    failed(run.start_basebackup("-D", target, *LANES, *options, *primary.address()), "")
    assert paths_below(tmp) == []


# ---- without --jobs


def way(done):
    """Which source it said that it took, and why."""
    lines = [line.partition(": ")[2] for line in done.err.split("\n") if ": copying " in line]
    assert len(lines) == 1, str(done)
    return lines[0]


@pytest.mark.every_major
def test_lanes_where_the_role_may(pg, primary, run, target):
    done = run.basebackup("-D", target, "-c", "fast", "-v", *primary.address())
    assert way(done).startswith("copying over 4 SQL sessions")
    verify_backup(pg, primary.place, target)


@pytest.mark.parametrize("options, reason", [(["-X", "fetch"], "-X fetch"), (["-Z", "server-gzip"], "compression")])
def test_the_stream_where_an_option_needs_it(pg, primary, run, target, options, reason):
    done = run.basebackup("-D", target, "-c", "fast", "-v", *options, *primary.address())
    assert way(done).startswith("copying through one stream") and reason in way(done)
    verify_backup(pg, primary.place, target)


@pytest.mark.every_major
def test_connection_string_for_replication(pg, clusters, run, target):
    """As Barman makes it: what is called replication there is no database to connect to, nor one for the standby."""
    server = clusters.create(pg).start()
    text = server.conninfo(dbname="replication", replication="true")
    done = run.basebackup("-D", target, "-v", "-R", "-c", "fast", "-d", text)
    assert way(done).startswith("copying over 4 SQL sessions")
    assert "FATAL" not in server.log_text()
    with open(os.path.join(target, "postgresql.auto.conf" if pg.major >= 12 else "recovery.conf"), encoding="utf-8") as f:
        assert "dbname" not in f.read()
    start_standby(clusters, pg, target, server)


def test_the_stream_where_the_role_may_not(pg, clusters, run, target):
    server = clusters.create(pg).start()
    server.sql("CREATE ROLE streamer LOGIN REPLICATION")
    done = run.basebackup("-D", target, "-c", "fast", "-v", *server.address(user="streamer"))
    assert way(done).startswith("copying through one stream")
    verify_backup(pg, server.place, target)


def test_the_stream_where_sql_is_refused(pg, clusters, run, target):
    """Nobody is asked for a password that the replication connection does not need."""
    server = clusters.create(pg)
    hba = os.path.join(server.data, "pg_hba.conf")
    with open(hba, encoding="utf-8") as f:
        rules = f.read()
    server.place.write(hba, "host all streamer all scram-sha-256\n" + rules)
    server.start()
    server.sql("CREATE ROLE streamer LOGIN REPLICATION PASSWORD 'secret'")
    done = run.basebackup("-D", target, "-c", "fast", "-v", *server.address(user="streamer"))
    assert way(done).startswith("copying through one stream") and "password" in way(done)
    verify_backup(pg, server.place, target)


def test_the_stream_where_sql_cannot_say_a_name(pg, clusters, run, target):
    server = clusters.create(pg).start()
    name = os.fsencode(server.data) + b"/odd\xff"
    with open(name, "wb") as f:
        f.write(b"odd")
    server.place.give(name)
    done = run.basebackup("-D", target, "-c", "fast", "-v", *server.address())
    assert "copying over 4 SQL sessions" in done.err
    assert "copying through one stream: file " in done.err
    assert os.path.exists(os.fsencode(target) + b"/odd\xff")
    verify_backup(pg, server.place, target)
    assert server.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == "1"


def test_the_rate_is_changed_meanwhile(pg, primary, run, target):
    process = run.start_basebackup("-D", target, "-j2", "-c", "fast", "-r", "2M", *primary.address())
    wait_until(lambda: os.path.exists(os.path.join(target, "base")), "it copies")
    process.signal(signal.SIGUSR1)
    process.wait_for_text("limited to 1024 kB/s")
    for rate in (2048, 4096, 8192, 16384, 32768, 65536, 131072):
        process.signal(signal.SIGUSR2)
        process.wait_for_text(f"limited to {rate} kB/s")
    assert process.wait() == 0, str(process)
    verify_backup(pg, primary.place, target)


def test_files_that_are_rewritten_meanwhile(pg, clusters, run, target):
    """No WAL mends what is no relation: a configuration file that is not as long any more as it was listed is neither cut
    nor filled up."""
    server = clusters.create(pg).start()
    server.sql("ALTER SYSTEM SET work_mem = '5MB'", "ALTER SYSTEM SET maintenance_work_mem = '90MB'")
    conf = {name: os.path.join(server.data, name) for name in ("postgresql.auto.conf", "pg_ident.conf", "pg_hba.conf")}
    process = run.start_basebackup("-D", target, "-j2", "-c", "fast", "-r", "1M", *server.address())
    wait_until(lambda: os.path.exists(os.path.join(target, "base")), "it copies")
    server.sql("ALTER SYSTEM RESET maintenance_work_mem")  # shorter
    for name in ("pg_ident.conf", "pg_hba.conf"):
        with open(conf[name], encoding="utf-8") as f:
            rules = f.read()
        server.place.write(conf[name], rules + "# one line more\n" * 20000 if name == "pg_hba.conf" else "# less\n")
    assert not os.path.exists(os.path.join(target, "postgresql.auto.conf")), "it was too fast"
    for rate in (2048, 4096, 8192, 16384, 32768, 65536):
        process.signal(signal.SIGUSR2)
        process.wait_for_text(f"limited to {rate} kB/s")
    assert process.wait() == 0, str(process)
    for name, path in conf.items():
        with open(path, "rb") as there, open(os.path.join(target, name), "rb") as here:
            assert there.read() == here.read(), name
    verify_backup(pg, server.place, target)


def test_the_key_stays_private(pg, clusters, run, target):
    """The group may read the cluster, but no server starts with a key that it may read; SQL shows no modes."""
    server = clusters.create(pg, initdb=["--allow-group-access"], ssl="on")
    certificates = Certificates(server.place)
    for path in (certificates.key, certificates.certificate):
        with open(path, encoding="utf-8") as f:
            copy = server.place.write(os.path.join(server.data, os.path.basename(path)), f.read())
        os.chmod(copy, 0o600)
    server.start()
    run.basebackup("-D", target, "-R", *LANES, *server.address())
    modes = {name: os.stat(os.path.join(target, name)).st_mode & 0o777 for name in ("server.key", "PG_VERSION")}
    assert modes == {"server.key": 0o600, "PG_VERSION": 0o640}
    start_standby(clusters, pg, target, server)
