"""What lies in a directory, described: to see that nothing was changed, or that two copies are the same."""

import os
import re
import stat

from . import content
from .checks import paths_below

# What two backups of one quiet cluster differ in (times, positions, counters), and what -R makes.
VARIES = {"backup_label", "backup_manifest", "global/pg_control", "postgresql.auto.conf", "standby.signal",
          "recovery.conf"}
# What a run makes for a moment to see whether the server sees it; a kill in that moment leaves it until the next run.
PROBE = "pgr_probe."
SEGMENT = re.compile(r"[0-9A-F]{24}")
TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe",
         stat.S_IFSOCK: "socket"}


def _entry(path, times):
    found = os.lstat(path)
    kind = TYPES[stat.S_IFMT(found.st_mode)]
    more = ()
    if kind == "file":
        more = (found.st_size, content.hash_of(path), *((found.st_mtime_ns,) if times else ()))
    elif kind == "link":
        more = (os.readlink(path),)
    return (kind, f"{stat.S_IMODE(found.st_mode):o}", *more)


def picture(top, times=True):
    """{path: what it is} for everything below `top`, links not followed; with the times of files, not of directories."""
    if not os.path.lexists(top):
        return None
    return {path: _entry(os.path.join(top, path) if path else top, times) for path in ["", *paths_below(top)]}


def _of_interest(top, but):
    """A backup's files but for WAL, what varies, and where tablespaces lie."""
    return {path: entry for path, entry in (picture(top, times=False) or {}).items()
            if not path.startswith("pg_wal") and path not in VARIES and path not in but
            and not re.fullmatch(r"pg_tblspc/\d+", path) and not path.startswith(PROBE)
            # a cache, which the lanes' own sessions may make
            and not path.endswith("pg_internal.init")}


def unlogged(paths):
    """Those of unlogged relations, but for their init forks.

    Before 11 a backup has them as they are; no checkpoint writes them, but others do when they like.
    """
    found = {path[:-len("_init")] for path in paths if path.endswith("_init")}
    return {path for path in paths if re.sub(r"(_fsm|_vm)?(\.\d+)?$", "", path) in found}


def _without_unlogged_content(entries):
    lost = unlogged(entries)
    return {path: entry[:2] if path in lost else entry for path, entry in entries.items()}


def differences(one, other, but=()):
    """[text] about each path in which two copies differ."""
    a, b = (_without_unlogged_content(_of_interest(top, but)) for top in (one, other))
    return [f"{path}: {a.get(path, 'missing')} in {one}, {b.get(path, 'missing')} in {other}"
            for path in sorted(a.keys() | b.keys()) if a.get(path) != b.get(path)]


def assert_same(one, other, but=()):
    found = differences(one, other, but)
    assert not found, f"{len(found)} differ\n" + "\n".join(found[:20])


def assert_only_new_wal(target):
    """pg_wal has nothing from before the backup."""
    with open(os.path.join(target, "backup_label"), encoding="utf-8") as f:
        first = re.search(r"\(file ([0-9A-F]{24})\)", f.read())[1]
    for name in os.listdir(os.path.join(target, "pg_wal")):
        known = name in ("archive_status", "summaries") or name.endswith(".history")
        assert known or (SEGMENT.fullmatch(name) and name >= first), f"pg_wal/{name} in a backup that begins with {first}"


def files_below(top, pattern=r".*"):
    """Relative paths of the regular files that match as a whole, sorted."""
    return [path for path in paths_below(top) if re.fullmatch(pattern, path)
            and stat.S_ISREG(os.lstat(os.path.join(top, path)).st_mode)]


RELATION = r"(base/\d+|global)/\d+(_fsm|_vm|_init)?(\.\d+)?"


def relations(top, least=1):
    """Those of relations that have at least so many bytes."""
    return [path for path in files_below(top, RELATION) if os.path.getsize(os.path.join(top, path)) >= least]


def disturb(path, rng, count=1):
    """Changes bytes of a file behind everybody's back: size and times stay as they are."""
    found = os.stat(path)
    with open(path, "r+b") as f:
        for _ in range(count):
            at = rng.randrange(found.st_size)
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ rng.randrange(1, 256)]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def bytes_of(top):
    """Of its files, without WAL."""
    return sum(os.lstat(os.path.join(top, path)).st_size for path in files_below(top) if not path.startswith("pg_wal/"))
