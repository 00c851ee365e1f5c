"""pgr-receivewal -Z: what is received is compressed behind the stream, and whole at any moment."""

import os
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

from pgrtest import content, wal
from pgrtest.archive import decode
from pgrtest.place import wait_until
from pgrtest.programs import failed, succeeded
from pgrtest.server import wal_segsize

SEGMENT = re.compile("[0-9A-F]{24}")
METHODS = {"gzip:1": ".gz", "lz4": ".lz4", "zstd:level=3,long": ".zst"}
SUFFIXES = tuple(METHODS.values())
TEMPORARY = ("walpack.tmp", "walpack.1.tmp", "walpack.2.tmp", "walpack.3.tmp")
UNFINISHED = (*TEMPORARY, wal.AHEAD, *wal.WAITING)  # a killed run leaves them, a restart removes or uses them
CHECKERS = {".gz": "gzip", ".lz4": "lz4", ".zst": "zstd"}

each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def source(pg, clusters):
    server = clusters.create(pg, initdb=wal_segsize(pg, 1), wal_sender_timeout="'20s'")
    server.keep_wal()
    return server.start()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def packed(directory, suffix=SUFFIXES):
    return sorted(n for n in os.listdir(directory) if n.endswith(suffix))


def unpacked(directory, place):
    """A copy of the directory with everything decompressed; what is there twice has to be the same."""
    copy = place.directory()
    for name in sorted(set(os.listdir(directory)) - set(UNFINISHED)):
        base, suffix = os.path.splitext(name)
        plain = decode(read(os.path.join(directory, name)), suffix) if suffix in SUFFIXES else None
        if plain is None:
            shutil.copy(os.path.join(directory, name), copy)
            continue
        assert not os.path.exists(os.path.join(copy, base)) or read(os.path.join(copy, base)) == plain, name
        with open(os.path.join(copy, base), "wb") as f:
            f.write(plain)
    return copy


def check(directory, server, upto=None):
    copy = unpacked(directory, server.place)
    names = wal.assert_received(copy, server, upto)
    server.place.discard(copy)
    return names


def check_with_others(directory):
    """The compressors' own programs accept the files, where they are installed."""
    for name in packed(directory):
        program = shutil.which(CHECKERS[os.path.splitext(name)[1]])
        if program:
            done = subprocess.run([program, "-t", "-q", os.path.join(directory, name)], capture_output=True, text=True,
                                  check=False)
            assert done.returncode == 0, f"{name}: {done.stderr}"


def fill(server, segments):
    server.sql("CREATE TABLE IF NOT EXISTS filler (t text)")
    for _ in range(segments):
        server.sql("INSERT INTO filler SELECT repeat(md5(i::text), 10) FROM generate_series(1, 500) i")
        server.switch_wal()


def wait_packed(directory, count=1, suffix=SUFFIXES):
    """So many more segments are compressed, and nothing waits."""
    try:
        wait_until(lambda: len(packed(directory, suffix)) >= count and not wal.complete(directory),
                   f"{count} segments are compressed")
    finally:
        print(sorted(os.listdir(directory)))


def stop(receiver):
    receiver.signal(signal.SIGTERM)
    return succeeded(receiver)


def segments_of(directory):
    """In any form, but complete."""
    return {n[:24] for n in os.listdir(directory) if SEGMENT.match(n) and not n.endswith(".partial")}


def receive(run, server, directory, segments, *options):
    """Receives so many segments more, in any form, and stops."""
    receiver = run.start_receivewal("-D", directory, *options, *server.address())
    wait_until(server.senders, "it streams")
    goal = len(segments_of(directory)) + segments
    fill(server, segments + 1)
    wait_until(lambda: len(segments_of(directory)) >= goal, f"{goal} segments are there")
    stop(receiver)
    wait_until(lambda: not server.senders(), "the server has noticed")
    return receiver


@each_method
def test_archive_is_the_servers_wal(source, run, tmp, method):
    receiver = run.start_receivewal("-D", tmp, "-v", "-Z", method, *source.address())
    wait_until(source.senders, "it streams")
    content.populate(source)
    fill(source, 4)
    wait_packed(tmp, 4)
    done = stop(receiver)
    assert f'compressed segment "{packed(tmp)[0]}"' in done.err
    assert all(n.endswith((METHODS[method], ".partial")) for n in os.listdir(tmp)), sorted(os.listdir(tmp))
    check_with_others(tmp)
    check(tmp, source)
    sizes = [os.path.getsize(os.path.join(tmp, n)) for n in packed(tmp)]
    assert sum(sizes) < len(sizes) << 19
    assert {os.stat(os.path.join(tmp, n)).st_mode & 0o777 for n in os.listdir(tmp)} == {0o600}


@each_method
def test_goes_on_behind_what_is_compressed(source, run, tmp, method):
    """Also where it stopped exactly at the end of a segment."""
    for _ in range(3):
        receive(run, source, tmp, 2, "-Z", method)
    for name in wal.partial(tmp):
        os.unlink(os.path.join(tmp, name))
    end = source.lsn()
    run.receivewal("-D", tmp, "-Z", method, "--endpos", end, *source.address())
    assert not wal.complete(tmp), "after --endpos nothing is left to do"
    check_with_others(tmp)
    assert len(check(tmp, source, end)) >= 6


@each_method
def test_killed_at_any_moment(source, run, tmp, method):
    """Everything acknowledged can be read, and the next run tidies up."""
    content.populate(source)
    run.receivewal("--create-slot", "-S", "keep", *source.address())
    arguments = ["-D", tmp, "-S", "keep", "--synchronous", "-Z", method, *source.address()]
    # Where nothing is compressed yet, what a crash leaves would stay plain.
    receive(run, source, tmp, 1, "-S", "keep", "-Z", method)
    with content.Writer(source):
        for _ in range(6):
            receiver = run.start_receivewal(*arguments)
            wait_until(source.senders, "it streams")
            fill(source, 2)
            time.sleep(random.random() / 2)
            acknowledged = source.sql("SELECT coalesce(max(flush_lsn), '0/1000000') FROM pg_stat_replication")
            receiver.end()
            check(tmp, source, acknowledged)
            wait_until(lambda: source.sql("SELECT active FROM pg_replication_slots") == "f", "the slot is free")
    receiver = run.start_receivewal(*arguments)
    fill(source, 2)
    wait_packed(tmp, 6)
    end = source.lsn()
    wait_until(lambda: source.sql(f"SELECT flush_lsn >= '{end}' FROM pg_stat_replication") == "t", "all is flushed")
    stop(receiver)
    assert all(n.endswith((METHODS[method], ".partial")) for n in os.listdir(tmp)), sorted(os.listdir(tmp))
    check_with_others(tmp)
    check(tmp, source, end)


def test_method_changes(source, run, tmp):
    for method in ("gzip:1", "zstd", "none", "lz4:9", "gzip:9", "none"):
        receive(run, source, tmp, 2, "-Z", method)
    assert {os.path.splitext(n)[1] for n in packed(tmp)} == set(SUFFIXES)
    assert wal.complete(tmp), "the last run compressed nothing"
    check_with_others(tmp)
    check(tmp, source, source.lsn())


def test_left_behind_by_a_crash(source, run, tmp):
    """Segments that are there plain, twice, or unfinished."""
    receive(run, source, tmp, 4, "-Z", "gzip")
    names = [n[:24] for n in packed(tmp)]
    for name in names[-2:]:
        with open(os.path.join(tmp, name), "wb") as f:
            f.write(read(source.wal_path(name)))
        source.place.give(os.path.join(tmp, name))
    os.unlink(os.path.join(tmp, names[-1] + ".gz"))
    for name in TEMPORARY:
        source.place.give(shutil.copy(source.wal_path(names[-1]), os.path.join(tmp, name)))
    receiver = run.start_receivewal("-D", tmp, "-Z", "lz4", *source.address())
    wait_packed(tmp)
    stop(receiver)
    assert names[-1] + ".lz4" in packed(tmp) and names[-2] + ".gz" in packed(tmp)
    assert not set(os.listdir(tmp)) & set(TEMPORARY)
    check(tmp, source)


def test_a_plain_archive_stays_plain(source, run, tmp):
    """Only what comes is compressed."""
    receive(run, source, tmp, 2)
    before = wal.complete(tmp)
    receive(run, source, tmp, 2, "-Z", "lz4")
    assert wal.complete(tmp) == before
    check(tmp, source)


@pytest.mark.parametrize("method, suffix", [("gzip:1", ".gz"), ("lz4", ".lz4")])
def test_after_and_before_pg_receivewal(pg, source, run, tmp, method, suffix):
    """Its unfinished file is no obstacle and goes when the segment is complete; it goes on where we stopped."""
    stock = pg.program("pg_receivewal")
    if pg.major < 15 or not os.path.exists(stock):
        pytest.skip("pg_receivewal -Z lz4 came with 15")
    theirs = run.start(stock, "-D", tmp, "-Z", method, "--synchronous", *source.address())
    wait_until(source.senders, "it streams")
    fill(source, 2)
    wait_until(lambda: packed(tmp), "it has a segment")
    source.sql("INSERT INTO filler SELECT repeat(md5(i::text), 10) FROM generate_series(1, 100) i")
    time.sleep(0.3)
    theirs.signal(signal.SIGINT)
    theirs.wait()
    unfinished = [n for n in os.listdir(tmp) if n.endswith(suffix + ".partial")]
    assert len(unfinished) == 1, os.listdir(tmp)
    receiver = run.start_receivewal("-D", tmp, "-Z", method.replace("1", "9"), *source.address())
    fill(source, 2)
    receiver.wait_for_text(unfinished[0])
    wait_packed(tmp, 3)
    stop(receiver)
    assert f'removed "{tmp}/{unfinished[0]}"' in receiver.err, str(receiver)
    check_with_others(tmp)
    check(tmp, source)
    ours = packed(tmp)
    wait_until(lambda: not source.senders(), "the server has noticed")
    for name in wal.partial(tmp):
        os.unlink(os.path.join(tmp, name))
    theirs = run.start(stock, "-D", tmp, "-v", "-Z", method, *source.address())
    wait_until(source.senders, "it streams")
    fill(source, 2)
    wait_until(lambda: len(packed(tmp)) > len(ours), "it goes on")
    theirs.signal(signal.SIGINT)
    theirs.wait()
    assert "incorrect" not in theirs.err, str(theirs)
    check_with_others(tmp)


def test_unknown_method(run, tmp):
    failed(run.start_receivewal("-D", tmp, "-Z", "brotli"), 'unrecognized compression algorithm: "brotli"')
    failed(run.start_receivewal("-D", tmp, "-Z", "gzip:10"),
           'compression algorithm "gzip" expects a compression level between 1 and 9')


def test_wrong_archive_is_refused(pg, source, clusters, run, tmp):
    """Whose WAL it is can be read from a compressed segment as well."""
    receive(run, source, tmp, 2, "-Z", "zstd")
    for name in wal.partial(tmp):
        os.unlink(os.path.join(tmp, name))
    other = clusters.create(pg, initdb=wal_segsize(pg, 1) + ["--no-sync"]).start()
    process = run.start_receivewal("-n", "-D", tmp, *other.address())
    assert process.wait() == 4, str(process)
    assert "the server's system identifier is" in process.err and ".zst" in process.err
