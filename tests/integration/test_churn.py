"""Copies of a server on which everything changes meanwhile: what comes out is a standby like any other."""

import os
import re

import pytest

from pgrtest import content
from pgrtest.checks import nothing_of_ours, start_standby, verify_backup
from pgrtest.churn import Churn

pytestmark = pytest.mark.every_major


def unexpected(words):
    """The server says so of a file that grows or is cut while it is read: it has then part of a page at its end."""
    return [line for line in words.splitlines()
            if not re.search(r"could not verify checksum in file .*: read buffer size \d+ and page size \d+ differ", line)]


@pytest.mark.parametrize("jobs", [1, 3], ids=["stream", "lanes"])
def test_everything_changes(pg, clusters, run, tmp, jobs):
    settings = {"wal_keep_size": "'2GB'"} if pg.major >= 13 else {"wal_keep_segments": "128"}
    if pg.major >= 15:
        settings["allow_in_place_tablespaces"] = "on"
    server = clusters.create(pg, initdb=["--data-checksums"], **settings).start()
    content.populate(server)
    target = os.path.join(tmp, "standby")
    with content.Writer(server), Churn(server) as churn:
        done = run.basebackup("-D", target, "-R", "-r", "24M", "-j", jobs, "-c", "fast", *server.address())
        assert unexpected(done.err) == []
    assert min(churn.rounds.values()) > 1, f"hardly anything changed: {churn.rounds}"
    nothing_of_ours(target)
    verify_backup(pg, server.place, target)
    standby = start_standby(clusters, pg, target, server)
    standby.wait_replayed(server.lsn())
    assert content.fingerprint(standby) == content.fingerprint(server)
    content.check_indexes(standby)
    standby.stop()
    if os.path.exists(pg.program("pg_checksums")):
        server.place.call([pg.program("pg_checksums"), "--check", "-D", target])
