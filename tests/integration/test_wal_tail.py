"""-X stream: what lies behind a switch of the server's WAL, at the end of a backup and in the middle of one."""

import os
import re
import tarfile

import pytest

from pgrtest import content
from pgrtest.checks import nothing_of_ours, start_standby, verify_backup
from pgrtest.place import wait_until
from pgrtest.relay import Balancer, Relay, socket_of

pytestmark = pytest.mark.every_major

LITTLE = 2 << 20  # a few messages of the server, and what is read at a time
LATE_MS = 300
ATTEMPTS = 10     # a machine that stands still for a second takes more


def end_of_backup(done):
    high, low = re.search(r"write-ahead log end point: (\w+)/(\w+)", done.err).groups()
    return (int(high, 16) << 32) + int(low, 16)


def wal_taken(primary, done, slot):
    """Bytes behind the backup's end that were received before the client had enough: the slot knows."""
    return int(primary.sql(f"SELECT pg_wal_lsn_diff(restart_lsn, '0/0') FROM pg_replication_slots "
                           f"WHERE slot_name = '{slot}'")) - end_of_backup(done)


def segments(directory):
    return sorted(name for name in os.listdir(directory) if re.fullmatch("[0-9A-F]{24}", name))


def read(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


@pytest.mark.parametrize("way", ["stream", "lanes", "tar"])
def test_little_is_taken_behind_the_end(pg, clusters, run, tmp, way):
    """The end comes late, and the last segment, nearly empty, at once: a count of bytes, and once is enough."""
    primary = clusters.create(pg).start()
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
    options = {"stream": ["-j1"], "lanes": ["-j3"], "tar": ["-Ft"]}[way]
    taken = []
    with Relay(primary.place, socket_of(primary), delay=LATE_MS) as late:
        while not taken or (taken[-1] > LITTLE and len(taken) < ATTEMPTS):
            target, slot = os.path.join(tmp, f"t{len(taken)}"), f"s{len(taken)}"
            with Balancer(lambda n: primary if n == 2 or way == "lanes" else late) as both:
                done = run.basebackup("-D", target, *options, "-v", "-R", "-c", "fast", "-C", "-S", slot,
                                      *both.address())
            taken.append(wal_taken(primary, done, slot))
    assert 0 <= taken[-1] <= LITTLE, f"bytes behind the end of the backup: {taken}"
    assert "reset by peer" not in primary.log_text(), primary.log_text()
    if way == "tar":
        with tarfile.open(os.path.join(target, "pg_wal.tar")) as archive:
            sizes = {m.size for m in archive.getmembers() if re.fullmatch("[0-9A-F]{24}", m.name)}
        assert sizes == {primary.segment_bytes()}
        return
    last = segments(os.path.join(target, "pg_wal"))[-1]
    ours, theirs = read(target, "pg_wal", last), read(primary.wal_path(last))
    used = end_of_backup(done) % primary.segment_bytes()
    assert len(ours) == len(theirs) and ours[:used] == theirs[:used]
    assert ours == theirs or pg.major == 10  # which writes headers of empty pages
    assert ours.rstrip(b"\0") == theirs[:len(ours.rstrip(b"\0"))]
    nothing_of_ours(target)
    verify_backup(pg, primary.place, target)
    with open(os.path.join(target, "postgresql.auto.conf" if pg.major >= 12 else "recovery.conf"), "a",
              encoding="utf-8") as f:
        f.write("primary_conninfo = '" + primary.conninfo().replace("'", "''") + "'\n")
    standby = start_standby(clusters, pg, target, primary)
    primary.sql("INSERT INTO t VALUES (-1)")
    standby.wait_replayed(primary.lsn())
    assert standby.sql("SELECT count(*) FROM t") == "1001"


def test_switches_in_the_middle_of_a_backup(pg, clusters, run, tmp):
    """What follows them is wanted as ever; nothing is lost, and nothing ends early."""
    primary = clusters.create(pg)
    primary.keep_wal()
    primary.start()
    content.populate(primary)
    target = os.path.join(tmp, "standby")
    running = run.start_basebackup("-D", target, "-j1", "-v", "-R", "-c", "fast", "--max-rate", "8M",
                                   *primary.address())
    primary.sender_pid("backup")
    wait_until(lambda: any(state == "streaming" for _, state, _ in primary.senders()), "WAL is streamed")
    first = None
    for number in range(3):
        primary.sql(f"CREATE TABLE switched{number} AS SELECT generate_series(1, 1000) AS i")
        first = first or primary.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
        primary.switch_wal()
    assert running.wait() == 0, str(running)
    assert "lost the connection" not in running.err
    names = segments(os.path.join(target, "pg_wal"))
    assert names.index(first) <= len(names) - 4, f"{names} do not go on from {first} over three switches"
    for name in names[:-1]:
        assert read(target, "pg_wal", name) == read(primary.wal_path(name)), name
    done = os.listdir(os.path.join(target, "pg_wal", "archive_status"))
    assert {f"{name}.done" for name in names[:-1]} <= set(done)
    verify_backup(pg, primary.place, target)
    standby = start_standby(clusters, pg, target, primary)
    standby.wait_replayed(primary.lsn())
    assert content.fingerprint(standby) == content.fingerprint(primary)
