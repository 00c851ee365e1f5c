"""The pg_controls of real servers: what we read of them is what their server says of them."""

import os
import subprocess

import pytest

from pgrtest import installs
from pgrtest.place import wait_until
from pgrtest.server import wal_segsize

pytestmark = pytest.mark.every_major

# Of each function of the server, the columns that we read as well; they have the same names in 10 to 18.
TOLD_BY = {
    "pg_control_system": ["pg_control_version", "catalog_version_no", "system_identifier"],
    "pg_control_checkpoint": ["checkpoint_lsn", "redo_lsn", "timeline_id"],
    "pg_control_recovery": ["min_recovery_end_lsn", "min_recovery_end_timeline", "backup_start_lsn"],
    "pg_control_init": ["database_block_size", "blocks_per_segment", "bytes_per_wal_segment",
                        "data_page_checksum_version"],
}


def control_of(server):
    return os.path.join(server.data, "global", "pg_control")


def showcontrol():
    path = os.path.join(installs.TREE, os.environ.get("PGR_BIN_DIR") or os.path.join("build", "plain"),
                        "tests", "support", "showcontrol")
    if not os.path.exists(path):
        raise installs.Missing(f"{path} is not built: make showcontrol")
    return path


def show(path):
    done = subprocess.run([showcontrol(), path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def told(server):
    values = {}
    for function, names in TOLD_BY.items():
        [row] = server.rows(f"SELECT {', '.join(names)} FROM {function}()")
        values.update(zip(names, row))
    values["wal_level"] = str(["minimal", "replica", "logical"].index(server.sql("SHOW wal_level")))
    return values


def state_of(server):
    return show(control_of(server))["state"]


def assert_as_told(server, state):
    """A running server, which may move its minimum recovery point between our look and its own."""
    def both():
        shown, says = show(control_of(server)), {**told(server), "state": state}
        return shown == says and shown

    return wait_until(both, "we read of pg_control what its server reads of it")


def test_primary(pg, clusters):
    server = clusters.create(pg)
    assert state_of(server) == "shut down"
    server.start()
    assert_as_told(server, "in production")
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000)", "CHECKPOINT")
    shown = assert_as_told(server, "in production")
    assert shown["redo_lsn"] != shown["checkpoint_lsn"]
    assert shown["data_page_checksum_version"] == ("1" if pg.major >= 18 else "0")
    server.kill()
    assert state_of(server) == "in production"
    server.start().stop()
    shown = show(control_of(server))
    assert shown["state"] == "shut down"
    assert shown["redo_lsn"] == shown["checkpoint_lsn"]
    assert shown["wal_level"] != "0"
    if os.path.exists(pg.program("pg_resetwal")):
        clusters.place.call([pg.program("pg_resetwal"), "-D", server.data])
        assert show(control_of(server))["wal_level"] == "0"


def test_other_options_of_initdb(pg, clusters):
    """Checksums the other way round, another size of WAL segments."""
    sums = "--no-data-checksums" if pg.major >= 18 else "--data-checksums"
    server = clusters.create(pg, initdb=[sums, *wal_segsize(pg, 1)]).start()
    shown = assert_as_told(server, "in production")
    assert shown["data_page_checksum_version"] == ("0" if pg.major >= 18 else "1")
    assert shown["bytes_per_wal_segment"] == str((1 if pg.major >= 11 else 16) << 20)


def test_standby_and_after_promotion(pg, clusters, primary, run, tmp):
    data = os.path.join(tmp, "standby")
    run.basebackup(*primary.address(), "-D", data, "-R", "-c", "fast", "-X", "stream")
    standby = clusters.adopt(pg, data).start()
    primary.sql("CREATE TABLE controlfile AS SELECT generate_series(1, 1000) i", "CHECKPOINT")
    standby.wait_replayed(primary.lsn())
    standby.sql("CHECKPOINT")
    shown = assert_as_told(standby, "in archive recovery")
    assert shown["min_recovery_end_lsn"] != "0/0"
    standby.stop()
    assert state_of(standby) == "shut down in recovery"
    standby.start().promote()
    standby.sql("CHECKPOINT")
    shown = assert_as_told(standby, "in production")
    assert shown["timeline_id"] == str(int(told(primary)["timeline_id"]) + 1)
    primary.sql("DROP TABLE controlfile")


def test_as_pg_controldata(pg, clusters):
    """The words for the state, where there is a pg_controldata of this major."""
    try:
        path, major = installs.reader_of("pg_controldata", pg.major)
    except installs.Missing:
        major = None
    if major != pg.major:
        pytest.skip(f"there is no pg_controldata of {pg.major}")
    server = clusters.create(pg).start()
    server.kill()
    said = subprocess.run([path, server.data], capture_output=True, text=True, check=True,
                          env={**os.environ, "LC_ALL": "C"})
    lines = dict(map(str.strip, line.split(":", 1)) for line in said.stdout.splitlines())
    shown = show(control_of(server))
    assert shown["state"] == lines["Database cluster state"]
    assert shown["redo_lsn"] == lines["Latest checkpoint's REDO location"]
    assert shown["system_identifier"] == lines["Database system identifier"]
