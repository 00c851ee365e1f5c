"""pgr-basebackup --delta is interrupted: the directory never starts unless it is right, and the same command goes on.

PGR_KILLS  kills at random moments in each of the tests that have some (default 4; `make check-kills`: 200)
PGR_SEED   what was drawn at random, to be repeated
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

from pgrtest import powercut
from pgrtest.cuts import Round
from pgrtest.delta import Scene
from pgrtest.oldcopies import SOUND
from pgrtest.place import wait_until
from pgrtest.programs import died_of, failed, gave_up, succeeded
from pgrtest.relay import Relay, socket_of
from pgrtest.server import HBA
from pgrtest.trees import PROBE, bytes_of, differences, picture

HASH = "--delta=hash"
KILLS = int(os.environ.get("PGR_KILLS", "4"))

# What a run makes and takes away around its work, and is no part of either the old or the new directory.
AROUND = {"pgr_seed.state", "pgr_seed.state.tmp", "global/pg_control.pgr", "backup_manifest", "backup_manifest.tmp", "postmaster.pid",
          "postmaster.opts", "backup_label", "backup_label.old"}


@pytest.fixture
def rng():
    """Tells the seed in the report of a failed test."""
    seed = int(os.environ.get("PGR_SEED") or random.randrange(1 << 32))
    print(f"PGR_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def scene(pg, clusters, run, tmp):
    return Scene(pg, clusters, run, tmp)


@pytest.fixture
def stale(scene):
    """A standby that was left behind; a tenth of it is to be fetched.  The primary is quiet."""
    SOUND["stale by minutes"](scene)
    scene.quiesce()
    return scene


def long(value):
    return pytest.param(value, marks=pytest.mark.long)


def percent(process):
    """(done, total) in kB of the last line of -P."""
    found = re.findall(r"(\d+)/(\d+) kB \(\d+%\)", process.err)
    return tuple(map(int, found[-1])) if found else (0, 1)


def wait_for_part(process, part):
    wait_until(lambda: percent(process)[0] >= part * percent(process)[1] or not process.running(), f"{part} is copied")
    assert process.running(), str(process)


def went_on(scene, *options, **kw):
    """The same command once more."""
    done = scene.make_over(*options, **kw)
    scene.is_right()
    return done


def backup_stop(scene):
    """The text by which a relay knows the session that holds the backup, when all is copied."""
    return "FROM pg_backup_stop(" if scene.pg.major >= 15 else "FROM pg_stop_backup("


# ---- where it stops


@pytest.mark.every_major
@pytest.mark.parametrize("number", [long(signal.SIGINT), long(signal.SIGTERM), signal.SIGKILL], ids=lambda s: s.name)
def test_a_signal_at_half_of_a_fresh_copy(pg, scene, number):
    """What was there is not sent again, but for a few percent."""
    scene.quiesce()
    process = scene.start_make_over(HASH, "-P", "-r", "12M", "-X", "none")
    wait_for_part(process, 0.5)
    process.signal(number)
    died_of(process, number)
    done, total = percent(process)
    scene.does_not_start()
    with Relay(scene.place, socket_of(scene.primary)) as relay:
        scene.make_over(HASH, "-X", "none", server=relay)
        passed = relay.stop()["from_server"]
    size = bytes_of(scene.target)
    assert passed <= (1.05 - done / total) * size, f"{passed} bytes of {size} where {done} of {total} kB were there"
    scene.is_complete(wal=False)
    scene.equals_a_fresh_copy()


@pytest.mark.parametrize("number", [signal.SIGINT, long(signal.SIGTERM), long(signal.SIGKILL)], ids=lambda s: s.name)
def test_a_signal_while_it_is_made_over(stale, number):
    scene = stale
    process = scene.start_make_over(HASH, "-r", "2M")
    wait_until(lambda: not os.path.exists(scene.path("global", "pg_control")) or not process.running(), "it has begun")
    time.sleep(0.5)
    process.signal(number)
    died_of(process, number)
    scene.does_not_start()
    went_on(scene, HASH)


def test_it_says_how_to_go_on(stale):
    scene = stale
    with Relay(scene.place, socket_of(scene.primary), when=backup_stop(scene), cut_after=50) as relay:
        process = scene.start_make_over(HASH, server=relay)
        assert process.wait() == 1, str(process)
    assert re.search("same command|again", process.err), str(process)
    went_on(scene, HASH)


def test_stops_before_anything_was_changed(stale):
    """While the server makes its checkpoint: it is the old standby still, and starts as such."""
    scene = stale
    scene.primary.configure(checkpoint_completion_target="0.9")
    scene.primary.reload()
    scene.primary.sql("UPDATE big SET a = b")
    before = picture(scene.target)
    process = scene.start_make_over(HASH, "-v", "-c", "spread")
    process.wait_for_text("checkpoint")
    process.signal(signal.SIGINT)
    died_of(process, signal.SIGINT)
    assert picture(scene.target) == before
    scene.follows()


@pytest.mark.parametrize("number", [long(signal.SIGTERM), signal.SIGKILL], ids=lambda s: s.name)
def test_with_a_slot_that_the_run_makes(stale, number):
    """The same command has -C in it."""
    scene = stale
    options = [HASH, "-C", "-S", "mine"]
    process = scene.start_make_over(*options, "-r", "1M")
    wait_until(lambda: not os.path.exists(scene.path("global", "pg_control")) or not process.running(), "it has begun")
    process.signal(number)
    died_of(process, number)
    wait_until(lambda: not scene.primary.senders(), "the server has noticed")
    went_on(scene, *options)
    assert scene.primary.slots() == ["mine"]


def test_configuration_of_a_fresh_copy_is_not_what_was_left_of_it(scene):
    """An interrupted run's postgresql.conf is no local configuration that one would keep."""
    process = scene.start_make_over(HASH, "-r", "8M", "-P")
    wait_for_part(process, 0.3)
    process.signal(signal.SIGKILL)
    process.wait()
    for name in ("postgresql.conf", "pg_hba.conf"):
        scene.place.write(scene.path(name), "# the beginn")
    scene.quiesce()
    went_on(scene, HASH)


@pytest.mark.long
def test_configuration_is_kept_by_the_run_that_goes_on(stale):
    scene = stale
    with open(scene.path("postgresql.conf"), "a", encoding="utf-8") as f:
        f.write("# ours\n")
    process = scene.start_make_over(HASH, "-r", "1M")
    wait_until(lambda: not os.path.exists(scene.path("global", "pg_control")) or not process.running(), "it has begun")
    process.signal(signal.SIGKILL)
    process.wait()
    scene.make_over(HASH)
    with open(scene.path("postgresql.conf"), encoding="utf-8") as f:
        assert f.read().endswith("# ours\n")
    scene.is_right(but={"postgresql.conf"})


@pytest.mark.long
def test_another_server_does_not_go_on(stale):
    """What a run has begun with one cluster is not continued with another."""
    scene = stale
    process = scene.start_make_over(HASH, "-r", "1M")
    wait_until(lambda: not os.path.exists(scene.path("global", "pg_control")) or not process.running(), "it has begun")
    process.signal(signal.SIGKILL)
    process.wait()
    other = scene.clusters.adopt(scene.pg, scene.clusters.initdb(scene.pg)).start()
    before = picture(scene.target)
    failed(scene.start_make_over(HASH, server=other), scene.target, "system identifier")
    assert picture(scene.target) == before
    went_on(scene, HASH)


@pytest.mark.every_major
def test_by_summaries(pg, stale):
    """A killed run is gone on with: with summaries again, and with hashes."""
    if pg.major < 17:
        pytest.skip("WAL summaries came with 17")
    scene = stale
    for way in ("summary", "hash"):
        scene.primary.sql("UPDATE big SET a = b WHERE id % 7 = 1")
        scene.quiesce()
        process = scene.start_make_over("--delta=summary", "-r", "2M")
        wait_until(lambda: not os.path.exists(scene.path("global", "pg_control")) or not process.running(), "it has begun")
        time.sleep(0.5)
        process.signal(signal.SIGKILL)
        died_of(process, signal.SIGKILL)
        scene.does_not_start()
        went_on(scene, f"--delta={way}")


# ---- kills at random moments


class Killer:
    """Runs that are killed at any moment, and what must be true of the directory each time."""

    def __init__(self, scene, rng, options=(HASH,)):
        self.scene, self.rng, self.options = scene, rng, options
        self.old = f"{scene.target}.old"
        self.seconds = self.finished = self.untouched = 0
        self._keep()

    def tops(self):
        return [self.scene.target, *self.scene.spaces.values()]

    def _keep(self):
        for top in self.tops():
            if os.path.lexists(top):
                self.scene.place.copy_tree(top, f"{top}.old")

    def put_back(self):
        for top in self.tops():
            shutil.rmtree(top, ignore_errors=True)
            if os.path.lexists(f"{top}.old"):
                self.scene.place.copy_tree(f"{top}.old", top)

    def measure(self):
        """One run to its end, which the others are compared with."""
        begun = time.monotonic()
        self.scene.make_over(*self.options)
        self.seconds = time.monotonic() - begun
        self.scene.is_complete()
        for top in self.tops():
            self.scene.place.copy_tree(top, f"{top}.good")
        self.scene.equals_a_fresh_copy()

    def kill(self):
        process = self.scene.start_make_over(*self.options)
        time.sleep(self.rng.uniform(0, 1.1 * self.seconds))
        process.signal(signal.SIGKILL)
        process.wait()
        for pid in process.children():
            os.kill(pid, signal.SIGKILL)
        self.judge(process)

    def judge(self, process):
        """It is as it was, or complete; or it has no pg_control, and so no server starts with it."""
        target = self.scene.target
        if not os.path.lexists(os.path.join(target, "global", "pg_control")):
            return
        new, old = self._differ(".good"), self._differ(".old")
        assert not new or not old, f"would start, and is wrong: not as then {new[:5]}, nor as before {old[:5]}\n{process}"
        self.finished += not new
        self.untouched += bool(new)

    def _differ(self, suffix):
        """A tablespace's empty directory may be there before anything is changed."""
        return [text for top in self.tops() for text in differences(top, f"{top}{suffix}", but={*AROUND, ""})]


def rounds(scene, rng, count=KILLS):
    killer = Killer(scene, rng)
    killer.measure()
    for n in range(count):
        if n == 0 or rng.random() < 0.6:  # otherwise a run is killed that went on after a kill
            killer.put_back()
        killer.kill()
        if n % 10 == 0 and not os.path.lexists(scene.path("global", "pg_control")) and os.path.isdir(scene.target):
            scene.does_not_start()
        if n % 5 == 4:
            scene.make_over(*killer.options)
            scene.is_complete()
            killer.judge(None)
    print(f"{count} kills; complete by then: {killer.finished}, not begun: {killer.untouched}")
    went_on(scene, *killer.options)


@pytest.mark.long
def test_kills_of_a_fresh_copy(scene, rng):
    scene.quiesce()
    rounds(scene, rng)


def test_kills_of_a_run_over_a_stale_standby(stale, rng):
    rounds(stale, rng)


@pytest.mark.long
def test_kills_with_tablespaces(scene, rng):
    gone = scene.space("gone")
    scene.space("stays")
    scene.seed()
    scene.primary.sql("DROP TABLE in_gone", "DROP TABLESPACE gone")
    del scene.spaces[gone]
    scene.change()
    scene.space("comes")
    scene.quiesce()
    rounds(scene, rng)


# ---- every moment of one run, and power cuts


class Moments:
    """One run with a journal: the directory as it was at any moment of it, or as a power cut would have left it."""

    def __init__(self, scene, log):
        self.scene = scene
        start = powercut.snapshot(scene.target)
        self.old = {path: content for path, _, content in start if path}
        scene.place.write(log, "")
        command = [*powercut.preload(scene.place, scene.target, log), scene.run.basebackup_path]
        self.round = Round(start, log)
        succeeded(scene.run.start(*command, *scene.command(HASH)))
        self.journal = self.round.journal()
        powercut.assert_complete(self.round.disk().play(self.journal), scene.target)
        self.good = {path: content for path, _, content in powercut.snapshot(scene.target) if path}

    def some(self, rng, count):
        """(record, disk there) at the start, at the end, around changes of names that matter, and anywhere."""
        n = len(self.journal)
        special = {at + d for at, (op, _) in enumerate(self.journal.records) for d in (0, 1)
                   if op.kind in powercut.NAME_CHANGES
                   and any("pgr" in str(name) or str(name) in ("pg_control", "backup_manifest", "backup_manifest.tmp",
                                                               "backup_label", "postmaster.pid", "standby.signal")
                           for name in (op.name, op.name2))}
        chosen = special | set(range(max(0, n - 40), n + 1)) | {rng.randint(0, n) for _ in range(count)}
        disk = self.round.disk()
        for at in sorted(at for at in chosen if at <= n):
            yield at, disk.play(self.journal, at)

    def judge(self, image, what):
        """No pg_control, or all is as it was, or all is as it is to be."""
        if "global/pg_control" not in image:
            # the old manifest goes after the old pg_control, the new one comes after the new one
            assert image.get("backup_manifest") in (None, self.old.get("backup_manifest")), what
            return "unfinished"
        old, new = self._differ(image, self.old), self._differ(image, self.good)
        assert not old or not new, f"{what}: would start, and is wrong: not as before {old[:5]}, nor as then {new[:5]}"
        if "backup_manifest" in image and not new and old:
            assert image["backup_manifest"] == self.good["backup_manifest"], what
        return "untouched" if not old else "complete"

    @staticmethod
    def _differ(image, other):
        return [path for path in image.keys() | other.keys() if path not in AROUND and not path.startswith(("pg_wal/archive", PROBE))
                and not (path.startswith("pg_wal/") and path not in other)  # more WAL is no harm
                and image.get(path, b"missing") != other.get(path, b"missing")]


def examine(moments, rng, count):
    seen = {"unfinished": 0, "untouched": 0, "complete": 0}
    for at, disk in moments.some(rng, count):
        seen[moments.judge(disk.now(), f"kill at record {at}")] += 1
        for names in powercut.NAMES:
            data = rng.choice(powercut.DATA)
            image = disk.cut(rng, names, data)
            seen[moments.judge(image, f"cut at record {at} of {len(moments.journal)} ({names}, {data})")] += 1
    return seen


def goes_on_after_a_cut(scene, moments, rng, at):
    disk = moments.round.disk().play(moments.journal, at)
    powercut.materialise(disk.cut(rng, rng.choice(powercut.NAMES), rng.choice(powercut.DATA)), scene.target, scene.place)
    scene.make_over(HASH)
    scene.is_complete()
    scene.equals_a_fresh_copy()


@pytest.mark.parametrize("before", ["nothing", "stale"])
def test_every_moment(scene, rng, tmp, before):
    """Also between the last file and the manifest, with and without the power cut.

    And the next run makes of it what it should be, whatever of the unfinished run's writes has reached the disk.
    """
    if before == "nothing":
        scene.place.give(os.mkdir(scene.target) or scene.target)
        scene.primary.sql("DROP DATABASE doomed", "DROP TABLE big")
    else:
        scene.cold_copy()
        scene.change()
    scene.quiesce()
    moments = Moments(scene, os.path.join(tmp, "log"))
    seen = examine(moments, rng, 10 * KILLS)
    assert seen["unfinished"] and seen["complete"], seen
    assert before == "nothing" or seen["untouched"], seen
    names = [at for at, (op, _) in enumerate(moments.journal.records) if op.name == "postgresql.conf"]
    for at in [*names[:1], *(rng.randint(0, len(moments.journal)) for _ in range(-(-KILLS // 4)))]:
        goes_on_after_a_cut(scene, moments, rng, at)
    scene.follows()


@pytest.mark.parametrize("fault", ["write:200:ENOSPC", "sync:3:EIO", "dirsync:2:EIO", *map(long, (
    "write:20:EIO", "rename:1:EIO", "rename:2:EIO", "create:10:ENOSPC", "write@.state:1:EIO"))])
def test_a_failing_disk(stale, fault):
    """The run fails (or can do without); the directory is as it was, or does not start, or is right."""
    scene = stale
    before = picture(scene.target)
    process = scene.run.start(*powercut.preload(scene.place, scene.target, fail=fault), scene.run.basebackup_path,
                              *scene.command(HASH))
    if process.wait() != 0:
        gave_up(process, "Input/output error" if fault.endswith("EIO") else "No space left")
        if os.path.exists(scene.path("global", "pg_control")):
            after = picture(scene.target)
            changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
            assert changed <= AROUND, changed
        else:
            scene.does_not_start()
    else:
        scene.is_complete()
    went_on(scene, HASH)


# ---- full disks


def grow(disk, megabytes):
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", disk], check=True)


@pytest.mark.parametrize("before", ["nothing", long("stale")])
def test_disk_is_full(scene, small_disk, before):
    disk = small_disk(25 if before == "nothing" else 400)
    scene.target = os.path.join(disk, "standby")
    if before == "stale":
        scene.seed()
        scene.primary.sql("CREATE TABLE new AS SELECT i, md5(i::text) FROM generate_series(1, 200000) i")
        grow(disk, (shutil.disk_usage(disk).used >> 20) + 5)
    scene.quiesce()
    process = scene.start_make_over(HASH, "-X", "none")
    failed(process, f"{scene.target}/", "No space left")
    scene.does_not_start()
    grow(disk, 400)
    scene.make_over(HASH)
    scene.is_complete()
    grow(disk, 1000)
    scene.equals_a_fresh_copy()
    scene.follows().stop()


# ---- lost connections


@pytest.mark.parametrize("position", [long(1), 30_000, long(1_000_000)])
def test_lanes_are_lost_for_good(stale, position):
    scene = stale
    with Relay(scene.place, socket_of(scene.primary), when="COPY (SELECT", cut_after=position, times=1000) as relay:
        process = scene.start_make_over(HASH, server=relay)
        if process.wait() == 0:
            pytest.skip("so much did not pass")
        gave_up(process, "server closed the connection")
    if not os.path.exists(scene.path("global", "pg_control")):
        scene.does_not_start()
    went_on(scene, HASH)


@pytest.mark.every_major
@pytest.mark.parametrize("position", [long(1), 50_000, long(300_000)])
def test_a_lane_is_lost(stale, position):
    """One that reads hashes, or what is fetched: what it had to do is done by another or by itself later."""
    scene = stale
    with Relay(scene.place, socket_of(scene.primary), when="COPY (SELECT", cut_after=position, times=2) as relay:
        process = scene.start_make_over(HASH, "-v", server=relay)
        if process.wait() != 0:
            gave_up(process, "server closed the connection")
            scene.make_over(HASH)
    scene.is_right()


def test_retry(stale):
    """The session that holds the backup is lost: everything begins anew, and nothing is fetched twice."""
    scene = stale
    with Relay(scene.place, socket_of(scene.primary), when=backup_stop(scene), cut_after=50, times=2) as relay:
        done = scene.make_over(HASH, "--retry=3", server=relay)
    assert "server closed the connection" in done.err, str(done)
    scene.is_right()


# ---- a server that ends its sessions, and an administrator who does


def states_of_threads(pid):
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8", errors="replace") as f:
            yield f.read().rpartition(")")[2].split()[0]


@contextlib.contextmanager
def frozen(process):
    """What happens meanwhile is over when it hears of it."""
    process.signal(signal.SIGSTOP)
    wait_until(lambda: not set(states_of_threads(process.pid)) - set("TtZ"), "all threads are stopped")
    yield
    process.signal(signal.SIGCONT)


class Copier:
    """A role that may replicate, and no more; without `sql` it can open no other session either."""

    def __init__(self, scene, sql=True):
        self.primary = scene.primary
        self.primary.sql("CREATE ROLE copier LOGIN REPLICATION")
        if not sql:
            self.primary.set_hba(f"local all copier reject\nhost all copier 127.0.0.1/32 reject\n{HBA}")
            self.primary.reload()
            wait_until(lambda: self.primary.try_sql("SELECT 1", user="copier") is None, "the role is refused")

    def address(self):
        return self.primary.address("copier")


class Hosts:
    """Several servers in one connection string."""

    def __init__(self, *servers):
        self.servers = servers

    def address(self):
        hosts, ports = (",".join(str(getattr(s, name)) for s in self.servers) for name in ("host", "port"))
        return ["-d", f"host={hosts} port={ports} user=postgres"]


def begun(scene, *options, server=None, rate="8M"):
    """A run with --retry that is under way."""
    process = scene.start_make_over(*options, "--retry=10", "-P", "-r", rate, "-X", "none", server=server)
    wait_for_part(process, 0.2)
    return process


def end_well(scene, process):
    assert process.wait() == 0, str(process)
    assert "trying again in" in process.err, str(process)
    scene.quiesce()
    went_on(scene, HASH)


def test_retry_of_a_fresh_copy_while_the_server_restarts(scene):
    """Its postmaster is killed; what sessions hear of that depends on what they were doing."""
    scene.quiesce()
    process = scene.start_make_over(HASH, "--retry=10", "-P", "-r", "12M")
    wait_for_part(process, 0.5)
    scene.primary.kill()
    scene.primary.start()
    end_well(scene, process)


@pytest.mark.every_major
def test_a_restart_that_is_over_before_we_ask(scene):
    """The server says to the session that holds the backup what an administrator would have it say."""
    process = begun(scene, HASH)
    with frozen(process):
        scene.primary.restart()
    end_well(scene, process)
    assert "terminating connection due to administrator command" in process.err, str(process)


@pytest.mark.parametrize("sql", [True, long(False)], ids=["sql", "no sql"])
def test_a_server_that_is_down_when_we_ask(scene, sql):
    """Of a single stream."""
    process = begun(scene, "--delta", server=Copier(scene, sql))
    with frozen(process):
        scene.primary.stop()
    process.wait_for_text("trying again in")
    scene.primary.start()
    end_well(scene, process)


def test_a_failover_to_another_host(scene):
    """The other one takes sessions, and is not the one that ended ours."""
    target, first = scene.target, scene.primary
    scene.target = os.path.join(scene.tmp, "second")
    scene.seed()
    second = scene.standby()
    scene.target = target
    process = begun(scene, HASH, server=Hosts(first, second))
    with frozen(process):
        first.stop()
        second.promote()
    scene.primary = second
    end_well(scene, process)


def ended_by_an_administrator(scene, process, query):
    assert scene.primary.sql(f"SELECT pg_terminate_backend(pid) FROM ({query}) v") == "t"
    failed(process, "terminating connection due to administrator command")
    assert "trying again" not in process.err, str(process)


SESSIONS = {
    "the one that holds the backup":
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgr-basebackup' AND backend_type = 'client backend' "
        "ORDER BY backend_start LIMIT 1",
    "the one with the WAL": "SELECT pid FROM pg_stat_replication WHERE state = 'streaming'",
}


@pytest.mark.every_major
@pytest.mark.parametrize("session", SESSIONS)
def test_an_administrators_word(scene, session):
    process = scene.start_make_over(HASH, "--retry=10", "-P", "-r", "4M")
    wait_for_part(process, 0.1)
    wait_until(lambda: scene.primary.sql(SESSIONS[session]), "the session is there")
    ended_by_an_administrator(scene, process, SESSIONS[session])


@pytest.mark.parametrize("sql", [True, long(False)], ids=["sql", "no sql"])
def test_an_administrators_word_to_a_single_stream(scene, sql):
    process = begun(scene, "--delta", server=Copier(scene, sql), rate="2M")
    ended_by_an_administrator(scene, process, "SELECT pid FROM pg_stat_replication WHERE state = 'backup'")


@pytest.mark.long
def test_retries_have_an_end(stale):
    scene = stale
    with Relay(scene.place, socket_of(scene.primary), when=backup_stop(scene), cut_after=50, times=1000) as relay:
        process = scene.start_make_over(HASH, "--retry=1", server=relay)
        gave_up(process, "server closed the connection")
        connections = relay.stop()["connections"]
    assert connections < 40
    went_on(scene, HASH)


def test_what_is_not_worth_a_retry(scene):
    """What an administrator has decided, and what is wrong here."""
    scene.primary.sql("CREATE ROLE nobody LOGIN")
    begun = len(scene.primary.log_text())
    process = scene.run.start_basebackup("-D", scene.target, HASH, "--retry=5", "-c", "fast",
                                         *scene.primary.address("nobody"))
    failed(process)
    assert scene.primary.log_text()[begun:].count("FATAL") <= 2
    scene.place.write(scene.target, "a file")
    failed(scene.start_make_over(HASH, "--retry=5"), scene.target)


def test_no_retry_after_a_signal(stale):
    scene = stale
    process = scene.start_make_over(HASH, "--retry=5", "-r", "1M")
    wait_until(lambda: not os.path.exists(scene.path("global", "pg_control")) or not process.running(), "it has begun")
    process.signal(signal.SIGINT)
    died_of(process, signal.SIGINT)


@pytest.mark.long
def test_a_signal_while_it_waits_to_try_again(scene):
    """The back-off ends at once."""
    scene.seed()
    with Relay(scene.place, f"{scene.place.sockets}/.s.PGSQL.1") as nobody:
        process = scene.start_make_over(HASH, "--retry=1000", server=nobody)
        process.wait_for_text("server closed the connection")
        process.signal(signal.SIGTERM)
        died_of(process, signal.SIGTERM)
