"""Connections that break, sessions that are ended, bytes that change on the way: the copy is right, or there is none."""

import os
import random

import pytest

from pgrtest import content
from pgrtest.checks import nothing_of_ours, paths_below, start_standby, verify_backup
from pgrtest.place import wait_until
from pgrtest.programs import failed
from pgrtest.relay import Relay, socket_of
from pgrtest.server import HBA, wal_segsize

STREAM = ["-c", "fast", "-j1"]
LANES = ["-c", "fast", "-j", "3"]
both_sources = pytest.mark.parametrize("source", [STREAM, LANES], ids=["stream", "lanes"])

LOST = "lost the connection for WAL, connecting again"


@pytest.fixture
def target(tmp):
    return os.path.join(tmp, "copy")


@pytest.fixture
def server(pg, clusters):
    """Page checksums, WAL in small segments, some data; nothing of it changes by itself."""
    made = clusters.create(pg, initdb=["--data-checksums", *wal_segsize(pg, 1)], autovacuum="off")
    made.keep_wal()
    made.start()
    content.populate(made)
    made.sql("CREATE TABLE big AS SELECT i, md5(i::text) AS a, md5((i + 1)::text) AS b FROM generate_series(1, 250000) i",
             "VACUUM (FREEZE)", "CHECKPOINT")
    return made


def nothing_left(tmp, server):
    assert paths_below(tmp) == []
    wait_until(lambda: not server.slots(), "no slot is left on the server")


def follows(clusters, pg, target, server):
    """The copy is a standby that comes to hold what the primary holds."""
    standby = start_standby(clusters, pg, target, server)
    standby.wait_replayed(server.lsn())
    assert content.fingerprint(standby) == content.fingerprint(server)
    content.check_indexes(standby)


# ---- the connection for WAL


@pytest.mark.every_major
@both_sources
def test_wal_connection_is_cut(pg, server, clusters, run, target, source):
    with Relay(server.place, socket_of(server), when="START_REPLICATION", cut_after=1_500_000, times=4) as relay:
        with content.Writer(server):
            process = run.start_basebackup("-D", target, "-R", "-v", "-r", "6M", *source, *relay.address())
            assert process.wait() == 0, str(process)
        assert process.err.count(LOST) >= 2, str(process)
        nothing_of_ours(target)
        verify_backup(pg, server.place, target)
        follows(clusters, pg, target, server)


def test_wal_connection_is_cut_with_a_slot(pg, server, clusters, run, target):
    """The server may take the slot for used for a while yet."""
    with Relay(server.place, socket_of(server), when="START_REPLICATION", cut_after=1_500_000, times=2) as relay:
        with content.Writer(server):
            process = run.start_basebackup("-D", target, "-R", "-C", "-S", "mine", "-r", "6M", *STREAM,
                                           *relay.address())
            assert process.wait() == 0, str(process)
        assert LOST in process.err, str(process)
        assert server.slots() == ["mine"]
        verify_backup(pg, server.place, target)
        follows(clusters, pg, target, server)


def test_wal_connection_is_lost_before_the_start(pg, server, run, target):
    """The server's checkpoint takes its time, the connection that waits for it is ended meanwhile."""
    if pg.major < 14:
        pytest.skip("idle_session_timeout came with 14")
    server.configure(idle_session_timeout="'1s'", checkpoint_completion_target="0.9")
    server.reload()
    server.sql("UPDATE big SET a = b")
    process = run.start_basebackup("-D", target, "-v", "-j1", "-c", "spread", *server.address())
    process.wait_for_text(LOST)
    assert "idle-session timeout" in process.err
    server.sql("CHECKPOINT")
    assert process.wait() == 0, str(process)
    verify_backup(pg, server.place, target)


def test_wal_is_gone_when_the_connection_is_back(pg, clusters, run, tmp, target):
    """Without a slot nobody keeps it."""
    server = clusters.create(pg, initdb=wal_segsize(pg, 1)).start()
    content.populate(server)
    with Relay(server.place, socket_of(server), when="START_REPLICATION", cut_after=100_000, times=1000) as relay:
        process = run.start_basebackup("-D", target, "--no-slot", "-r", "1M", *STREAM, *relay.address())
        while process.running() and LOST not in process.err:
            server.switch_wal()
        while process.running():
            for _ in range(5):
                server.switch_wal()
            server.sql("CHECKPOINT")
        failed(process, "background process terminated unexpectedly", "has already been removed")
        assert LOST in process.err, str(process)
        nothing_left(tmp, server)


def test_password_is_asked_once(pg, primary, run, target):
    """The one that was given is good for the connections that are made again."""
    target_address = f"{primary.host}:{primary.port}"
    with Relay(primary.place, target_address, when="START_REPLICATION", cut_after=1_500_000, times=2) as relay:
        with content.Writer(primary):
            process = run.start_basebackup("-D", target, "-d", "sslmode=disable", "-r", "6M", *STREAM,
                                           *relay.address("keeper"), stdin="it's a \\secret\n")
            assert process.wait() == 0, str(process)
    assert process.err.count("Password") == 1 and LOST in process.err, str(process)
    verify_backup(pg, primary.place, target)


def test_login_is_refused_when_the_connection_is_made_again(pg, server, run, tmp, target):
    """What an administrator has decided is not asked again and again."""
    with Relay(server.place, socket_of(server), when="START_REPLICATION", cut_after=3_000_000) as relay:
        process = run.start_basebackup("-D", target, "-r", "1M", *STREAM, *relay.address())
        server.sender_pid("streaming")
        server.set_hba("local replication all reject\n" + HBA)
        server.reload()
        wait_until(lambda: not process.running() or server.sql(
            "CREATE TABLE wal AS SELECT md5(i::text) FROM generate_series(1, 50000) i", "DROP TABLE wal") is None,
            "the connection is cut and refused")
        failed(process, "background process terminated unexpectedly: could not make the connection for WAL again",
               "FATAL:  pg_hba.conf rejects replication connection")
        assert "28000" not in process.err and "LOCATION" not in process.err
        server.set_hba(HBA)
        server.reload()
        nothing_left(tmp, server)


@both_sources
def test_administrator_ends_the_wal_stream(server, run, tmp, target, source):
    process = run.start_basebackup("-D", target, "-r", "4M", *source, *server.address())
    server.sql(f"SELECT pg_terminate_backend({server.sender_pid('streaming')})")
    failed(process, "background process terminated unexpectedly",
           "terminating connection due to administrator command")
    assert LOST not in process.err
    nothing_left(tmp, server)


# ---- the connection for the copy


@pytest.mark.parametrize("position", [1, 40, 5_000, 3_000_000, 20_000_000])
def test_stream_is_cut(server, run, tmp, target, position):
    with Relay(server.place, socket_of(server), when="BASE_BACKUP", cut_after=position) as relay:
        failed(run.start_basebackup("-D", target, *STREAM, *relay.address()), "server closed the connection")
        nothing_left(tmp, server)


@pytest.mark.parametrize("position", [1, 50])
def test_coordinator_of_the_lanes_is_cut(server, run, tmp, target, position):
    """With its session the server ends the backup."""
    start = "pg_backup_start" if server.major >= 15 else "pg_start_backup"
    with Relay(server.place, socket_of(server), when=start, cut_after=position) as relay:
        failed(run.start_basebackup("-D", target, *LANES, *relay.address()), "server closed the connection")
        nothing_left(tmp, server)


# ---- lanes

A_LANE = ("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgr-basebackup' AND query LIKE 'COPY%'"
          " AND backend_type = 'client backend' LIMIT 1")


def right_or_none(process, words, pg, server, tmp, target):
    """Whether there is a copy.  If not, the error says the words, and nothing is left."""
    if process.wait() != 0:
        failed(process, words)
        nothing_left(tmp, server)
        return False
    nothing_of_ours(target)
    verify_backup(pg, server.place, target)
    return True


def test_lanes_are_terminated(pg, server, run, tmp, target):
    """An administrator's word is obeyed and told.  A server that is in the middle of a message cannot say it: then the
    lane is opened again, and the copy is right."""
    for _ in range(3):
        process = run.start_basebackup("-D", target, "-v", "-r", "8M", *LANES, *server.address())
        wait_until(lambda: server.sql(A_LANE) != "" or not process.running(), "a lane reads")
        ended = 0
        while process.running() and ended < 5:
            ended += server.sql(f"SELECT pg_terminate_backend(pid) FROM ({A_LANE}) l") == "t"
        if right_or_none(process, "terminating connection due to administrator command", pg, server, tmp, target):
            assert ended == 0 or "is connected again" in process.err, str(process)
            server.place.discard(target)


@pytest.mark.every_major
@pytest.mark.parametrize("seed", range(3))
def test_lanes_are_cut(pg, server, clusters, run, tmp, target, seed):
    """Anywhere, several of them, while the tables change."""
    position = random.Random(seed).randrange(1, 6_000_000)
    with Relay(server.place, socket_of(server), when="COPY (SELECT", cut_after=position, times=3) as relay:
        with content.Writer(server):
            process = run.start_basebackup("-D", target, "-R", "-v", *LANES, *relay.address())
            copied = right_or_none(process, "server closed the connection", pg, server, tmp, target)
        if copied:
            assert "is connected again" in process.err, str(process)
            follows(clusters, pg, target, server)


def test_lanes_are_cut_again_and_again(pg, server, run, tmp, target):
    """Before a single row has come: there is an end to it."""
    with Relay(server.place, socket_of(server), when="COPY (SELECT", cut_after=50, times=1000) as relay:
        failed(run.start_basebackup("-D", target, *LANES, *relay.address()), "server closed the connection")
        nothing_left(tmp, server)


@pytest.mark.parametrize("position", [60_003, 1_000_003, 2_500_003])
def test_byte_of_a_page_is_changed_on_the_way(pg, server, run, target, position):
    """Lanes begin with the largest file.  The page's checksum tells; read again it is as it was."""
    path = server.sql("SELECT pg_relation_filepath('big')")
    with Relay(server.place, socket_of(server), when="COPY (SELECT", flip_byte=position) as relay:
        done = run.basebackup("-D", target, "-v", *LANES, *relay.address())
    assert f'1 page(s) of file "./{path}" came torn or damaged and were read again' in done.err
    assert content.hash_of(os.path.join(target, path)) == content.hash_of(os.path.join(server.data, path))
    verify_backup(pg, server.place, target)
