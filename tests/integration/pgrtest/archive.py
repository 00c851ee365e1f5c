"""What a directory of WAL segments holds, plain and compressed, judged by a server's own pg_wal.

The directory is given as {name: content}, as powercut makes it.
"""

import ctypes
import functools
import os
import re
import zlib

from .wal import lsn_number, segment_name

SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{16})(\.gz|\.lz4|\.zst)?(\.partial)?")
PAGE, LONG_HEAD, SHORT_HEAD = 8192, 40, 24


class Undecodable(Exception):
    """Compressed bytes that are none."""


# ---- decompression


class _Gzip:
    def __init__(self):
        self._stream = zlib.decompressobj(31)

    def feed(self, data):
        out = b""
        try:
            while data:
                out += self._stream.decompress(data)
                data = self._stream.unused_data
                if self._stream.eof:
                    self._stream = zlib.decompressobj(31)
        except zlib.error as e:
            raise Undecodable from e
        return out


class _Buffer(ctypes.Structure):
    _fields_ = [("p", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


_ROOM = 1 << 18


class _Zstd:
    def __init__(self):
        self._lib = ctypes.CDLL("libzstd.so.1")
        self._lib.ZSTD_createDStream.restype = ctypes.c_void_p
        self._lib.ZSTD_decompressStream.restype = ctypes.c_size_t
        self._stream = ctypes.c_void_p(self._lib.ZSTD_createDStream())
        self._room = ctypes.create_string_buffer(_ROOM)

    def feed(self, data):
        given = ctypes.create_string_buffer(data, len(data))
        source, out = _Buffer(ctypes.addressof(given), len(data), 0), b""
        while True:
            into = _Buffer(ctypes.addressof(self._room), _ROOM, 0)
            code = self._lib.ZSTD_decompressStream(self._stream, ctypes.byref(into), ctypes.byref(source))
            if self._lib.ZSTD_isError(ctypes.c_size_t(code)):
                raise Undecodable
            out += ctypes.string_at(into.p, into.pos)
            if source.pos == source.size and into.pos < _ROOM:
                return out

    def __del__(self):
        self._lib.ZSTD_freeDStream(self._stream)


class _Lz4:
    def __init__(self):
        self._lib = ctypes.CDLL("liblz4.so.1")
        self._lib.LZ4F_decompress.restype = ctypes.c_size_t
        self._context = ctypes.c_void_p()
        self._lib.LZ4F_createDecompressionContext(ctypes.byref(self._context), 100)
        self._room = ctypes.create_string_buffer(_ROOM)

    def feed(self, data):
        out, at = b"", 0
        given = ctypes.create_string_buffer(data, len(data))
        while True:
            room, left = ctypes.c_size_t(_ROOM), ctypes.c_size_t(len(data) - at)
            code = self._lib.LZ4F_decompress(self._context, self._room, ctypes.byref(room),
                                             ctypes.c_void_p(ctypes.addressof(given) + at), ctypes.byref(left), None)
            if self._lib.LZ4F_isError(ctypes.c_size_t(code)):
                raise Undecodable
            out += self._room.raw[:room.value]
            at += left.value
            if at == len(data) and room.value < _ROOM:
                return out

    def __del__(self):
        self._lib.LZ4F_freeDecompressionContext(self._context)


_DECODERS = {".gz": _Gzip, ".zst": _Zstd, ".lz4": _Lz4}
_PIECE = 4096


def decode(data, suffix):
    """As much as can be decoded, to the last byte before the first that makes no sense."""
    if not suffix:
        return data
    stream, out = _DECODERS[suffix](), []
    for at in range(0, len(data), _PIECE):
        try:
            out.append(stream.feed(data[at:at + _PIECE]))
        except Undecodable:
            return b"".join(out + _slowly(_DECODERS[suffix](), data, at))
    return b"".join(out)


def _slowly(stream, data, at):
    """A decoder that fails loses what the piece was good for; so that piece goes in byte by byte."""
    stream.feed(data[:at]) if at else None
    out = []
    for i in range(at, min(len(data), at + _PIECE)):
        try:
            out.append(stream.feed(data[i:i + 1]))
        except Undecodable:
            break
    return out


# ---- judgement


def common_length(a, b):
    """How many bytes at the start are the same."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Judge:
    """Compares directories with the WAL of a server whose pg_wal still has all of it."""

    def __init__(self, directory, tli, segment_bytes):
        self._directory, self._tli, self.segment_bytes = directory, tli, segment_bytes
        self._good = {}  # (name, hash of the content) -> how many bytes of WAL

    @functools.lru_cache(maxsize=None)
    def original(self, name):
        with open(os.path.join(self._directory, name), "rb") as f:
            return f.read()

    def good_bytes(self, name, content):
        """Length of the WAL at the start of this file that is the server's own."""
        key = (name, hash(content))
        if key not in self._good:
            match = SEGMENT.fullmatch(name)
            self._good[key] = common_length(decode(content, match[3]), self.original(match[1] + match[2]))
        return self._good[key]

    def reach(self, image, start):
        """The position up to which the directory has all WAL from `start` on; a number.

        AssertionError when a finished segment is not all that its name says: nobody would ever look at it again.
        """
        best = {}
        for name, content in image.items():
            match = SEGMENT.fullmatch(name)
            if match is None or content is None:
                continue
            good = self.good_bytes(name, content)
            assert match[4] or good == self.segment_bytes, (
                f"the finished segment {name} ({len(content)} bytes) is wrong from byte {good} on")
            best[match[1] + match[2]] = max(good, best.get(match[1] + match[2], 0))
        at = start - start % self.segment_bytes
        while True:
            good = best.get(segment_name(self._tli, at, self.segment_bytes), 0)
            at += good
            if good < self.segment_bytes:
                return at

    def begin(self, image):
        """The position of the first segment; a number."""
        first = min(match[2] for match in map(SEGMENT.fullmatch, image) if match)
        return (int(first[:8], 16) << 32) + int(first[8:], 16) * self.segment_bytes

    def plain(self, image):
        """{segment's name: content} as a server can restore it: decoded, the last one filled up with zeros."""
        out = {}
        for name, content in sorted(image.items()):  # a finished one stands before its .partial
            match = SEGMENT.fullmatch(name)
            if match is not None:
                out.setdefault(match[1] + match[2], decode(content, match[3]).ljust(self.segment_bytes, b"\0"))
        return out


def record_end(lsn, length, segment_bytes):
    """Where a WAL record of `length` bytes that starts at `lsn` ends: page headers stand between its parts."""
    while True:
        room = PAGE - lsn % PAGE
        if length <= room:
            return lsn + length
        length -= room
        lsn += room
        lsn += LONG_HEAD if lsn % segment_bytes == 0 else SHORT_HEAD


COMMIT = re.compile(r"rmgr: Transaction +len \(rec/tot\): +\d+/ *(\d+), tx: +(\d+), lsn: ([0-9A-F/]+),.* desc: COMMIT")


def commit_ends(waldump, segment_bytes):
    """{transaction: end of its commit record}, of what pg_waldump prints."""
    return {int(m[2]): record_end(lsn_number(m[3]), int(m[1]), segment_bytes) for m in COMMIT.finditer(waldump)}
