"""pgr-receivewal --verify: WAL of real servers is found good, and every kind of damage is found and named."""

import gzip
import os
import random
import re
import shutil
import subprocess

import pytest

from pgrtest import installs, wal
from pgrtest.place import wait_until
from pgrtest.programs import failed
from pgrtest.server import wal_segsize

pytestmark = pytest.mark.every_major

SUMMARY = re.compile(r"(\d+) segments? and (\d+) partial on (\d+) timelines?, (\S+) to (\S+), (\d+) bytes read: "
                     r"(?:(\d+) problems?|no problems)")


class Verdict:
    def __init__(self, process, code):
        assert process.wait() == code, str(process)
        assert not process.err, str(process)
        *self.lines, last = process.out.strip().split("\n")
        found = SUMMARY.fullmatch(last)
        assert found, str(process)
        self.segments, self.partials, self.timelines = (int(found[i]) for i in (1, 2, 3))
        self.begin, self.end = found[4], found[5]
        self.problems = int(found[7] or 0)
        assert (self.problems > 0) == (code == 2), str(process)
        # what is left when the lines that are no problems are taken away
        self.told = [n for n in self.lines if not n.startswith(("note: ", "timeline ", "WAL of "))]

    def names(self, name):
        """Whether a line begins with this file, or is about a record that goes through it."""
        for line in self.told:
            through = re.match(r"([0-9A-F]{24})\S*: .* goes on in ([0-9A-F]{24})", line)
            if line.startswith(name) or through and through[1] <= name[:24] <= through[2]:
                return True
        return False


def verify(run, directory, *options, code=0):
    return Verdict(run.start_receivewal("--verify", "-D", directory, *options), code)


def load(server):
    """Small records and large ones, full-page images, a record longer than a small segment, switches."""
    server.sql("CREATE TABLE t (i int PRIMARY KEY, x text)",
               "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 20000) g", "CHECKPOINT",
               "UPDATE t SET x = x || 'a' WHERE i % 5 = 0")
    server.switch_wal()
    server.sql("CHECKPOINT", "UPDATE t SET x = 'b' WHERE i % 50 = 0",
               "SELECT pg_logical_emit_message(true, 'x', repeat('abcdefgh', 300000))", "DELETE FROM t WHERE i % 7 = 0")
    server.switch_wal()
    server.sql("INSERT INTO t SELECT -g, 'c' FROM generate_series(1, 3000) g")


@pytest.fixture
def make(pg, clusters, tmp):
    """Makes an archive of a loaded server's WAL, of segments of so many megabytes; the server is stopped."""

    def made(megabytes=1):
        server = clusters.create(pg, initdb=wal_segsize(pg, megabytes))
        server.keep_wal()
        server.start()
        load(server)
        directory = os.path.join(tmp, f"archive{megabytes}")
        end = server.lsn()
        last = wal.segment_name(1, wal.lsn_number(end), server.segment_bytes())
        server.stop("immediate")
        os.mkdir(directory)
        for name in wal.complete(server.wal_path()):
            if name <= last:
                copy = name if name < last else name + ".partial"
                shutil.copy(server.wal_path(name), os.path.join(directory, copy))
        for name in os.listdir(directory):
            server.place.give(os.path.join(directory, name))
        server.place.give(directory)
        return directory, end

    return made


def end_by_waldump(major, directory, begin):
    """Where pg_waldump finds that the WAL ends; None: there is none for this version."""
    try:
        program, own = installs.reader_of("pg_waldump", major)
    except installs.Missing:
        return None
    if own != major:
        return None
    partial = wal.partial(directory)[0]
    whole = partial[:24]
    os.link(os.path.join(directory, partial), os.path.join(directory, whole))
    done = subprocess.run([program, "-p", directory, "-s", begin], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=False)
    os.unlink(os.path.join(directory, whole))
    return wal.lsn_number(re.findall(r"[0-9A-F]+/[0-9A-F]+", done.stderr)[-1])


@pytest.mark.parametrize("megabytes", [1, 16, 64])
def test_good(pg, run, make, megabytes):
    if pg.major < 11 and megabytes != 16:
        pytest.skip("initdb --wal-segsize came with 11")
    directory, end = make(megabytes)
    found = verify(run, directory)
    assert not found.told
    assert found.partials == 1 and found.timelines == 1 and found.segments == len(wal.complete(directory))
    assert found.end == end
    by_waldump = end_by_waldump(pg.major, directory, found.begin)
    assert by_waldump in (None, wal.lsn_number(end))


def flip(path, position, mask):
    with open(path, "r+b") as f:
        f.seek(position)
        byte = f.read(1)[0]
        f.seek(position)
        f.write(bytes([byte ^ mask]))


def test_flipped_bits(run, make):
    """Anywhere: in records, headers, padding, in the zeros behind a switch."""
    directory, _ = make()
    segments = wal.complete(directory)
    dice = random.Random(directory)
    for i in range(60):
        name = dice.choice(segments)
        path = os.path.join(directory, name)
        position = dice.randrange(os.path.getsize(path))
        if i % 4 == 0:
            position = position // 8192 * 8192 + dice.randrange(24)
        mask = 1 << dice.randrange(8)
        if position % 8192 == 2:
            mask = 0x10  # one of the flags there may be on any page
        if name == segments[0] and position < 8192:
            continue  # the rest of a record that is not there, perhaps
        flip(path, position, mask)
        found = verify(run, directory, code=2)
        assert found.names(name), f"{name} at {position}: {found.told}"
        assert len(found.told) <= 5, found.told
        flip(path, position, mask)
    assert not verify(run, directory).told


def test_kinds_of_damage(run, make, place):
    directory, _ = make()
    segments = wal.complete(directory)
    victim = segments[len(segments) // 2]
    path = os.path.join(directory, victim)
    with open(path, "rb") as f:
        content = f.read()

    def put(name, data):
        with open(os.path.join(directory, name), "wb") as f:
            f.write(data)
        place.give(os.path.join(directory, name))

    def expect(name, words):
        found = verify(run, directory, code=2)
        assert found.names(name), found.told
        assert any(words in line for line in found.told), found.told

    os.unlink(path)
    expect(victim, "segment is missing")
    put(victim, content[:-8192])
    expect(victim, f"has {len(content) - 8192} bytes instead of {len(content)}")
    put(victim, content + b"\0")
    expect(victim, "is longer than a segment")
    put(victim, content[:8192 * 5] + bytes(8192) + content[8192 * 6:])
    verify(run, directory, code=2)
    with open(os.path.join(directory, segments[0]), "rb") as f:
        put(victim, f.read())
    expect(victim, "page says that it is")
    foreign = bytearray(content)
    foreign[24:32] = b"\1\2\3\4\5\6\7\0"
    put(victim, foreign)
    expect(victim, "page is of the system")
    os.unlink(path)
    put(victim + ".gz", gzip.compress(content))
    put("00000002.history.tmp", b"")
    found = verify(run, directory)
    assert not found.told and "note: 00000002.history.tmp: leftover of an interrupted program" in found.lines
    put(victim + ".gz", gzip.compress(content)[:-5])
    expect(victim + ".gz", "the compressed stream is cut off")
    put(victim + ".gz", gzip.compress(content) + b"garbage")
    expect(victim + ".gz", "could not decompress")


def test_cut_partial(run, make):
    """A receiver that was killed: up to the end of the last whole record it is good, and that is said."""
    directory, end = make()
    name = wal.partial(directory)[0]
    path = os.path.join(directory, name)
    size = os.path.getsize(path)
    used = wal.lsn_number(end) % size
    dice = random.Random(directory)
    for cut in sorted((dice.randrange(used) for _ in range(20)), reverse=True):
        with open(path, "r+b") as f:
            f.truncate(cut)
            f.truncate(size)
        found = verify(run, directory)
        assert not found.told
        assert wal.lsn_number(found.end) <= wal.lsn_number(end) - used + cut + 7


def test_timelines(pg, clusters, run, tmp):
    """What pgr-receivewal keeps over two promotions; then with a history file less, and with a wrong one."""
    server = clusters.create(pg, initdb=wal_segsize(pg, 1))
    server.keep_wal()
    server.start()
    receiver = run.start_receivewal("-D", tmp, *server.address())
    wait_until(server.senders, "it streams")
    load(server)
    for tli in (2, 3):
        server.new_timeline()
        wait_until(server.senders, "it streams again")
        server.sql("INSERT INTO t SELECT -g, 'd' FROM generate_series(100000, 103000) g ON CONFLICT DO NOTHING")
        server.switch_wal()
        wait_until(lambda t=tli: any(n.startswith(f"{t:08X}") for n in wal.complete(tmp)), f"timeline {tli} arrived")
    receiver.signal(2)
    assert receiver.wait() == 0, str(receiver)
    found = verify(run, tmp, "-v")
    assert not found.told and found.timelines == 3
    assert [n.split()[1] for n in found.lines if n.startswith("timeline ")] == ["1:", "2:", "3:"]
    history = os.path.join(tmp, "00000002.history")
    with open(history, encoding="utf-8") as f:
        text = f.read()
    os.unlink(history)
    assert verify(run, tmp, code=2).told == ["00000002.history: history file is missing"]
    with open(history, "w", encoding="utf-8") as f:
        f.write(text.replace("/", "/1", 1))
    server.place.give(history)
    assert verify(run, tmp, code=2).names("00000003.history")


def test_crash_in_a_record(pg, clusters, run, tmp):
    """WAL that a server wrote after it was killed in the middle of writing goes on where the valid WAL ends."""
    server = clusters.create(pg, initdb=wal_segsize(pg, 1))
    server.keep_wal()
    server.start()
    server.sql("CREATE TABLE t (i int PRIMARY KEY, x text)")
    receiver = run.start_receivewal("-D", tmp, *server.address())
    wait_until(server.senders, "it streams")
    for i in range(3):
        writer = run.start_psql(server, "INSERT INTO t SELECT g, repeat(md5(g::text), 50) "
                                        f"FROM generate_series({i * 1000000}, {i * 1000000 + 500000}) g")
        size = len(wal.complete(tmp))
        wait_until(lambda n=size: len(wal.complete(tmp)) > n + 3, "more segments")
        server.kill()
        writer.wait()
        server.start()
        wait_until(server.senders, "it streams again")
    server.switch_wal()
    server.sql("SELECT 1")
    receiver.signal(2)
    assert receiver.wait() == 0, str(receiver)
    assert not verify(run, tmp).told


def test_usage(run, tmp):
    failed(run.start_receivewal("--verify", "-D", tmp), "there is no WAL segment in")
    failed(run.start_receivewal("--verify", "-D", os.path.join(tmp, "nowhere")), "nowhere")
    failed(run.start_receivewal("--verify", "-D", tmp, "--create-slot", "-S", "s"),
           "cannot use --verify together with --create-slot")
    failed(run.start_receivewal("--verify"), "no target directory specified")
