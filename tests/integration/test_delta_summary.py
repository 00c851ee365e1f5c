"""--delta=summary: an old copy brought up to date with the server's WAL summaries (17 and later)."""

import os
import re
import signal

import pytest

from pgrtest import installs
from pgrtest.delta import Scene
from pgrtest.place import wait_until
from pgrtest.programs import failed
from pgrtest.relay import Balancer
from pgrtest.trees import picture

pytestmark = pytest.mark.every_major

PAGE = 8192
SUMMARY = "--delta=summary"
KEPT = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"]


def tree(top):
    """What lies in it, with sizes and times of change."""
    found = {}
    for path, directories, files in os.walk(top):
        for name in directories + files:
            entry = os.lstat(os.path.join(path, name))
            found[os.path.join(path, name)] = (entry.st_ino, entry.st_mtime_ns, entry.st_size)
    return found


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
    scene.is_right(but=KEPT)


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
    A table that is cut and then extended by pages that no WAL knows: COPY extends by many pages at once, and those that
    it does not fill stay zeros.  (With few buffers it extends by few.)
    """
    primary = scene.primary
    primary.sql("ALTER SYSTEM SET shared_buffers = '128MB'")
    primary.restart()
    primary.sql("CREATE TABLE ghosts (id int, pad text) WITH (autovacuum_enabled = off)",
                "ALTER TABLE ghosts ALTER pad SET STORAGE PLAIN",
                "INSERT INTO ghosts SELECT i, repeat('x', 1000) FROM generate_series(1, 4900) i", "CHECKPOINT")
    assert blocks_of(primary, "ghosts") == 700
    scene.seed()
    primary.sql("DELETE FROM ghosts WHERE id > 700", "VACUUM (TRUNCATE) ghosts")
    assert blocks_of(primary, "ghosts") == 100
    return primary


def extend_with_zeros(scene, primary):
    source = scene.place.write(os.path.join(scene.tmp, "rows"), "".join(f"{i}\t{'y' * 1000}\n" for i in range(5000, 7000)))
    primary.sql(f"COPY ghosts FROM '{source}'", "CHECKPOINT")
    used = int(primary.sql("SELECT max((ctid::text::point)[0]) + 1 FROM ghosts"))
    blocks = blocks_of(primary, "ghosts")
    assert blocks > used + 20, f"there must be pages that no WAL knows, but {used} of {blocks} are used"


@pytest.mark.parametrize("summaries", [1, 2])
def test_deleted_rows_do_not_come_back(scene, summaries):
    """Cut and extended in one summary, the file comes as an increment; in two of them it comes whole."""
    primary = with_deleted_rows(scene)
    if summaries == 2:
        primary.sql("CHECKPOINT")
    extend_with_zeros(scene, primary)
    figures(scene.make_over(SUMMARY, "-v"))
    scene.is_complete()
    standby = scene.clusters.adopt(scene.pg, scene.target).start()
    standby.wait_replayed(primary.lsn())
    question = "SELECT count(*), sum(id), pg_relation_size('ghosts') FROM ghosts"
    assert standby.sql(question) == primary.sql(question)


# ---- interrupted runs


def kill_half_way(scene, running):
    """SIGKILL when files have come; nothing that was made then starts."""
    running.wait_for_text("checkpoint completed")
    wait_until(lambda: os.path.exists(scene.path("pgr_seed.state")) or not running.running(), "the run has begun")
    wait_until(lambda: any(name.endswith(".pgrtmp") for _, _, names in os.walk(scene.target) for name in names)
               or not running.running(), "files come")
    assert running.running(), str(running)
    running.signal(signal.SIGKILL)
    running.wait()
    scene.does_not_start()


def test_killed_and_gone_on(scene):
    stopped_standby(scene)
    scene.change()
    scene.quiesce()
    for _ in range(2):
        kill_half_way(scene, scene.start_make_over(SUMMARY, "-v", "--max-rate", "2M"))
        scene.primary.sql("UPDATE big SET b = a WHERE id % 5000 = 0")
    scene.quiesce()
    done = scene.make_over("--delta", "-v")
    assert "going on with what an unfinished run has left" in done.err
    patched, _, _, _ = figures(done)
    assert patched > 100, str(done)
    scene.is_right(but=KEPT)


def relations(scene):
    """Files that came whole, of relations that are not empty."""
    return [name for path, _, names in os.walk(scene.path("base")) for name in names
            if name.isdigit() and os.path.getsize(os.path.join(path, name)) > 0]


def test_fresh_copy_gone_on(scene):
    """Of a role that may only replicate: what has come whole is not copied again."""
    scene.primary.sql("CREATE ROLE copier LOGIN REPLICATION")
    command = ["-D", scene.target, "-R", "--delta", "-v", "-c", "fast", *scene.primary.address(user="copier")]
    running = scene.run.start_basebackup(*command, "--max-rate", "8M")
    running.wait_for_text("checkpoint completed")
    wait_until(lambda: len(relations(scene)) > 150 or not running.running(), "files have come")
    running.signal(signal.SIGKILL)
    running.wait()
    scene.does_not_start()
    scene.change()
    scene.quiesce()
    done = scene.run.basebackup(*command)
    patched, _, _, saved = figures(done)
    assert patched > 50 and saved > 1_000_000, str(done)
    scene.is_right()


# ---- what cannot be done this way


def refused(scene, *words, options=(SUMMARY,)):
    """With the way forced it is an error, which changes nothing; otherwise another way is taken."""
    before = sorted(os.listdir(scene.target))
    failed(scene.start_make_over(*options), "--delta=summary cannot be used", *words)
    assert sorted(os.listdir(scene.target)) == before


def test_crashed_former_primary(scene):
    """It may have written what nobody else has."""
    old = scene.primary
    scene.seed()
    standby = scene.standby()
    standby.promote()
    old.sql("UPDATE big SET b = 'only here'")
    old.kill()
    scene.target, scene.primary = old.data, standby
    scene.change()
    scene.quiesce()
    refused(scene, "it was a primary and not shut down")
    done = scene.make_over("--delta", "-v", "--no-keep")
    assert "WAL summaries cannot be used: it was a primary and not shut down" in done.err
    scene.follows()


def test_standby_amid_its_backup(scene):
    """Its files are of a primary that went on where the one that it is to follow did not, and it never saw their end."""
    scene.seed()
    first, second = scene.primary, scene.standby()
    first.sql("CHECKPOINT")
    redo, checkpoint, segment = first.rows("SELECT redo_lsn, checkpoint_lsn, pg_walfile_name(redo_lsn) "
                                           "FROM pg_control_checkpoint()")[0]
    first.switch_wal()
    first.sql("CREATE TABLE one_more ()")  # a timeline that begins with a segment has a gap in its summaries
    second.wait_replayed(first.lsn())
    second.stop()
    first.sql("UPDATE big SET b = 'lost' WHERE id % 5000 = 1")
    first.stop()
    label = (f"START WAL LOCATION: {redo} (file {segment})\nCHECKPOINT LOCATION: {checkpoint}\n"
             "BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-01 00:00:00 UTC\nLABEL: x\n"
             "START TIMELINE: 1\n")
    scene.place.write(os.path.join(first.data, "backup_label"), label)
    scene.place.write(os.path.join(first.data, "standby.signal"), "")
    for name in os.listdir(first.wal_path()):
        if len(name) == 24 and name > segment:
            os.unlink(first.wal_path(name))
    first.launch()
    wait_until(lambda: "redo starts at" in first.log_text() or not first.running(), "it recovers")
    first.stop("immediate")
    assert not os.path.exists(os.path.join(first.data, "backup_label"))
    second.start()
    second.promote()
    scene.target, scene.primary = first.data, second
    scene.change()
    scene.quiesce()
    refused(scene, "it has not recovered to the end of the backup that it was started from")
    scene.make_over("--delta", "-v", "--no-keep")
    scene.follows()


def test_ahead_of_a_standby(scene):
    """A standby that lags behind has received what the old copy has replayed, but holds less of it."""
    scene.seed()
    copy, scene.target = scene.target, scene.path("..", "slow")
    scene.seed()
    slow, scene.target = scene.standby(), copy
    ahead = scene.standby()
    slow.sql("SELECT pg_wal_replay_pause()")
    wait_until(lambda: slow.sql("SELECT pg_get_wal_replay_pause_state()") == "paused", "it has paused")
    scene.primary.sql("UPDATE big SET b = 'new' WHERE id % 5000 = 1")
    end = scene.primary.lsn()
    ahead.wait_replayed(end)
    ahead.stop()
    wait_until(lambda: slow.sql(f"SELECT pg_last_wal_receive_lsn() >= '{end}'") == "t", "it has received that")
    primary, scene.primary = scene.primary, slow
    refused(scene, "its minimum recovery point", "lies behind")
    slow.sql("SELECT pg_wal_replay_resume()")
    primary.sql("CHECKPOINT")  # the summarizer writes down what it has at the next one
    slow.wait_replayed(primary.lsn())
    figures(scene.make_over(SUMMARY, "-v"))
    scene.primary = primary
    scene.follows()


def test_server_that_was_put_back(scene):
    """To an older state of its disk: on the same timeline, it has another history since."""
    scene.seed()
    standby = scene.standby()
    old = scene.primary
    old.stop()
    snapshot = scene.clusters.copy_of(scene.pg, old.data)
    old.start()
    old.sql("UPDATE big SET b = 'lost' WHERE id % 5000 = 1")
    standby.wait_replayed(old.lsn())
    standby.sql("CHECKPOINT")  # all of it is on the disk; the last checkpoint was when the server was stopped
    end = standby.lsn()
    standby.stop("immediate")
    old.stop()
    scene.primary = snapshot.start()
    while scene.primary.sql(f"SELECT pg_current_wal_lsn() - '{end}' > 1000000") == "f":
        scene.change()
    scene.quiesce()
    done = scene.start_make_over(SUMMARY, "-v")
    assert done.wait() == 1, str(done)
    assert "the old copy was changed in ways that the server knows nothing of" in done.err, str(done)
    scene.does_not_start()
    refused(scene, "it does not say up to where it is complete")
    done = scene.make_over("--delta", "-v")
    assert "compared" in done.err, str(done)
    scene.is_right(but=KEPT)


def test_no_summaries(scene):
    scene.seed()
    scene.primary.sql("ALTER SYSTEM SET summarize_wal = off", "SELECT pg_reload_conf()")
    wait_until(lambda: scene.primary.sql("SHOW summarize_wal") == "off", "it is off")
    refused(scene, "summarize_wal is off")


def test_gap_in_the_summaries(scene):
    scene.seed()
    summaries = scene.primary.wal_path("summaries")
    scene.change()
    end = scene.primary.lsn()
    scene.primary.sql("CHECKPOINT")
    wait_until(lambda: scene.primary.sql(f"SELECT max(end_lsn) >= '{end}' FROM pg_available_wal_summaries()") == "t",
               "all of it is summarized")
    for name in os.listdir(summaries):
        os.unlink(os.path.join(summaries, name))
    scene.primary.sql("CREATE TABLE one_more ()", "CHECKPOINT")
    wait_until(lambda: os.listdir(summaries), "there is a new summary")
    refused(scene, "the server has no WAL summaries of timeline 1")


def test_from_a_standby_that_may_be_behind(scene):
    """What a killed run has copied may be newer than all that a standby has: only comparing tells."""
    stopped_standby(scene)
    primary, target = scene.primary, scene.target
    scene.target = os.path.join(scene.tmp, "between")
    scene.seed()
    between = scene.standby()
    scene.target = target
    scene.change()
    kill_half_way(scene, scene.start_make_over(SUMMARY, "-v", "--max-rate", "2M"))
    between.wait_replayed(primary.lsn())
    scene.primary = between
    refused(scene, "an earlier run may have copied from a server that was ahead of this one", "--delta=hash compares")
    done = scene.make_over("--delta", "-v")
    assert "WAL summaries cannot be used: an earlier run may have copied" in done.err, str(done)
    assert re.search(r"compared \S+ \S+ in \S+ files", done.err), str(done)
    scene.primary = primary
    scene.is_complete()
    scene.follows()


# ---- what a server refuses when it is asked for the backup


def make_late(scene):
    """A stale standby, and a primary with so much to write that a checkpoint that does not hurry waits for us."""
    stopped_standby(scene)
    scene.change()
    scene.quiesce()
    scene.primary.sql("UPDATE big SET a = b")
    for db in scene.databases():
        scene.primary.sql("VACUUM", db=db)
    return scene


@pytest.fixture
def late(scene):
    return make_late(scene)


def asked_for_a_backup(scene, process):
    wait_until(lambda: "checkpoint" in scene.primary.sql("SELECT phase FROM pg_stat_progress_basebackup")
               or not process.running(), "the server has been asked for a backup, and waits for its checkpoint")
    assert process.running(), str(process)


def summaries_go(scene, process):
    """The summaries are removed when the choice was made, and before the server looks at them."""
    asked_for_a_backup(scene, process)
    for name in os.listdir(scene.primary.wal_path("summaries")):
        os.unlink(os.path.join(scene.primary.wal_path("summaries"), name))
    scene.primary.sql("CHECKPOINT")


def test_summaries_that_go_meanwhile(late):
    """Whoever may compare compares, and keeps the slot that the run has made."""
    process = late.start_make_over("--delta", "-v", "-c", "spread", "-C", "-S", "mine")
    summaries_go(late, process)
    assert process.wait() == 0, str(process)
    assert "the server's WAL summaries cannot be used after all, all files are compared: " in process.err, str(process)
    assert "WAL summaries are required" in process.err, str(process)
    assert re.search(r"compared \S+ \S+ in \S+ files", process.err), str(process)
    assert process.err.count("replication slot") == 1 and late.primary.slots() == ["mine"], str(process)
    late.is_right(but=KEPT)


def test_summaries_that_go_meanwhile_without_grants(late):
    late.primary.sql("CREATE ROLE copier LOGIN REPLICATION")
    process = late.run.start_basebackup("-D", late.target, "-R", "--delta", "-c", "spread",
                                        *late.primary.address(user="copier"))
    summaries_go(late, process)
    assert process.wait() == 0, str(process)
    assert "the server's WAL summaries cannot be used after all: " in process.err, str(process)
    assert "is removed and copied anew, since it cannot be compared: role" in process.err, str(process)
    late.is_right(but=KEPT)


def test_summaries_that_go_meanwhile_and_are_insisted_on(late):
    before = picture(late.target)
    process = late.start_make_over(SUMMARY, "-c", "spread")
    summaries_go(late, process)
    failed(process, "WAL summaries are required", "--delta=hash needs no WAL summaries")
    assert picture(late.target) == before
    late.follows()


BEGUN_AGAIN = "the server's tablespaces have changed meanwhile, beginning again"


def test_no_place_to_spare(scene):
    """The session that has ended takes up the last place for a moment."""
    scene.primary.sql("ALTER SYSTEM SET max_wal_senders = 2")
    scene.primary.restart()
    late = make_late(scene)
    near = late.place.directory()
    late.spaces[near] = os.path.join(late.tmp, "near")
    process = late.start_make_over(SUMMARY, "-v", "-c", "spread")
    asked_for_a_backup(late, process)
    late.primary.sql(f"CREATE TABLESPACE near LOCATION '{near}'", "CHECKPOINT")
    assert process.wait() == 0, str(process)
    assert process.err.count(BEGUN_AGAIN) == 1, str(process)
    late.is_complete()


@pytest.mark.parametrize("way", ["--delta", SUMMARY])
def test_another_cluster_answers_meanwhile(late, way):
    """One name for several servers: nothing of another cluster comes here, by no other way either."""
    other = late.clusters.create(late.pg, summarize_wal="on").start()
    for server in (late.primary, other):
        server.sql("CREATE ROLE copier LOGIN REPLICATION")
    before = picture(late.target)
    answers = [late.primary]
    with Balancer(lambda n: answers[-1]) as name:
        process = late.run.start_basebackup("-D", late.target, "-R", way, "-v", "-c", "spread", *name.address(user="copier"))
        asked_for_a_backup(late, process)
        answers.append(other)
        late.primary.sql(f"CREATE TABLESPACE near LOCATION '{late.place.directory()}'", "CHECKPOINT")
        failed(process, BEGUN_AGAIN, "a connection led to another cluster than before", "Name a single host")
    assert picture(late.target) == before
    late.follows()


@pytest.mark.parametrize("way", ["--delta", SUMMARY])
def test_tablespaces_that_come_and_go_meanwhile(late, way):
    """What was asked before the backup is asked again, as often as it changes."""
    gone = late.space("gone")
    late.quiesce()
    late.primary.sql("UPDATE big SET b = a")
    near = late.place.directory()
    late.spaces[near] = os.path.join(late.tmp, "near")
    process = late.start_make_over(way, "-v", "-c", "spread")
    asked_for_a_backup(late, process)
    late.primary.sql(f"CREATE TABLESPACE near LOCATION '{near}'",
                     "CREATE TABLE in_near TABLESPACE near AS SELECT generate_series(1, 1000) AS i",
                     "DROP TABLE in_gone", "DROP TABLESPACE gone", "CHECKPOINT")
    del late.spaces[gone]
    assert process.wait() == 0, str(process)
    assert process.err.count(BEGUN_AGAIN) == 1, str(process)
    figures(process)
    late.is_complete()
    assert late.spaces[near] in late.links().values()
    late.follows()


def test_an_administrators_word_about_a_backup(late):
    """Whoever cancels the backup does not want another one."""
    process = late.start_make_over("--delta", "-c", "spread")
    wait_until(lambda: "checkpoint" in late.primary.sql("SELECT phase FROM pg_stat_progress_basebackup")
               or not process.running(), "the server has been asked for a backup")
    late.primary.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_basebackup")
    failed(process, "canceling statement due to user request")


def test_checksums_switched_off_here(scene):
    stopped_standby(scene)
    program, _ = installs.reader_of("pg_checksums", scene.pg.major)
    scene.place.call([program, "--disable", "-D", scene.target])
    refused(scene, "data checksum version is 0, the server's is 1")


# ---- what no increment mends


def test_bit_rot_in_what_is_kept(scene):
    scene.quiesce()
    stopped_standby(scene)
    path = scene.primary.sql("SELECT pg_relation_filepath('documents')")
    scene.primary.sql("CREATE TABLE one_more ()")
    with open(scene.path(path), "r+b") as f:
        f.seek(100)
        byte = f.read(1)
        f.seek(100)
        f.write(bytes([byte[0] ^ 1]))
    done = scene.start_make_over(SUMMARY)
    assert done.wait() == 1, str(done)
    assert f'file "{path}": 1 pages that were kept have a wrong checksum, it is removed' in done.err, str(done)
    assert f'the first is "{path}"' in done.err, str(done)
    scene.does_not_start()
    figures(scene.make_over(SUMMARY, "-v"))
    scene.is_right(but=KEPT)


def test_dry_run(scene):
    stopped_standby(scene)
    scene.change()
    before = tree(scene.target)
    done = scene.make_over(SUMMARY, "--dry-run")
    assert re.search(r"could be built upon: \d+ files, \d+ bytes", done.out), str(done)
    assert tree(scene.target) == before
