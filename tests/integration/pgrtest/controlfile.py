"""global/pg_control with other values than a server would write, and a CRC that holds."""

import os
import struct

_TABLE = []
for _n in range(256):
    for _ in range(8):
        _n = (_n >> 1) ^ (0x82F63B78 if _n & 1 else 0)
    _TABLE.append(_n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_offset(data):
    """Where the CRC stands differs between the major versions."""
    for offset in range(200, 512, 4):
        if crc32c(data[:offset]) == struct.unpack_from("=I", data, offset)[0]:
            return offset
    raise AssertionError("no CRC in this pg_control")


def _sizes_offset(data):
    """floatFormat, and then blcksz, relseg_size, xlog_blcksz, xlog_seg_size."""
    found = data.find(struct.pack("=dIII", 1234567.0, 8192, 131072, 8192))
    assert found > 0, "no sizes in this pg_control"
    return found + 8


def change(target, **values):
    """block_bytes, segment_blocks, wal_segment_bytes, system_identifier, state."""
    path = os.path.join(target, "global", "pg_control")
    with open(path, "rb") as f:
        data = bytearray(f.read())
    crc, sizes = _crc_offset(bytes(data)), _sizes_offset(bytes(data))
    places = {"block_bytes": ("=I", sizes), "segment_blocks": ("=I", sizes + 4), "wal_segment_bytes": ("=I", sizes + 12),
              "system_identifier": ("=Q", 0), "state": ("=I", 16)}
    for name, value in values.items():
        struct.pack_into(places[name][0], data, places[name][1], value)
    struct.pack_into("=I", data, crc, crc32c(bytes(data[:crc])))
    with open(path, "wb") as f:
        f.write(data)


def damage(target):
    with open(os.path.join(target, "global", "pg_control"), "r+b") as f:
        f.seek(40)
        f.write(b"\xff\xff\xff")
