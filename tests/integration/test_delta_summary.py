"""--delta=summary: an old copy brought up to date with the server's WAL summaries (17 and later)."""

import os
import re
import signal

import pytest

from pgrtest import content
from pgrtest.delta import Scene
from pgrtest.place import wait_until

pytestmark = pytest.mark.every_major

PAGE = 8192
SUMMARY = "--delta=summary"


@pytest.fixture
def scene(pg, clusters, run, tmp):
    if pg.major < 17:
        pytest.skip("WAL summaries came with 17")
    return Scene(pg, clusters, run, tmp)


def figures(done):
    """(changed in place, came whole, stayed, bytes that did not come) of a run with -v."""
    found = re.search(r"(\d+) files were changed in place, (\d+) came whole, (\d+) stayed; (\d+) bytes", done.err)
    assert found, str(done)
    return [int(n) for n in found.groups()]


def stopped_standby(scene, mode="fast"):
    scene.seed()
    standby = scene.standby()
    standby.sql("CHECKPOINT")
    standby.stop(mode)
    return standby


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stale_standby(scene, mode):
    stopped_standby(scene, mode)
    scene.change()
    scene.forget_wal()
    scene.change()
    scene.quiesce()
    done = scene.make_over(SUMMARY, "-v")
    patched, _, stayed, saved = figures(done)
    assert patched > 100 and saved > 20 * 1024 * 1024, str(done)
    assert stayed == 3, "the three configuration files"
    scene.is_right(but=["postgresql.conf", "pg_hba.conf", "pg_ident.conf"])


def test_copy_that_was_never_started(scene):
    scene.seed()
    scene.change()
    scene.quiesce()
    figures(scene.make_over(SUMMARY, "-v"))
    scene.is_right()


def test_without_grants(scene):
    """REPLICATION and LOGIN are enough."""
    scene.primary.sql("CREATE ROLE copier LOGIN REPLICATION")
    stopped_standby(scene)
    scene.change()
    scene.quiesce()
    done = scene.run.basebackup("-D", scene.target, "-R", "--delta", "-v", "-c", "fast",
                                *scene.primary.address(user="copier"))
    figures(done)
    scene.is_right()


def test_tablespaces(scene):
    scene.space("near")
    stopped_standby(scene)
    scene.change()
    scene.primary.sql("UPDATE in_near SET note = 'x' WHERE id % 1000 = 0")
    scene.quiesce()
    figures(scene.make_over(SUMMARY, "-v"))
    scene.is_right()


# ---- rows that were deleted must not come back


def blocks_of(server, table):
    return int(server.sql(f"SELECT pg_relation_size('{table}')")) // PAGE


def with_deleted_rows(scene):
    """
    A table that is cut to half its length and then extended by pages that no WAL knows: COPY extends by many pages at
    once, and those that it does not fill stay zeros.
    """
    primary = scene.primary
    primary.sql("CREATE TABLE ghosts (id int, pad text) WITH (autovacuum_enabled = off)",
                "ALTER TABLE ghosts ALTER pad SET STORAGE PLAIN",
                "INSERT INTO ghosts SELECT i, repeat('x', 7000) FROM generate_series(1, 400) i", "CHECKPOINT")
    assert blocks_of(primary, "ghosts") == 400
    scene.seed()
    primary.sql("DELETE FROM ghosts WHERE id > 200", "VACUUM (TRUNCATE) ghosts")
    assert blocks_of(primary, "ghosts") == 200
    return primary


def extend_with_zeros(scene, primary):
    lines = "".join(f"{i}\t{'y' * 7000}\n" for i in range(1001, 1071))
    source = os.path.join(scene.tmp, "rows")
    scene.place.write(source, lines)
    primary.sql(f"COPY ghosts FROM '{source}'")
    primary.sql("CHECKPOINT")
    rows = int(primary.sql("SELECT count(*) FROM ghosts"))
    assert rows == 270
    assert blocks_of(primary, "ghosts") > 270, "there must be pages that no WAL knows"


@pytest.mark.parametrize("checkpoint", [False, True], ids=["one-summary", "two-summaries"])
def test_deleted_rows_do_not_come_back(scene, checkpoint):
    primary = with_deleted_rows(scene)
    if checkpoint:
        primary.sql("CHECKPOINT")
    extend_with_zeros(scene, primary)
    done = scene.make_over(SUMMARY, "-v")
    figures(done)
    scene.is_complete()
    standby = scene.follows()
    standby.start()
    assert standby.sql("SELECT count(*), max(id) FROM ghosts") == primary.sql("SELECT count(*), max(id) FROM ghosts")
    assert blocks_of(standby, "ghosts") >= 270
    standby.stop()


# ---- interrupted runs


def test_killed_and_gone_on(scene):
    stopped_standby(scene)
    scene.change()
    scene.quiesce()
    running = scene.start_make_over(SUMMARY, "-v", "--max-rate", "2M")
    wait_until(lambda: os.path.exists(scene.path("pgr_seed.state")) and "checkpoint completed" in running.err,
               "the run has begun to change the directory")
    wait_until(lambda: any(name.endswith(".pgrtmp") for _, _, names in os.walk(scene.target) for name in names)
               or running.process.poll() is not None, "files come")
    running.kill()
    running.wait()
    scene.does_not_start()
    done = scene.make_over("--delta", "-v")
    assert "going on with what an unfinished run has left" in done.err
    figures(done)
    scene.is_right()
