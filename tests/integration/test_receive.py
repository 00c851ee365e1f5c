"""pgr-receivewal keeps a server's WAL, byte for byte, whatever happens to either of them: on every major version."""

import os
import signal

import pytest

from pgrtest import content, wal
from pgrtest.checks import start_standby
from pgrtest.place import wait_until
from pgrtest.server import wal_segsize

pytestmark = pytest.mark.every_major


@pytest.fixture
def source(pg, clusters):
    """A primary with small segments that removes none of its WAL."""
    server = clusters.create(pg, initdb=wal_segsize(pg, 1), wal_sender_timeout="'20s'")
    server.keep_wal()
    return server.start()


def new_segments(server, directory, count):
    """Waits until so many more segments are complete; makes the server end some when it is slow."""
    goal = len(wal.complete(directory)) + count
    for _ in range(count):
        server.sql("CREATE TABLE IF NOT EXISTS filler (t text)",
                   "INSERT INTO filler SELECT repeat(md5(i::text), 10) FROM generate_series(1, 200) i")
        server.switch_wal()
    wait_until(lambda: len(wal.complete(directory)) >= goal, f"{goal} segments are complete")


def flushed(server):
    """What the receiver said is safe on its disk."""
    return server.sql("SELECT flush_lsn FROM pg_stat_replication")


def wait_flushed(server, lsn):
    query = f"SELECT flush_lsn >= '{lsn}' FROM pg_stat_replication"
    wait_until(lambda: server.sql(query) == "t", f"the receiver has flushed {lsn}")


def stop(process):
    """Exit code 0, whatever errors it has overcome."""
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, str(process)


def test_killed_again_and_again(source, run, tmp):
    """Nothing that was acknowledged is lost or changed."""
    run.receivewal("--create-slot", "-S", "keep", *source.address())
    arguments = ["-D", tmp, "-S", "keep", "--synchronous", *source.address()]
    with content.Writer(populated(source)):
        for _ in range(4):
            receiver = run.start_receivewal(*arguments)
            new_segments(source, tmp, 2)
            acknowledged = flushed(source)
            receiver.end()
            wal.assert_received(tmp, source, acknowledged)
            wait_until(lambda: source.sql("SELECT active FROM pg_replication_slots") == "f", "the slot is free")
        receiver = run.start_receivewal(*arguments)
        new_segments(source, tmp, 2)
    end = source.lsn()
    wait_flushed(source, end)
    stop(receiver)
    assert len(wal.assert_received(tmp, source, end)) >= 10


def populated(server):
    content.populate(server)
    return server


def test_file_made_ahead_by_a_killed_run(source, run, tmp):
    """Whatever a killed run left under the name of the next segment's file, it is nobody's WAL."""
    ahead, size = os.path.join(tmp, wal.AHEAD), source.segment_bytes()
    source.place.write(ahead, "left behind")
    arguments = ["-D", tmp, "--synchronous", *source.address()]
    receiver = run.start_receivewal(*arguments)
    new_segments(source, tmp, 1)
    wait_until(lambda: os.path.exists(ahead) and os.path.getsize(ahead) == size, "the next segment is prepared")
    receiver.end()
    assert os.path.exists(ahead)
    wait_until(lambda: not source.senders(), "the server has noticed")
    receiver = run.start_receivewal(*arguments)
    new_segments(source, tmp, 1)
    end = source.lsn()
    wait_flushed(source, end)
    stop(receiver)
    assert not os.path.exists(ahead)
    wal.assert_received(tmp, source, end)


def test_server_shuts_down(source, run, tmp):
    """A clean shutdown waits until all is flushed, without --synchronous too: then all of it is here."""
    run.receivewal("--create-slot", "-S", "keep", *source.address())
    receiver = run.start_receivewal("-D", tmp, "-n", "-s", "0", "-S", "keep", *source.address())
    wait_until(source.senders, "it streams")
    new_segments(source, tmp, 1)
    source.stop()
    receiver.wait()
    source.start()
    high, low = source.sql("SELECT checkpoint_lsn FROM pg_control_checkpoint()").split("/")
    wal.assert_received(tmp, source, f"{high}/{int(low, 16) + 1:X}")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_server_restarts(source, run, tmp, mode):
    """It comes back by itself."""
    receiver = run.start_receivewal("-D", tmp, "-v", *source.address())
    wait_until(source.senders, "it streams")
    new_segments(source, tmp, 2)
    source.restart(mode)
    wait_until(source.senders, "it streams again")
    new_segments(source, tmp, 2)
    stop(receiver)
    wal.assert_received(tmp, source)


def test_source_is_promoted(pg, source, clusters, run, tmp):
    """The stream goes on on the new timeline, without a new connection; the history file is kept."""
    copy, received = os.path.join(tmp, "copy"), os.path.join(tmp, "wal")
    source.place.give(os.mkdir(received) or received)
    run.basebackup("-D", copy, "-R", "-c", "fast", *source.address())
    standby = start_standby(clusters, pg, copy, source)
    receiver = run.start_receivewal("-D", received, "-v", *standby.address())
    wait_until(standby.senders, "it streams")
    # No pg_switch_wal here: a cascading server may send what follows the switch record before it has received it.
    source.sql("CREATE TABLE bulk AS SELECT g, md5(g::text) FROM generate_series(1, 500000) g")
    wait_until(lambda: wal.complete(received), "a segment is complete")
    sender = standby.sender_pid("streaming")
    source.stop()
    standby.promote()
    new_segments(standby, received, 3)
    assert standby.sender_pid("streaming") == sender
    stop(receiver)
    names = wal.assert_received(received, standby)
    assert wal.histories(received) == ["00000002.history"]
    assert {n[:8] for n in names} == {"00000001", "00000002"}


def test_several_promotions_while_it_was_off(source, run, tmp):
    receiver = run.start_receivewal("-D", tmp, *source.address())
    wait_until(source.senders, "it streams")
    new_segments(source, tmp, 2)
    stop(receiver)
    for _ in range(3):
        source.new_timeline()
        source.switch_wal()
    receiver = run.start_receivewal("-D", tmp, *source.address())
    wait_until(lambda: any(n.startswith("00000004") for n in wal.complete(tmp)), "timeline 4 has arrived")
    new_segments(source, tmp, 2)
    stop(receiver)
    wal.assert_received(tmp, source)
    assert wal.histories(tmp) == [f"0000000{i}.history" for i in (2, 3, 4)]


def follower(pg, source, of, clusters, run, path):
    """A standby of `of`, which follows `source` itself or through others."""
    run.basebackup("-D", path, "-R", "-c", "fast", *of.address())
    if pg.major < 12:  # later ones follow promotions of their server without being told
        with open(os.path.join(path, "recovery.conf"), "a", encoding="utf-8") as f:
            f.write("recovery_target_timeline = 'latest'\n")
    standby = start_standby(clusters, pg, path, of)
    standby.wait_replayed(source.lsn())
    return standby


def bulk(server, name):
    """Ends segments without pg_switch_wal: a cascading server may send what follows a switch before it has it."""
    rows = server.segment_bytes() // 20  # of 65 bytes each
    server.sql(f"CREATE TABLE {name} AS SELECT g, md5(g::text) FROM generate_series(1, {rows}) g")


def test_several_promotions_while_it_runs(pg, source, clusters, run, tmp):
    """Down a chain of standbys, in one stream: timelines 1, 2 and 3."""
    received = os.path.join(tmp, "wal")
    source.place.give(os.mkdir(received) or received)
    first = follower(pg, source, source, clusters, run, os.path.join(tmp, "first"))
    second = follower(pg, source, first, clusters, run, os.path.join(tmp, "second"))
    receiver = run.start_receivewal("-D", received, "-v", *second.address())
    sender = second.sender_pid("streaming")
    bulk(source, "one")
    wait_until(lambda: wal.complete(received), "a segment is complete")
    source.stop()
    first.promote()
    bulk(first, "two")
    wait_until(lambda: any(n.startswith("00000002") for n in wal.complete(received)), "timeline 2 has arrived")
    first.stop()
    second.promote()
    new_segments(second, received, 3)
    assert second.sender_pid("streaming") == sender
    stop(receiver)
    names = wal.assert_received(received, second)
    assert wal.histories(received) == ["00000002.history", "00000003.history"]
    assert {n[:8] for n in names} == {"00000001", "00000002", "00000003"}


@pytest.mark.parametrize("options", [[], ["--synchronous", "-S", "mine", "--ensure-slot"]], ids=["plain", "slot"])
def test_follows_to_another_host(pg, source, clusters, run, tmp, options):
    """Two hosts in the connection string, and the primary is the one that is wanted."""
    if pg.major < 10:
        pytest.skip("target_session_attrs needs SHOW")
    received = os.path.join(tmp, "wal")
    source.place.give(os.mkdir(received) or received)
    standby = follower(pg, source, source, clusters, run, os.path.join(tmp, "copy"))
    both = f"host=127.0.0.1,127.0.0.1 port={standby.port},{source.port} user=postgres target_session_attrs=read-write"
    receiver = run.start_receivewal("-D", received, "-v", *options, "-d", both)
    wait_until(lambda: len(source.senders()) == 2, "it streams from the primary")
    assert not standby.senders()
    new_segments(source, received, 2)
    end = source.lsn()
    standby.wait_replayed(end)
    source.kill()
    receiver.wait_for_text("disconnected; waiting")
    standby.promote()
    wait_until(standby.senders, "it streams from the other server")
    new_segments(standby, received, 2)
    end = standby.lsn()
    wait_until(lambda: standby.sql(f"SELECT write_lsn >= '{end}' FROM pg_stat_replication") == "t", "all has arrived")
    if options:
        wait_flushed(standby, end)
        assert standby.slots() == ["mine"]
    stop(receiver)
    names = wal.assert_received(received, standby, end)
    assert {n[:8] for n in names} == {"00000001", "00000002"}
    assert wal.histories(received) == ["00000002.history"]


def test_promoted_server_restarts_with_the_receiver_on(source, run, tmp):
    """A new timeline behind a lost connection."""
    receiver = run.start_receivewal("-D", tmp, *source.address())
    wait_until(source.senders, "it streams")
    new_segments(source, tmp, 1)
    source.new_timeline()
    wait_until(source.senders, "it streams again")
    new_segments(source, tmp, 2)
    stop(receiver)
    wal.assert_received(tmp, source)
    assert wal.histories(tmp) == ["00000002.history"]
    assert any(n.startswith("00000002") for n in wal.complete(tmp))


@pytest.mark.parametrize("megabytes", [2, 16, 64])
def test_segment_sizes(pg, clusters, run, tmp, megabytes):
    if pg.major < 11 and megabytes != 16:
        pytest.skip("initdb --wal-segsize came with 11")
    server = clusters.create(pg, initdb=wal_segsize(pg, megabytes))
    server.keep_wal()
    server.start()
    receiver = run.start_receivewal("-D", tmp, *server.address())
    wait_until(server.senders, "it streams")
    new_segments(server, tmp, 2)
    stop(receiver)
    names = wal.assert_received(tmp, server)
    assert {os.path.getsize(os.path.join(tmp, n)) for n in names} == {megabytes << 20}


def crossing(pg, clusters, megabytes, first, **settings):
    """A server whose WAL begins with the segment `first`, given as timeline 1's two other numbers."""
    resetwal = pg.program("pg_resetwal")
    if not os.path.exists(resetwal):
        pytest.skip(f"there is no pg_resetwal of {pg.major}")
    server = clusters.create(pg, initdb=wal_segsize(pg, megabytes), **settings)
    segment = f"00000001{first}"
    server.place.call([resetwal, "-l", segment, "-D", server.data])
    server.keep_wal()
    server.start()
    assert server.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())") >= segment
    return server


# Two segments before the last one of each log file: what begins there goes over its end.
WRAPS = [(1, "0000000000000FFE"), (1, "7FFFFFFE00000FFE"), (16, "00000000000000FE"), (4, "FFFF0000000003FE")]


@pytest.mark.parametrize("megabytes, first", WRAPS)
def test_high_word_of_the_position_wraps(pg, clusters, run, tmp, megabytes, first):
    """And a restart behind it, or at it, goes on."""
    if pg.major < 11 and megabytes != 16:
        pytest.skip("initdb --wal-segsize came with 11")
    server = crossing(pg, clusters, megabytes, first)
    for _ in range(2):
        receiver = run.start_receivewal("-D", tmp, *server.address())
        wait_until(server.senders, "it streams")
        new_segments(server, tmp, 2)
        stop(receiver)
        wait_until(lambda: not server.senders(), "the server has noticed")
    names = wal.assert_received(tmp, server)
    assert len({n[8:16] for n in names}) == 2, names


@pytest.mark.long
def test_segments_of_a_gigabyte(pg, clusters, run, tmp):
    """The largest there are, over the end of the high word, of which they are a quarter each."""
    if pg.major < 12:
        pytest.skip("wal_init_zero came with 12")
    server = crossing(pg, clusters, 1024, "0000000000000003", wal_init_zero="off", min_wal_size="'2GB'",
                      max_wal_size="'4GB'")
    receiver = run.start_receivewal("-D", tmp, "--synchronous", *server.address())
    wait_until(server.senders, "it streams")
    new_segments(server, tmp, 1)
    end = server.lsn()
    wait_flushed(server, end)
    stop(receiver)
    names = wal.assert_received(tmp, server, end)
    assert {os.path.getsize(os.path.join(tmp, n)) for n in names} == {1 << 30}
    assert {n[8:16] for n in names + wal.partial(tmp)} == {"00000000", "00000001"}


def test_synchronous_standby(source, run, tmp):
    """A commit returns when its WAL is in the files, and waits while the receiver stands still."""
    source.sql("CREATE TABLE t (i int)")
    receiver = run.start_receivewal("-D", tmp, "--synchronous", "-d", source.conninfo(application_name="sink"))
    wait_until(source.senders, "it streams")
    source.sql("ALTER SYSTEM SET synchronous_standby_names = 'sink'")
    source.reload()
    wait_until(lambda: source.senders() == [["sink", "streaming", "sync"]], "it counts as synchronous")
    for i in range(20):
        end = source.sql(f"INSERT INTO t VALUES ({i})", "SELECT pg_current_wal_flush_lsn()")
        wal.assert_received(tmp, source, source.sql(f"SELECT '{end}'::pg_lsn"))
    receiver.signal(signal.SIGSTOP)
    commit = run.start_psql(source, "INSERT INTO t VALUES (100)")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_until(lambda: source.sql(waiting) == "1", "the commit waits")
    receiver.signal(signal.SIGCONT)
    assert commit.wait() == 0, str(commit)
    source.sql("ALTER SYSTEM RESET synchronous_standby_names")
    source.reload()
    stop(receiver)
