"""Names of WAL files, and comparison of received ones with a server's own."""

import os
import re

SEGMENT = re.compile(r"[0-9A-F]{24}")
PARTIAL = re.compile(r"([0-9A-F]{24})\.partial")
HISTORY = re.compile(r"[0-9A-F]{8}\.history")
AHEAD = "xlogtemp.pgr.tmp"  # the next segment's file, while the receiver runs or when it was killed
WAITING = [f"xlogtemp.pgr.{i}.tmp" for i in range(8)]  # the same of segments while an earlier one is not finished


def lsn_number(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_name(tli, position, segment_bytes):
    """The segment that holds the byte at this position."""
    number = position // segment_bytes
    per_id = 0x100000000 // segment_bytes
    return f"{tli:08X}{number // per_id:08X}{number % per_id:08X}"


def complete(directory):
    return sorted(n for n in os.listdir(directory) if SEGMENT.fullmatch(n))


def partial(directory):
    return sorted(n for n in os.listdir(directory) if PARTIAL.fullmatch(n))


def histories(directory):
    return sorted(n for n in os.listdir(directory) if HISTORY.fullmatch(n))


def _content(path):
    with open(path, "rb") as f:
        return f.read()


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def assert_equal(received, original, length=None):
    """The first `length` bytes of both files (default: all) are the same."""
    a, b = _content(received), _content(original)
    if length is None:
        assert len(a) == len(b), f"{received} has {len(a)} bytes, {original} has {len(b)}"
    else:
        assert len(a) >= length and len(b) >= length, f"{received}: {len(a)} bytes, {original}: {len(b)}, want {length}"
        a, b = a[:length], b[:length]
    assert a == b, f"{received} differs from {original} at byte {first_difference(a, b)}"


def assert_received(directory, server, upto=None):
    """Every file in `directory` is the server's own, byte for byte, without a gap.

    A .partial file may end anywhere, with zeros behind.  With `upto`, all WAL before this LSN has to be there.
    Returns the names of the complete segments.
    """
    segments, unfinished = complete(directory), partial(directory)
    for name in segments + histories(directory):
        assert_equal(os.path.join(directory, name), server.wal_path(name))
    for name in unfinished:
        path = os.path.join(directory, name)
        assert_equal(path, server.wal_path(name[:24]), len(_content(path).rstrip(b"\0")))
    if upto is not None:
        _assert_reaches(directory, server, lsn_number(upto))
    _assert_no_gap(segments + [n[:24] for n in unfinished], server.segment_bytes())
    known = segments + unfinished + histories(directory) + [AHEAD] + WAITING
    strangers = [n for n in os.listdir(directory) if n not in known]
    assert not strangers, f"in {directory}: {strangers}"
    return segments


def _assert_reaches(directory, server, position):
    """The segment that holds the byte before `position` is there up to it, on the newest timeline that has it."""
    size = server.segment_bytes()
    names = complete(directory) + partial(directory)
    last = segment_name(0, position - 1, size)[8:]
    if names and last < min(n[8:24] for n in names):
        return  # it was received before, or never asked for
    found = [n for n in names if n[8:24] == last]
    assert found, f"no segment that ends in {last} in {sorted(os.listdir(directory))}"
    newest = max(found)
    assert_equal(os.path.join(directory, newest), server.wal_path(newest[:24]), (position - 1) % size + 1)


def _assert_no_gap(names, segment_bytes):
    per_id = 0x100000000 // segment_bytes
    numbers = sorted({int(n[8:16], 16) * per_id + int(n[16:], 16) for n in names})
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)) if numbers else []
    assert not missing, f"segment numbers {missing} are missing"
