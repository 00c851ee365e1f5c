"""pgr-receivewal promises nothing that a power cut could take back.

PGR_SEED  what was drawn at random, to be repeated (the threads of a run take no notice of it)
PGR_CUTS  cuts of each long test (default 1200)
"""

import ctypes
import errno
import gzip
import os
import random
import re
import signal

import pytest

from pgrtest import powercut
from pgrtest.archive import SEGMENT, Judge, decode
from pgrtest.commits import TABLE, Clients, with_positions
from pgrtest.cuts import Examiner, Round, last_picture, restore
from pgrtest.place import wait_until
from pgrtest.programs import died_of, gave_up, succeeded
from pgrtest.server import wal_segsize
from pgrtest.wal import lsn_number

CUTS = int(os.environ.get("PGR_CUTS", "1200"))


@pytest.fixture
def rng():
    """Tells the seed in the report of a failed test."""
    seed = int(os.environ.get("PGR_SEED") or random.randrange(1 << 32))
    print(f"PGR_SEED={seed}")
    return random.Random(seed)


# ---- the instrument itself

PREAMBLE = """
import ctypes, os, sys, threading
os.chdir(sys.argv[1])
here = os.open(".", os.O_RDONLY)
def make(name, data=b"", sync=True, flags=0):
    fd = os.open(name, os.O_CREAT | os.O_RDWR | flags, 0o600)
    assert os.write(fd, data) == len(data)
    if sync:
        os.fsync(fd)
    return fd
"""

A, B = b"a" * 512, b"b" * 512

# What a program does with its directory: all that a power cut may leave then.  A file may have its new length, and zeros.
PROGRAMS = {
    "nothing is durable": (
        "make('f', b'x', sync=False)",
        [{}, {"f": b""}, {"f": b"\0"}, {"f": b"x"}]),
    "a file without its name": (
        "make('f', b'x')",
        [{}, {"f": b"x"}]),
    "a name without its data": (
        "make('f', b'x', sync=False); os.fsync(here)",
        [{"f": b""}, {"f": b"\0"}, {"f": b"x"}]),
    "all is durable": (
        "make('f', b'x'); os.fsync(here)",
        [{"f": b"x"}]),
    "a sync covers only what was written before": (
        "fd = make('f', b'x'); os.fsync(here); os.fdatasync(fd); os.pwrite(fd, b'y', 1)",
        [{"f": b"x"}, {"f": b"x\0"}, {"f": b"xy"}]),
    "a torn write": (
        "fd = make('f', b'a' * 1024); os.fsync(here); os.pwrite(fd, b'b' * 1024, 0)",
        [{"f": A + A}, {"f": A + B}, {"f": B + A}, {"f": B + B}]),
    "a write through a second descriptor": (
        "fd = make('f', b'x'); os.fsync(here); os.pwrite(os.dup(fd), b'y', 0); os.fdatasync(fd)",
        [{"f": b"y"}]),
    "a rename": (
        "make('f', b'x'); os.fsync(here); os.rename('f', 'g')",
        [{"f": b"x"}, {"g": b"x"}]),
    "a durable rename": (
        "make('f', b'x'); os.rename('f', 'g', src_dir_fd=here, dst_dir_fd=here); os.fsync(here)",
        [{"g": b"x"}]),
    "a rename over a file": (
        "make('f', b'x'); make('g', b'y'); os.fsync(here); os.rename('f', 'g')",
        [{"f": b"x", "g": b"y"}, {"g": b"x"}]),
    "a removed file": (
        "make('f', b'x'); os.fsync(here); os.unlink('f')",
        [{"f": b"x"}, {}]),
    "two names": (
        "make('f', b'x'); make('g', b'y')",
        [{}, {"f": b"x"}, {"g": b"y"}, {"f": b"x", "g": b"y"}]),
    "an allocated file": (
        "fd = make('f'); os.fsync(here); os.posix_fallocate(fd, 0, 512); os.pwrite(fd, b'b' * 512, 0); os.fdatasync(fd)",
        [{"f": B}]),
    "an allocation": (
        "fd = make('f'); os.fsync(here); os.posix_fallocate(fd, 0, 512)",
        [{"f": b""}, {"f": bytes(512)}]),
    "a file that was cut": (
        "fd = make('f', b'xyz'); os.fsync(here); os.ftruncate(fd, 1)",
        [{"f": b"xyz"}, {"f": b"x"}]),
    "a file that was opened to be emptied": (
        "make('f', b'xyz'); os.fsync(here); os.open('f', os.O_RDWR | os.O_TRUNC)",
        [{"f": b"xyz"}, {"f": b""}]),
    "O_DSYNC": (
        "make('f', b'x', sync=False, flags=os.O_DSYNC); os.fsync(here)",
        [{"f": b"x"}]),
    "a directory's file, and its own name": (
        "os.mkdir('d'); make('d/f', b'x'); os.fsync(os.open('d', os.O_RDONLY))",
        [{}, {"d": None, "d/f": b"x"}]),
    "a symbolic link": (
        "os.symlink('/x', 'l'); os.fsync(here); os.symlink('y', 'm')",
        [{"l": powercut.Link("/x")}, {"l": powercut.Link("/x"), "m": powercut.Link("y")}]),
    "all at once": (
        "os.mkdir('d'); make('d/f', b'x', sync=False); assert ctypes.CDLL(None).syncfs(here) == 0; make('g')",
        [{"d": None, "d/f": b"x"}, {"d": None, "d/f": b"x", "g": b""}]),
    "a write while a sync runs": (
        "fd = make('f', b'x'); os.fsync(here); log = os.path.getsize(sys.argv[2])\n"
        "t = threading.Thread(target=os.fdatasync, args=(fd,)); t.start()\n"
        "while os.path.getsize(sys.argv[2]) == log: pass\n"
        "os.pwrite(fd, b'y', 0); assert t.is_alive(); t.join()",
        [{"f": b"x"}, {"f": b"y"}]),
}


@pytest.fixture
def journalled(place, tmp):
    """Runs a Python program with the library in an empty directory; its Round and the directory."""
    def run(program, **more):
        directory, log = os.path.join(tmp, "dir"), os.path.join(tmp, "log")
        place.give(os.mkdir(directory) or directory)
        this = Round(powercut.snapshot(directory), log)
        place.call([*powercut.preload(place, directory, log, **more), "/usr/bin/python3", "-c", PREAMBLE + program,
                    directory, log])
        return this, directory
    return run


def after(this, rng):
    """All the directories that many cuts at the end leave."""
    disk = this.disk().play(this.journal())
    images = [disk.cut(rng, names, data) for names in powercut.NAMES for data in powercut.DATA for _ in range(60)]
    return {tuple(sorted(image.items())) for image in images}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_cut_leaves(journalled, rng, name):
    program, possible = PROGRAMS[name]
    this, directory = journalled(program, sync_ms=200 if "while a sync" in name else None)
    powercut.assert_complete(this.disk().play(this.journal()), directory)
    assert after(this, rng) == {tuple(sorted(image.items())) for image in possible}


def test_a_journal_keeps_the_order(journalled, rng):
    """Of names in different directories, and every sync carries all of them; of data it says nothing."""
    this, _ = journalled("os.mkdir('d'); make('f', b'x', sync=False); make('d/g'); os.unlink('f'); make('d/h', sync=False)")
    disk = this.disk().play(this.journal())
    found = {tuple(sorted(disk.cut(rng, "journal", "none").items())) for _ in range(200)}
    left = {"d": None, "d/g": b""}
    assert found == {tuple(sorted(image.items())) for image in ({**left, "f": b""}, left, {**left, "d/h": b""})}


def test_a_kill_loses_nothing(place, run, tmp, rng):
    """What was written is still there for the next program, which goes on in the same journal, and may sync it."""
    directory, log = os.path.join(tmp, "dir"), os.path.join(tmp, "log")
    place.give(os.mkdir(directory) or directory)
    this = Round(powercut.snapshot(directory), log)

    def live(program, **more):
        return run.start(*powercut.preload(place, directory, log, **more), "/usr/bin/python3", "-c", PREAMBLE + program, directory)

    died_of(live("make('f', b'x', sync=False); make('g')", kill=3), signal.SIGKILL)
    assert after(this, rng) == {tuple(image.items()) for image in ({}, {"f": b""}, {"f": b"\0"}, {"f": b"x"})}
    succeeded(live("os.fsync(os.open('f', os.O_RDWR)); os.fsync(here)"))
    powercut.assert_complete(this.disk().play(this.journal()), directory)
    assert after(this, rng) == {(("f", b"x"),)}


def test_what_a_failed_sync_was_for_is_lost(journalled, rng):
    """A second one says that all is well."""
    this, _ = journalled(
        "fd = make('f', b'x'); os.fsync(here); os.pwrite(fd, b'y', 0)\n"
        "try: os.fdatasync(fd)\n"
        "except OSError as e: assert e.errno == 5\n"
        "os.fdatasync(fd)", fail="sync:2:EIO")
    assert after(this, rng) == {(("f", b"x"),)}


def test_operations_that_the_library_does_not_see_are_found_out(journalled):
    this, directory = journalled("import mmap; fd = make('f', b'x' * 4096); mmap.mmap(fd, 4096)[0:1] = b'y'")
    with pytest.raises(AssertionError, match="differs from what the journal says"):
        powercut.assert_complete(this.disk().play(this.journal()), directory)


# ---- compressed segments


def _compress(library, function, bound, data, *more):
    lib = ctypes.CDLL(library)
    compress, room_for = getattr(lib, function), getattr(lib, bound)
    compress.restype = room_for.restype = ctypes.c_size_t
    size = ctypes.c_size_t(len(data))
    room = room_for(size, None)
    out = ctypes.create_string_buffer(room)
    length = compress(out, ctypes.c_size_t(room), data, size, *more)
    return out.raw[:length]


COMPRESSORS = {
    ".gz": lambda data: gzip.compress(data, 1),
    ".zst": lambda data: _compress("libzstd.so.1", "ZSTD_compress", "ZSTD_compressBound", data, 1),
    ".lz4": lambda data: _compress("liblz4.so.1", "LZ4F_compressFrame", "LZ4F_compressFrameBound", data, None),
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_as_much_is_decoded_as_there_is(rng, suffix):
    """Whole members or frames count, whatever stands behind them: of a file that was cut or torn."""
    first, second = rng.randbytes(30000) + bytes(70000), rng.randbytes(5000)
    compress = COMPRESSORS[suffix]
    whole = compress(first) + compress(second)
    assert decode(whole, suffix) == first + second
    for behind in (bytes(5000), b"\xff" * 5000, rng.randbytes(5000)):
        assert decode(whole + behind, suffix)[:105000] == first + second
    for cut in (0, 1, len(whole) // 3, len(compress(first)), len(whole) - 1):
        assert (first + second).startswith(decode(whole[:cut], suffix))
    assert decode(whole[:len(compress(first)) + 1], suffix) == first


# ---- a synchronous sink


def stop(receiver):
    receiver.signal(signal.SIGTERM)
    assert receiver.wait() == 0, str(receiver)


def partial_or_complete(directory):
    return [name for name in os.listdir(directory) if SEGMENT.fullmatch(name)]


class Sink:
    """A primary whose only synchronous standby is pgr-receivewal, in rounds that a power cut ends."""

    def __init__(self, pg, clusters, run, tmp, method):
        self.place, self._run, self._method = clusters.place, run, method
        self.primary = clusters.create(pg, initdb=wal_segsize(pg, 1))
        self.primary.keep_wal()
        self.primary.start()
        self.primary.sql(TABLE)
        self.backup = os.path.join(tmp, "backup")
        self.start = self.primary.sql("SELECT pg_current_wal_flush_lsn()")
        self.end = None
        self.directory = self._make(tmp, "wal")
        self._logs = self._make(tmp, "logs")
        self.rounds = []
        self._base_backup()
        self.primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'sink'")
        self.primary.reload()

    def _base_backup(self):
        """With the sink on, which has then all WAL from before its start."""
        self._run.receivewal("--create-slot", "-S", "sink", *self.primary.address())
        receiver = self.synchronously()
        wait_until(lambda: partial_or_complete(self.directory), "WAL arrives")
        self._run.basebackup("-D", self.backup, "-c", "fast", "-X", "none", "--no-sync", *self.primary.address())
        stop(receiver)
        self._wait_for_slot()

    def _make(self, tmp, name):
        path = os.path.join(tmp, name)
        os.mkdir(path)
        return self.place.give(path)

    def receive(self, directory, *arguments, log=None, **more):
        prefix = powercut.preload(self.place, directory, log, **more) if log or more else ["env"]
        compress = ["-Z", self._method] if self._method != "none" else []
        return self._run.start(*prefix, self._run.receivewal_path, "-D", directory, *compress, *arguments)

    def synchronously(self, log=None, **more):
        return self.receive(self.directory, "--synchronous", "-S", "sink", "-d",
                            self.primary.conninfo(application_name="sink"), log=log, **more)

    def round(self, clients, commits, rng, primary_dies=False):
        """The sink runs for so many commits, dies, and finds its directory as a power cut left it."""
        log = os.path.join(self._logs, str(len(self.rounds)))
        this = Round(powercut.snapshot(self.directory), log)
        receiver = self.synchronously(log)
        clients.wait_for(commits)
        if primary_dies:
            with clients.without_server():
                self.primary.kill()
                self.primary.start()
            clients.wait_for(commits)
        receiver.end()
        powercut.materialise(last_picture(this, self.directory, rng), self.directory, self.place)
        self.rounds.append(this)
        self._wait_for_slot()

    def _wait_for_slot(self):
        active = "SELECT active FROM pg_replication_slots"
        wait_until(lambda: self.primary.sql(active) == "f", "the slot is free")

    def finish(self, clients):
        """Lets the clients end; the primary has then no commit that waits."""
        receiver = self.synchronously()
        clients.wait_for(10)
        clients.__exit__()
        stop(receiver)

    def examiner(self, clients, rng):
        """And sets what each round must not lose of what the earlier ones had promised."""
        commits = with_positions(self.primary, clients.told, self.start)
        self.end = self.primary.sql("SELECT pg_current_wal_flush_lsn()")  # the judge reads the server's WAL after this
        judge = Judge(self.primary.wal_path(), 1, self.primary.segment_bytes())
        examiner = Examiner(judge, judge.begin(self.rounds[0].disk().now()), commits, rng)
        floor = 0
        for this in self.rounds:
            this.floor = floor
            floor = examiner.floor_after(this)
        return examiner


def cut_somewhere(this, rng):
    """(image, moment) of a cut at any time of the round."""
    journal = this.journal()
    n = rng.randint(0, len(journal))
    return this.disk().play(journal, n).cut(rng, rng.choice(powercut.NAMES), rng.choice(powercut.DATA)), journal.time_of(n)


def goes_on(sink, examiner, image, tmp):
    """A receiver takes the directory up where the cut left it, and completes it."""
    directory = os.path.join(tmp, "again")
    sink.place.give(os.mkdir(directory) or directory)
    powercut.materialise(image, directory, sink.place)
    receiver = sink.receive(directory, "--no-loop", "--endpos", sink.end, *sink.primary.address())
    assert receiver.wait() == 0, str(receiver)
    left = {path: content for path, _, content in powercut.snapshot(directory) if path}
    examiner.judge.reach(left, examiner.start)
    if image:  # an empty directory starts where the server stands
        assert examiner.judge.reach(left, examiner.start) >= lsn_number(sink.end), str(receiver)
    sink.place.discard(directory)


def recovers(sink, clusters, pg, clients, examiner, image, when):
    """Base backup and archive alone have every row that a client knew of."""
    server = restore(clusters, pg, sink.backup, examiner.judge.plain(image))
    rows = {int(id) for (id,) in server.rows("SELECT id FROM told")}
    missing = {number for number, told in clients.told if told <= when} - rows
    assert not missing, f"{len(missing)} rows are missing, e.g. {sorted(missing)[:5]}"
    server.stop("immediate")


def rounds(sink, rng, count, commits):
    clients = Clients(sink.primary)
    with clients:
        for n in range(count):
            sink.round(clients, rng.randint(commits // 2, commits), rng, primary_dies=n % 4 == 2)
        sink.finish(clients)
    return clients


def without(this, *kinds, inode=None):
    """The journal of a receiver that forgot its syncs: of the directory, or of the files."""
    return this.journal().without(lambda op: op.kind in kinds and (op.ino == inode[0]) == inode[1])


def test_no_promise_is_broken(pg, clusters, run, tmp, rng):
    """The short form of the long test below, and a look at whether it would see anything."""
    sink = Sink(pg, clusters, run, tmp, "none")
    clients = rounds(sink, rng, 2, 500)
    examiner = sink.examiner(clients, rng)
    for this in sink.rounds:
        assert examiner.acknowledgements(this, at_most=150) > 10
        examiner.cuts(this, 100)
    image, when = cut_somewhere(sink.rounds[-1], rng)
    recovers(sink, clusters, pg, clients, examiner, image, when)
    goes_on(sink, examiner, image, tmp)
    this = sink.rounds[0]
    top = os.stat(sink.directory).st_ino
    for forgotten in (True, False):
        with pytest.raises(AssertionError, match="was promised|is wrong"):
            examiner.acknowledgements(this, without(this, powercut.SYNC, inode=(top, forgotten)))


def compresses(run, method):
    """Whether this program has the method: it says so before it looks for a server."""
    tried = run.start_receivewal("-D", run.place.base, "-n", "-Z", method, "-h", run.place.base, "-p", "1")
    assert tried.wait() == 1, str(tried)
    return "support" not in tried.err


@pytest.mark.long
@pytest.mark.parametrize("method", ["none", "gzip", "lz4", "zstd"])
def test_no_promise_is_broken_by_any_of_many_cuts(pg, clusters, run, tmp, rng, method):
    if not compresses(run, method):
        pytest.skip(f"no {method}")
    sink = Sink(pg, clusters, run, tmp, method)
    clients = rounds(sink, rng, 8, 2500)
    examiner = sink.examiner(clients, rng)
    for this in sink.rounds:
        assert examiner.acknowledgements(this) > 10
        examiner.cuts(this, -(-CUTS // len(sink.rounds)))
    for this in sink.rounds:
        goes_on(sink, examiner, cut_somewhere(this, rng)[0], tmp)
    for this in rng.sample(sink.rounds, 3):
        recovers(sink, clusters, pg, clients, examiner, *cut_somewhere(this, rng))


# ---- a sink that has much to catch up with

BLOCK = 1 << 20
PLAIN = re.compile("[0-9A-F]{24}")
SUFFIXES = (".gz", ".lz4", ".zst")


def takes_direct_writes(directory):
    path = os.path.join(directory, "direct")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600))
    except OSError:
        return False
    os.unlink(path)
    return True


class Late:
    """A primary that has some 14 MB of WAL, and a sink that has none of it yet."""

    def __init__(self, pg, clusters, run, tmp):
        self.place, self._run = clusters.place, run
        self.primary = clusters.create(pg, initdb=wal_segsize(pg, 2))
        self.primary.keep_wal()
        self.primary.start()
        self.start = self.primary.sql("SELECT pg_current_wal_flush_lsn()")
        self.directory, self._logs = os.path.join(tmp, "wal"), os.path.join(tmp, "logs")
        for path in (self.directory, self._logs):
            self.place.give(os.mkdir(path) or path)
        run.receivewal("--create-slot", "-S", "sink", *self.primary.address())
        self.primary.sql("CREATE TABLE much AS SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 13000) g")
        self.end = self.primary.sql("SELECT pg_current_wal_flush_lsn()")
        self.rounds = []
        self.direct = takes_direct_writes(tmp)

    def receive(self, *arguments, **more):
        log = os.path.join(self._logs, str(len(self.rounds)))
        self.place.write(log, "")
        self.rounds.append(Round(powercut.snapshot(self.directory), log))
        return self._run.start(*powercut.preload(self.place, self.directory, log, **more), self._run.receivewal_path,
                               "-D", self.directory, "-n", "-S", "sink", "--startpos", self.start, "--endpos", self.end,
                               *arguments, *self.primary.address())

    def cut(self, rng):
        """The names of several segments are not durable yet: of a later one without an earlier one's nothing is promised."""
        this = self.rounds[-1]
        disk = this.disk().play(this.journal())
        powercut.assert_complete(disk, self.directory)
        image = disk.cut(rng, rng.choice(("prefix", "journal")), rng.choice(powercut.DATA))
        powercut.materialise(image, self.directory, self.place)

    def blocks(self):
        """Writes of whole blocks, which only the thread makes, over all rounds."""
        return [op for this in self.rounds for op in this.journal().operations(powercut.WRITE) if len(op.data) == BLOCK]

    def examine(self, rng, cuts=40):
        """Every round so far; returns how far the directory reaches."""
        judge = Judge(self.primary.wal_path(), 1, self.primary.segment_bytes())
        examiner = Examiner(judge, lsn_number(self.start), [], rng)
        floor = 0
        for this in self.rounds:
            this.floor = floor
            examiner.acknowledgements(this)
            examiner.cuts(this, cuts)
            floor = examiner.floor_after(this)
        return judge.reach(powercut.image_of(self.directory), examiner.start)


@pytest.fixture
def late(pg, clusters, run, tmp):
    if pg.major < 11:
        pytest.skip("segments of 16 MB are too much for so many cuts")
    return Late(pg, clusters, run, tmp)


@pytest.mark.parametrize("more", [{}, {"sync_ms": 100}, {"fail": "allocate:3-6:ENOSPC"}], ids=["disk", "slow disk", "full disk"])
@pytest.mark.parametrize("arguments", [(), ("--synchronous",), ("-Z", "lz4")], ids=["late", "synchronous", "compressed"])
def test_catching_up(late, rng, arguments, more):
    """Past the page cache, by a thread: what is reported there is durable as well."""
    succeeded(late.receive(*arguments, **more))
    assert late.examine(rng) >= lsn_number(late.end)
    assert len(late.blocks()) > 4 or not late.direct
    assert powercut.statuses(late.rounds[0].journal())[-1].flushed >= lsn_number(late.end)


def left_plain(names):
    """What the next start will not compress: it goes on behind the newest compressed segment, if there is any."""
    newest = max((name for name in names if name.endswith(SUFFIXES)), default="G")
    return {name for name in names if PLAIN.fullmatch(name) and name < newest[:24]}


@pytest.mark.parametrize("method", ["none", "lz4", "zstd"])
def test_catching_up_with_cuts(late, rng, method):
    """Each run goes on where the power cut left the one before; several threads compress in the order of the WAL."""
    for _ in range(6):
        receiver = late.receive("-Z", method, kill=rng.randint(10, 40) if method == "none" else rng.randint(20, 140))
        if receiver.wait() == 0:
            break
        died_of(receiver, signal.SIGKILL)
        late.cut(rng)
    else:
        succeeded(late.receive("-Z", method))
    for this in late.rounds:
        journal, disk = this.journal(), this.disk()
        plain = left_plain(disk.now())
        for moment in sorted(op.ended + 1 for op in journal.operations(*powercut.NAME_CHANGES) if op.ended):
            names = disk.play(journal, moment).now()
            assert left_plain(names) <= plain or not any(n.endswith(SUFFIXES) for n in names), f"at record {moment}"
    assert late.examine(rng, cuts=20) >= lsn_number(late.end)
    assert late.blocks() or not late.direct


@pytest.mark.parametrize("fault", ["write:6:EIO", "sync:2:EIO", "write:6:ENOSPC"])
def test_catching_up_on_a_failing_disk(late, rng, fault):
    """It ends, and the next run has nothing to stumble over."""
    gave_up(late.receive(fail=fault), os.strerror(getattr(errno, fault.rpartition(":")[2])))
    late.examine(rng)
    succeeded(late.receive())
    assert late.examine(rng) >= lsn_number(late.end)


# ---- bad disks


@pytest.mark.parametrize("fault", ["sync@.partial:2:EIO", "dirsync:3:EIO", "write@.partial:3:EIO"])
def test_a_failing_disk_is_the_end(pg, clusters, run, tmp, fault):
    """The file that could not be synced is not synced again, for that would say that all is well.

    (A segment that is made ahead may be thrown away, there is no WAL in it yet.)
    """
    sink = Sink(pg, clusters, run, tmp, "none")
    log = os.path.join(tmp, "log")
    sink.place.write(log, "")
    start = powercut.snapshot(sink.directory)
    with Clients(sink.primary) as clients:
        receiver = sink.synchronously(log, fail=fault)
        gave_up(receiver, "Input/output error")
        journal = powercut.Journal(log)
        broken = [op for op in journal.operations() if op.errno == 5]
        assert len(broken) == 1, broken
        later = [op for op in journal.operations(powercut.WRITE, powercut.SYNC)
                 if op.ino == broken[0].ino and op.began > broken[0].began]
        assert not later, f"after {broken[0]}: {later}"
        sink.rounds.append(Round(start, log))
        sink.finish(clients)
    sink.examiner(clients, random.Random(0)).acknowledgements(sink.rounds[0], at_most=100)


def test_a_full_disk_is_waited_for(pg, clusters, run, tmp):
    sink = Sink(pg, clusters, run, tmp, "none")
    log = os.path.join(tmp, "log")
    sink.place.write(log, "")
    with Clients(sink.primary) as clients:
        receiver = sink.synchronously(log, fail="allocate:1-2:ENOSPC")
        receiver.wait_for_text("No space left on device")
        clients.wait_for(300)
        stop(receiver)
        sink.finish(clients)
    assert [op.errno for op in powercut.Journal(log).operations(powercut.ALLOCATE)][:3] == [28, 28, 0]
