"""pgr-receivewal's options and errors, on one server."""

import os
import pathlib
import re
import signal
import stat

import pytest

from pgrtest import wal
from pgrtest.checks import start_standby
from pgrtest.place import wait_until
from pgrtest.programs import failed, gave_up, succeeded
from pgrtest.server import free_port, wal_segsize


@pytest.fixture
def source(pg, clusters):
    server = clusters.create(pg, initdb=wal_segsize(pg, 1))
    server.keep_wal()
    return server.start()


def segments(server, count):
    for _ in range(count):
        server.switch_wal()


def stop(process, number=signal.SIGTERM):
    process.signal(number)
    return succeeded(process)


def stop_at_once(process):
    """Also while it waits for its next attempt; exit code 0, whatever errors it has overcome."""
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, str(process)


def ended_with(process, code, *words):
    assert process.wait() == code, str(process)
    for word in words:
        assert word in process.err, f"does not say {word!r}\n{process}"


def receive(run, server, directory, count, *options):
    """Receives so many complete segments and stops."""
    receiver = run.start_receivewal("-D", directory, *options, *server.address())
    wait_until(server.senders, "it streams")
    goal = len(wal.complete(directory)) + count
    segments(server, count + 1)
    wait_until(lambda: len(wal.complete(directory)) >= goal, f"{goal} segments are there")
    stop(receiver)
    wait_until(lambda: not server.senders(), "the server has noticed")


# ---- where it begins and ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_stops_when_asked(source, run, tmp, number):
    receiver = run.start_receivewal("-D", tmp, "-v", *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    segments(source, 2)
    wait_until(lambda: wal.complete(tmp), "a segment is there")
    done = stop(receiver, number)
    assert done.out == ""
    wal.assert_received(tmp, source)


def test_goes_on_where_it_was(source, run, tmp):
    for _ in range(3):
        receive(run, source, tmp, 2)
    names = wal.assert_received(tmp, source)
    assert len(names) >= 6


def test_endpos(source, run, tmp):
    """It ends by itself when that position has been received."""
    receiver = run.start_receivewal("-D", tmp, "--endpos", "0/A00000", *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    while receiver.running():
        segments(source, 1)
    succeeded(receiver)
    wal.assert_received(tmp, source, "0/A00000")
    assert wal.lsn_number(source.lsn()) >= 0xA00000


def test_endpos_is_the_end_of_an_idle_server(source, run, tmp):
    """No byte beyond it is needed."""
    source.sql("CREATE TABLE t AS SELECT generate_series(1, 100) i")
    end = source.lsn()
    run.receivewal("-D", tmp, "--endpos", end, *source.address())
    wal.assert_received(tmp, source, end)


def test_slot_decides_where_an_empty_directory_begins(pg, source, run, tmp):
    if pg.major < 15:
        pytest.skip("READ_REPLICATION_SLOT came with 15")
    source.sql("SELECT pg_create_physical_replication_slot('early', true)")
    start = source.sql("SELECT restart_lsn FROM pg_replication_slots")
    segments(source, 3)
    run.receivewal("-D", tmp, "-S", "early", "--endpos", source.lsn(), *source.address())
    first = wal.segment_name(1, wal.lsn_number(start), source.segment_bytes())
    assert wal.assert_received(tmp, source, source.lsn())[0] == first


def test_gap_is_reported(source, run, tmp):
    receive(run, source, tmp, 5)
    lost = wal.complete(tmp)[2]
    os.unlink(os.path.join(tmp, lost))
    receiver = run.start_receivewal("-D", tmp, *source.address())
    receiver.wait_for_text(lost)
    assert "missing" in receiver.err and tmp in receiver.err, str(receiver)
    wait_until(source.senders, "it streams all the same")
    stop(receiver)


# ---- slots


def test_slot_is_made_and_dropped(source, run):
    arguments = ["-S", "archive", *source.address()]
    run.receivewal("--create-slot", *arguments)
    assert source.rows("SELECT slot_name, restart_lsn IS NULL FROM pg_replication_slots") == [["archive", "t"]]
    failed(run.start_receivewal("--create-slot", *arguments), 'replication slot "archive" already exists')
    run.receivewal("--create-slot", "--if-not-exists", *arguments)
    run.receivewal("--drop-slot", *arguments)
    assert source.slots() == []
    failed(run.start_receivewal("--drop-slot", *arguments), 'replication slot "archive" does not exist')


def test_new_slot_holds_wal_from_the_start(source, run, tmp):
    """Before there is any WAL to receive, and long before the next status message; until then the server may drop WAL."""
    source.configure(wal_sender_timeout=0)  # it would ask for a position
    source.reload()
    run.receivewal("--create-slot", "-S", "archive", *source.address())
    receiver = run.start_receivewal("-D", tmp, "-S", "archive", "-s", "3600", *source.address())
    wait_until(lambda: source.sql("SELECT restart_lsn IS NOT NULL FROM pg_replication_slots") == "t", "the slot holds WAL")
    assert source.sql("SELECT write_lsn = flush_lsn FROM pg_stat_replication") == "t"
    stop(receiver)


def test_slot_follows_what_is_flushed(source, run, tmp):
    source.sql("SELECT pg_create_physical_replication_slot('archive', true)")
    before = source.sql("SELECT restart_lsn FROM pg_replication_slots")
    receive(run, source, tmp, 3, "-S", "archive")
    after = source.sql("SELECT restart_lsn FROM pg_replication_slots")
    assert wal.lsn_number(after) > wal.lsn_number(before)
    wal.assert_received(tmp, source, after)


def test_no_flush_position_without_slot(source, run, tmp):
    """Or somebody would take it for a synchronous standby by accident."""
    receiver = run.start_receivewal("-D", tmp, "-s", "1", *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    segments(source, 2)
    written = "SELECT write_lsn IS NOT NULL, flush_lsn IS NULL FROM pg_stat_replication"
    wait_until(lambda: source.rows(written) == [["t", "t"]], "the write position is reported, a flush position is not")
    stop(receiver)


def test_missing_slot(source, run, tmp):
    gave_up(run.start_receivewal("-n", "-D", tmp, "-S", "nowhere", *source.address()),
                   'replication slot "nowhere" does not exist')
    assert os.listdir(tmp) == []


# ---- the directory


def test_directory_is_missing(source, run, tmp):
    failed(run.start_receivewal("-D", f"{tmp}/nowhere", *source.address()), f'could not open directory "{tmp}/nowhere"')


def test_directory_cannot_be_written_to(source, run, tmp):
    os.chmod(tmp, 0o500)
    try:
        receiver = run.start_receivewal("-n", "-D", tmp, *source.address())
        segments(source, 1)
        gave_up(receiver, tmp, "Permission denied")
    finally:
        os.chmod(tmp, 0o700)
    assert os.listdir(tmp) == []


def test_modes(pg, clusters, run, tmp):
    if pg.major < 11:
        pytest.skip("group access came with 11")
    server = clusters.create(pg, initdb=wal_segsize(pg, 1) + ["--allow-group-access"])
    server.keep_wal()
    server.start()
    receive(run, server, tmp, 2)
    assert {stat.S_IMODE(os.stat(os.path.join(tmp, n)).st_mode) for n in os.listdir(tmp)} == {0o640}


def test_disk_is_full_for_a_while(source, run, small_disk):
    """What is on it is right, and when there is space again everything follows."""
    disk = small_disk(4)
    arguments = ["-D", disk, "-S", "archive", *source.address()]
    source.sql("SELECT pg_create_physical_replication_slot('archive', true)")
    receiver = run.start_receivewal(*arguments)
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    segments(source, 8)
    receiver.wait_for_text("No space left")
    assert set(wal.complete(disk)) < set(os.listdir(source.wal_path()))
    acknowledged = source.sql("SELECT restart_lsn FROM pg_replication_slots")
    wal.assert_received(disk, source, acknowledged)
    kept = sorted(wal.complete(disk))[-1]
    for name in wal.complete(disk)[:-1]:
        os.unlink(os.path.join(disk, name))
    if not receiver.running():
        receiver = run.start_receivewal(*arguments)
    wait_until(lambda: max(wal.complete(disk)) > kept, "it goes on")
    stop_at_once(receiver)
    assert re.search(r"could not allocate 1048576 bytes for .* \(\d+ bytes are free\); waiting for space", receiver.err)
    assert "there is space again" in receiver.err
    wal.assert_received(disk, source)


def test_killed_while_the_disk_is_full(source, run, small_disk):
    """Nothing half-written is left that a later start would stumble over, with and without space."""
    disk = small_disk(4)
    arguments = ["-D", disk, "-S", "archive", *source.address()]
    source.sql("SELECT pg_create_physical_replication_slot('archive', true)")
    for _ in range(2):
        receiver = run.start_receivewal(*arguments)
        wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
        segments(source, 8)
        receiver.wait_for_text("No space left")
        receiver.end()
        wait_until(lambda: source.sql("SELECT active FROM pg_replication_slots") == "f", "the slot is free")
        wal.assert_received(disk, source, source.sql("SELECT restart_lsn FROM pg_replication_slots"))
    kept = max(wal.complete(disk))
    for name in wal.complete(disk)[:-1]:
        os.unlink(os.path.join(disk, name))
    receiver = run.start_receivewal(*arguments)
    wait_until(lambda: max(wal.complete(disk)) > kept, "it goes on")
    stop_at_once(receiver)
    wal.assert_received(disk, source)


def test_one_at_a_time(source, run, tmp):
    """A second one in the same directory is turned away before it touches anything."""
    first = run.start_receivewal("-D", tmp, "--synchronous", *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    segments(source, 1)
    ended_with(run.start_receivewal("-D", tmp, *source.address()), 1, "another pgr-receivewal is at work in directory")
    segments(source, 3)
    wait_until(lambda: len(wal.complete(tmp)) >= 4, "the first one goes on")
    stop(first)
    wal.assert_received(tmp, source)
    receive(run, source, tmp, 1)


# ---- connections


def test_no_loop(source, run, tmp):
    receiver = run.start_receivewal("-n", "-D", tmp, *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    source.stop()
    gave_up(receiver, "disconnected")


def test_loops_while_the_server_is_away(source, run, tmp):
    receiver = run.start_receivewal("-D", tmp, *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    source.stop()
    receiver.wait_for_text("disconnected; waiting")
    stop_at_once(receiver)


def test_waits_longer_and_longer(source, run, tmp):
    """1, 2, 4 seconds, a quarter more or less."""
    receiver = run.start_receivewal("-D", tmp, *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    source.stop()
    wait_until(lambda: receiver.err.count("disconnected; waiting") == 3, "it has tried three times")
    stop_at_once(receiver)
    waits = [int(n) for n in re.findall(r"waiting (\d+) seconds to try again", receiver.err)]
    assert waits[0] == 1 and 2 <= waits[1] <= 3 and 3 <= waits[2] <= 5, waits


def test_administrator_ends_it(source, run, tmp):
    receiver = run.start_receivewal("-n", "-D", tmp, *source.address())
    pid = source.sender_pid("streaming")
    source.sql(f"SELECT pg_terminate_backend({pid})")
    gave_up(receiver, "terminating connection due to administrator command")


def test_nobody_listens(run, tmp):
    port = free_port()
    gave_up(run.start_receivewal("-n", "-D", tmp, "-h", "127.0.0.1", "-p", port, "-U", "postgres"),
                   str(port), "Connection refused")


def test_wrong_password(primary, run, tmp):
    gave_up(run.start_receivewal("-n", "-D", tmp, *primary.address("keeper"), env={"PGPASSWORD": "wrong"}),
                   'password authentication failed for user "keeper"')


def test_tls_and_scram(primary, run, tmp, certificates):
    settings = primary.conninfo(user="keeper", password="it's a \\secret", sslmode="verify-full", host="localhost",
                                sslrootcert=certificates.ca)
    primary.sql("COMMENT ON DATABASE postgres IS 'one more record'")
    end = primary.lsn()
    run.receivewal("-D", tmp, "--endpos", end, "-d", settings)
    wal.assert_received(tmp, primary, end)


def test_wal_was_removed(pg, clusters, run, tmp):
    least = "'2MB'" if pg.major >= 11 else "'32MB'"
    server = clusters.create(pg, initdb=wal_segsize(pg, 1), min_wal_size=least).start()
    receive(run, server, tmp, 1)
    last = max(os.listdir(tmp))[:24]
    for _ in range(4):
        segments(server, 3)
        server.sql("CHECKPOINT")
    wait_until(lambda: not os.path.exists(server.wal_path(last)), "the server has removed it")
    ended_with(run.start_receivewal("-n", "-D", tmp, *server.address()), 3, "has already been removed")


# ---- what PostgreSQL's own program does not have


def test_starts_at_a_position(source, run, tmp):
    """Also on a timeline that was left since; where there is WAL already the directory says where to go on."""
    early = source.sql("SELECT pg_current_wal_lsn()")
    segments(source, 3)
    source.new_timeline()
    segments(source, 2)
    receiver = run.start_receivewal("-D", tmp, "-v", "--startpos", early, *source.address())
    receiver.wait_for_text("switched to timeline 2")
    first = wal.complete(tmp)[0]
    assert first == source.sql(f"SELECT pg_walfile_name('{early}')").replace("00000002", "00000001", 1)
    stop(receiver)
    wal.assert_received(tmp, source)
    again = run.start_receivewal("-D", tmp, "-v", "--startpos", early, *source.address())
    again.wait_for_text("starting log streaming at")
    stop(again)
    assert f"starting log streaming at {early}" not in again.err and "(timeline 2)" in again.err


def test_bad_start_position(source, run, tmp):
    failed(run.start_receivewal("-D", tmp, "--startpos", "0/x", *source.address()), "start position", "0/x")


def test_slot_is_made_and_used(source, run, tmp):
    for _ in range(2):  # the second time it is there already
        receiver = run.start_receivewal("-D", tmp, "-S", "mine", "--ensure-slot", *source.address())
        wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
        wait_until(lambda: source.sql("SELECT active AND restart_lsn IS NOT NULL FROM pg_replication_slots") == "t",
                   "the slot is used")
        stop(receiver)
        wait_until(lambda: not source.senders(), "the server has noticed")


@pytest.mark.parametrize("options, words", [
    ([], "commits may wait for ever"),
    (["-S", "mine", "--ensure-slot"], "at the end of each segment"),
    (["--synchronous"], None),
])
def test_says_that_commits_would_wait(source, run, tmp, options, words):
    source.configure(synchronous_standby_names="'ANY 1 (other, \"pgr-receivewal\")'", synchronous_commit="local")
    source.reload()
    wait_until(lambda: "ANY" in source.sql("SHOW synchronous_standby_names"), "the setting is in force")
    receiver = run.start_receivewal("-D", tmp, *options, *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    stop(receiver)
    if words is None:
        assert "warning" not in receiver.err
    else:
        assert "synchronous_standby_names" in receiver.err and words in receiver.err


def test_says_that_nothing_is_applied(source, run, tmp):
    source.configure(synchronous_standby_names="'*'", synchronous_commit="remote_apply")
    source.reload()
    wait_until(lambda: source.sql("SHOW synchronous_commit") == "remote_apply", "the setting is in force")
    receiver = run.start_receivewal("-D", tmp, "--synchronous", *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    stop(receiver)
    assert "remote_apply" in receiver.err


# ---- exit codes of its own


def test_slot_was_invalidated(pg, clusters, run, tmp):
    if pg.major < 13:
        pytest.skip("max_slot_wal_keep_size came with 13")
    server = clusters.create(pg, initdb=wal_segsize(pg, 1), max_slot_wal_keep_size="'1MB'", min_wal_size="'2MB'",
                             max_wal_size="'2MB'").start()
    receive(run, server, tmp, 1, "-S", "mine", "--ensure-slot")
    segments(server, 6)
    server.sql("CHECKPOINT")
    wait_until(lambda: server.sql("SELECT wal_status FROM pg_replication_slots") == "lost", "the slot is lost")
    before = os.listdir(tmp)
    ended_with(run.start_receivewal("-D", tmp, "-S", "mine", "--give-up=2", *server.address()), 3, "waiting",
               "a new base backup")
    assert os.listdir(tmp) == before


def test_logical_slot(pg, source, run, tmp):
    source.configure(wal_level="logical")
    source.restart()
    source.sql("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')")
    code = 1 if pg.major >= 15 else 3  # it is asked about the slot, or has to be asked for the stream
    ended_with(run.start_receivewal("-D", tmp, "-S", "theirs", "--give-up=1", *source.address()), code, "logical")
    assert not os.listdir(tmp)


def test_wal_is_removed_while_it_is_away(pg, clusters, run, tmp):
    """It tries for as long as it was told, since the WAL may come back, and then says why it ends."""
    least = "'2MB'" if pg.major >= 11 else "'32MB'"
    server = clusters.create(pg, initdb=wal_segsize(pg, 1), min_wal_size=least, max_wal_size=least).start()
    receiver = run.start_receivewal("-D", tmp, "--give-up=2", *server.address())
    wait_until(server.senders, "it streams")
    segments(server, 2)
    wait_until(lambda: wal.complete(tmp), "a segment is there")
    receiver.signal(signal.SIGSTOP)
    server.sql(f"SELECT pg_terminate_backend({server.sender_pid('streaming')})")
    wait_until(lambda: not server.senders(), "the connection is gone")
    for _ in range(6):
        segments(server, 3)
        server.sql("CHECKPOINT")
    receiver.signal(signal.SIGCONT)
    ended_with(receiver, 3, "disconnected; waiting", "has already been removed", "a new base backup")


def test_another_cluster_answers_at_the_same_address(pg, source, clusters, run, tmp):
    """Whatever it sends, nothing of it gets into the directory."""
    receiver = run.start_receivewal("-D", tmp, *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    segments(source, 2)
    wait_until(lambda: wal.complete(tmp), "a segment is there")
    other = clusters.create(pg, initdb=wal_segsize(pg, 1) + ["--no-sync"])
    other.port = source.port
    source.stop()
    other.start()
    segments(other, 3)
    ended_with(receiver, 4, "the server's system identifier is", "directory of its own")
    other.stop()
    source.start()
    wal.assert_received(tmp, source)


@pytest.fixture
def behind(pg, clusters, source, run, tmp):
    """A directory of the source's WAL, and a standby of the source that was promoted when it had less."""
    copy, archive = os.path.join(tmp, "copy"), os.path.join(tmp, "archive")
    source.place.give(os.mkdir(archive) or archive)
    run.basebackup("-D", copy, "-c", "fast", "-R", *source.address())
    standby = start_standby(clusters, pg, copy, source)
    standby.stop()
    wait_until(lambda: not source.senders(), "the server has noticed")
    receive(run, source, archive, 3)
    return standby, archive


@pytest.mark.parametrize("promoted", [False, True], ids=["not promoted", "promoted"])
def test_server_has_less_than_the_directory(source, behind, run, promoted):
    standby, archive = behind
    source.stop()
    standby.start()
    if promoted:
        standby.promote()
    before = sorted(os.listdir(archive))
    words = ["but the server"] + (["left that timeline at"] if promoted else ["ends at"])
    ended_with(run.start_receivewal("-D", archive, "--give-up=2", *standby.address()), 5, *words)
    ended_with(run.start_receivewal("-D", archive, "-n", *standby.address()), 5, *words)
    assert sorted(os.listdir(archive)) == before


def test_following_that_server_all_the_same(source, behind, run, tmp):
    """As the man page says for exit code 5: what the server has left behind is moved out of the directory."""
    standby, archive = behind
    source.stop()
    standby.start()
    standby.promote()
    left_at = pathlib.Path(standby.wal_path("00000002.history")).read_text(encoding="ascii").split("\t")[1]
    first = wal.segment_name(1, wal.lsn_number(left_at), standby.segment_bytes())
    aside = os.path.join(tmp, "aside")
    os.mkdir(aside)
    for name in wal.complete(archive) + wal.partial(archive):
        if name[:24] >= first:
            os.rename(os.path.join(archive, name), os.path.join(aside, name))
    assert os.listdir(aside)
    receive(run, standby, archive, 2, "--startpos", left_at)
    wal.assert_received(archive, standby)
    assert wal.complete(archive)[-1].startswith("00000002")


def wait_flushed(server):
    query = f"SELECT flush_lsn >= '{server.lsn()}' FROM pg_stat_replication"
    wait_until(lambda: server.sql(query) == "t", "the receiver has all of it")


def contents(directory):
    return {entry.name: pathlib.Path(entry.path).read_bytes() for entry in os.scandir(directory)}


def test_server_was_set_back(pg, source, clusters, run, tmp):
    """Nor is the newest segment replaced when the server has another one in its place."""
    source.switch_wal()
    source.stop()
    earlier = clusters.copy_of(pg, source.data)
    source.start()
    receiver = run.start_receivewal("-D", tmp, "--synchronous", *source.address())
    wait_until(lambda: "streaming" in [state for _, state, _ in source.senders()], "it streams")
    source.sql("CREATE TABLE acknowledged AS SELECT md5(g::text) FROM generate_series(1, 100) g")
    wait_flushed(source)
    stop(receiver)
    source.stop()
    before = contents(tmp)
    earlier.start()
    earlier.sql("CREATE TABLE otherwise AS SELECT md5(g::text) FROM generate_series(1, 300) g")
    ended_with(run.start_receivewal("-D", tmp, "-n", *earlier.address()), 5,
               ".partial\" holds other WAL at", "set back")
    assert contents(tmp) == before


def test_two_servers_on_the_same_timeline(pg, source, clusters, run, tmp):
    """WAL of one does not go behind WAL of the other: their histories tell them apart."""
    source.stop()
    one, other = (clusters.copy_of(pg, source.data) for _ in range(2))
    one.new_timeline()
    other.start()
    segments(other, 2)
    other.new_timeline()
    receive(run, one, tmp, 2)
    segments(other, 4)
    before = sorted(os.listdir(tmp))
    ended_with(run.start_receivewal("-D", tmp, "-n", *other.address()), 5,
               "00000002.history\" differs from the server's", "promoted to the same timeline")
    assert sorted(os.listdir(tmp)) == before
    receive(run, one, tmp, 1)
