"""Judgements about a seeded directory, by others than the programs that made it."""

import os
import re

from . import installs
from .place import wait_until


def verify_backup(install, place, target, wal=True):
    """Stock pg_verifybackup accepts the directory (13 and later: before that there is no manifest)."""
    if install.major < 13:
        assert not os.path.exists(os.path.join(target, "backup_manifest"))
        return
    program, major = installs.reader_of("pg_verifybackup", install.major)
    # The WAL is parsed by the pg_waldump beside it, which reads its own major version's WAL only.
    no_wal = [] if wal and major == install.major else ["--no-parse-wal"]
    place.call([program, *no_wal, target])


def paths_below(top):
    """Every directory, file and link below `top` (text or bytes, so are the results), relative and sorted."""
    found = []
    for path, directories, files in os.walk(top):
        found += [os.path.relpath(os.path.join(path, name), top) for name in directories + files]
    return sorted(found)


def nothing_of_ours(target):
    """A finished directory holds no file that the server does not know."""
    strange = re.compile(r"pgr|\.tmp$|\.partial$|\.part$|journal", re.IGNORECASE)
    found = [path for path in paths_below(target) if strange.search(path)]
    assert not found, f"left in the directory: {found}"


def start_standby(clusters, install, target, primary, wrap=()):
    """Starts the directory as it is, and waits until the primary streams to it."""
    standby = clusters.adopt(install, target, wrap)
    standby.start()
    assert standby.sql("SELECT pg_is_in_recovery()") == "t"
    wait_until(lambda: streams(primary, standby), f"{primary} streams to {standby}")
    return standby


def streams(primary, standby):
    return (standby.sql("SELECT status FROM pg_stat_wal_receiver") == "streaming"
            and any(state == "streaming" for _, state, _ in primary.senders()))
