"""An archive of very many segments without content."""

import os

from pgrtest import wal

SUFFIXES = ("", ".gz", ".lz4", ".zst")
BLOCK = 1000  # so many of one kind follow each other


class Archive:
    """The `count` segments before the one named `following`.

    Uncompressed ones are sparse and as long as they should be.  With `mixed`, there are all four kinds of names, and
    the newest ones are uncompressed.
    """

    def __init__(self, place, count, following, segment_bytes, mixed):
        self._place = place
        self.path = place.directory()
        tli, per_id = int(following[:8], 16), 0x100000000 // segment_bytes
        end = int(following[8:16], 16) * per_id + int(following[16:], 16)
        assert count < end, f"there are only {end} segments before {following}"
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for back in range(count, 0, -1):
                suffix = SUFFIXES[(back - 1) // BLOCK % len(SUFFIXES)] if mixed else ""
                name = wal.segment_name(tli, (end - back) * segment_bytes, segment_bytes) + suffix
                self._make(directory, name, 0 if suffix else segment_bytes)
        finally:
            os.close(directory)

    def _make(self, directory, name, length):
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        try:
            if length:
                os.ftruncate(fd, length)
            if self._place.root:
                os.fchown(fd, self._place.user.pw_uid, self._place.user.pw_gid)
        finally:
            os.close(fd)

    def restore(self):
        """Removes what a receiver has begun."""
        with os.scandir(self.path) as entries:
            strange = [e.path for e in entries if e.name.endswith(".partial") or e.name in (wal.AHEAD, *wal.WAITING)]
        for path in strange:
            os.unlink(path)

    def remove(self):
        self._place.discard(self.path)
