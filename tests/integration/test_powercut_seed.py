"""pgr-basebackup and power cuts: no directory that starts and is wrong, the same command goes on, what is done stays.

One run of the program serves for many cuts: they are made of its journal (pgrtest/powercut.py has the model).

PGR_SEED  what was drawn at random, to be repeated (the threads of a run take no notice of it)
PGR_CUTS  cuts of the long test of --delta=hash (default 300); a third of it for each of the others
"""

import os
import random
import re

import pytest

from pgrtest import content, installs, powercut
from pgrtest.checks import start_standby, verify_backup
from pgrtest.delta import FAST, Scene
from pgrtest.programs import died_of, succeeded
from pgrtest.seedcuts import STANDBY, Ground, Run, assert_like_fresh

CUTS = int(os.environ.get("PGR_CUTS", "300"))
JUDGED = 8  # so many cuts are looked at for each one that a run goes on from
WAYS = {"hash": ["--delta=hash"], "full": ["--delta", "-j1"], "summary": ["--delta=summary"]}


@pytest.fixture
def rng():
    """Tells the seed in the report of a failed test."""
    seed = int(os.environ.get("PGR_SEED") or random.randrange(1 << 32))
    print(f"PGR_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def base(place):
    """For disks whose power is cut: there are many syncs, and what they do is the journal's business."""
    path = place.directory(memory=True)
    yield path
    place.discard(path)


class Cutter:
    """A quiet primary, and a disk on which one command makes a copy of it, from several beginnings."""

    def __init__(self, pg, clusters, run, tmp, base, rng, options):
        self.pg, self.clusters, self.run, self.rng = pg, clusters, run, rng
        self.scene = Scene(pg, clusters, run, tmp)
        self.place, self.primary = self.scene.place, self.scene.primary
        self.ground = Ground(self.place, base)
        self.scene.target = self.ground.target
        self.options = [*options, "--waldir", self.ground.named("wal")]
        self.log = os.path.join(base, "log")
        self.beginnings = {"nothing": ({}, None)}  # {name: (image, inode of the data directory)}
        self.operations = {}
        self.seen = {"unfinished": 0, "untouched": 0, "complete": 0}
        self.gone_on = self.started = 0
        self.fresh = self.content = None

    # ---- what there is

    def fill(self, stale=True):
        """A small database with a tablespace; then an old copy, of a time when there was another one."""
        self.primary.sql("DROP DATABASE doomed", "DROP TABLE big",
                         "CREATE TABLE big AS SELECT i AS id, md5(i::text) AS a, md5(i::text) AS b FROM generate_series(1, 3000) i")
        self._space("near")
        if stale:
            self._old_copy(self._space("gone"))
        self.scene.quiesce()
        self.content = content.fingerprint(self.primary)
        self.scene.quiesce()
        self.fresh = self._fresh_copy()
        return self

    def _space(self, name):
        location = self.scene.space(name)
        self.scene.spaces[location] = self.ground.named(name)
        return location

    def _old_copy(self, gone):
        self.scene.seed("--waldir", self.ground.named("wal"))
        standby = self.scene.standby()
        self.scene.change()
        standby.wait_replayed(self.primary.lsn())
        standby.stop()
        os.unlink(standby.log)
        self.scene.change()
        self.primary.sql("DROP TABLE in_gone", "DROP TABLESPACE gone", "UPDATE in_near SET note = 'x' WHERE id % 500 = 0")
        del self.scene.spaces[gone]
        self.beginnings["stale"] = (self.ground.image(), os.stat(self.ground.target).st_ino)

    def _fresh_copy(self):
        """What stock pg_basebackup makes of the server, by the names of our disk."""
        disk = Ground(self.place, self.place.directory(memory=True))
        mapping = [word for location, here in self.scene.spaces.items()
                   for word in ("-T", f"{location}={disk.named(os.path.basename(here))}")]
        program, _ = installs.reader_of("pg_basebackup", self.pg.major)
        self.place.call([program, "-D", disk.target, *FAST, "--no-sync", "-X", "none", *mapping, *self.primary.address()])
        image = disk.image()
        self.place.discard(disk.path)
        return image

    # ---- runs

    def command(self):
        return self.scene.command(*self.options)

    def life(self, run, kill=None):
        """One life of the program: to its end, or to the operation at which it is killed, if it has so many."""
        process = self.run.start(*run.wrap(self.run.basebackup_path, kill=kill), *self.command())
        if kill is None or process.wait() == 0:
            succeeded(process)
        else:
            died_of(process, -process.returncode)
            assert process.returncode == -9, str(process)

    def begin(self, name):
        self.ground.lay_out(*self.beginnings[name])
        return Run(self.ground, self.log)

    def one_run(self, name, kills=0):
        """A run to its end, from there, after so many that were killed (by which nothing that is written is lost)."""
        run = self.begin(name)
        for _ in range(kills):
            self.life(run, kill=self.rng.randint(1, self.operations.get(name, 3000)))
            run.life_ended()
        self.life(run)
        run.ended()
        self.operations.setdefault(name, run.operations())
        self.is_right()
        lost = run.lost_at_the_end(self.rng)
        assert not lost, f"it had ended well, and a power cut takes away {lost[:10]}"
        return run

    # ---- what must be true

    def is_right(self):
        assert_like_fresh(self.ground, self.fresh)
        verify_backup(self.pg, self.place, self.ground.target)

    def starts(self):
        """And holds what the primary holds."""
        standby = start_standby(self.clusters, self.pg, self.ground.target, self.primary)
        standby.wait_replayed(self.primary.lsn())
        assert content.fingerprint(standby) == self.content
        standby.stop()
        self.started += 1

    def goes_on(self, what, image, inode):
        """The same command makes it right, whatever the cut has left."""
        self.ground.lay_out(image, inode)
        try:
            self.run.basebackup(*self.command())
            self.is_right()
            self.gone_on += 1
            if self.gone_on % 10 == 1:
                self.starts()
        except AssertionError as e:
            raise AssertionError(f"after a {what}: {e}") from e

    def cut(self, run, count):
        """Judges many cuts of the run, and goes on from some; one of these is where another run may begin."""
        for what, _, image, _ in run.cuts(self.rng, JUDGED * count):
            self.seen[run.judge(image, what)] += 1
        left = []
        for what, _, image, inode in run.cuts(self.rng, count):
            verdict = run.judge(image, what)
            self.seen[verdict] += 1
            if verdict == "unfinished":
                left.append((image, inode))
            self.goes_on(what, image, inode)
        if left:
            self.beginnings["a cut"] = self.rng.choice(left)

    def rounds(self, beginnings, count):
        """Cuts in runs from each of [(beginning, how many are killed before)]; `count` in all."""
        each = -(-count // len(beginnings))
        for name, kills in beginnings:
            if name in self.beginnings:
                self.cut(self.one_run(name, kills), each)
        print(f"cuts: {self.seen}; gone on from: {self.gone_on}, started: {self.started}")
        assert self.seen["unfinished"] and self.seen["complete"], self.seen


@pytest.fixture
def cutter(pg, clusters, run, tmp, base, rng):
    """Makes one for these options."""
    return lambda *options: Cutter(pg, clusters, run, tmp, base, rng, options)


def can(pg, way):
    if way == "summary" and pg.major < 17:
        pytest.skip("WAL summaries came with 17")


# ---- runs that make something over


@pytest.mark.every_major
@pytest.mark.parametrize("way", WAYS)
def test_a_cut_run_is_gone_on_with(pg, cutter, way):
    """The short form of the next one."""
    can(pg, way)
    cutter(*WAYS[way]).fill().rounds([("stale", 0), ("nothing", 1)], 6)


ROUNDS = [("nothing", 0), ("stale", 0), ("nothing", 1), ("stale", 1), ("a cut", 0), ("a cut", 1), ("stale", 2), ("a cut", 0)]


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_many_cuts(pg, cutter, way):
    can(pg, way)
    cutter(*WAYS[way]).fill().rounds(ROUNDS, CUTS if way == "hash" else -(-CUTS // 3))


# ---- runs that make something new


class Plain(Cutter):
    """Without --delta; a run that was cut short can be gone on with by one that has it."""

    def command(self):
        return ["-D", self.ground.target, "-R", *FAST, *self.scene.mapping(), *self.options, *self.primary.address()]

    def goes_on(self, what, image, inode):
        self.ground.lay_out(image, inode)
        process = self.run.start_basebackup(*self.command(), "--delta", "--no-keep")
        if process.wait() == 1 and re.search("is not empty|PG_VERSION\" makes no sense", process.err):
            return  # no run with --delta has left this, and not enough is there to tell what it is
        succeeded(process)
        self.is_right()
        self.gone_on += 1


@pytest.mark.long
def test_many_cuts_of_a_plain_seed(pg, clusters, run, tmp, base, rng):
    plain = Plain(pg, clusters, run, tmp, base, rng, []).fill(stale=False)
    runs = {"lanes": [], "stream": ["-j1"], "syncfs": ["--sync-method=syncfs"]}
    options = plain.options
    for more in runs.values():
        plain.options = [*options, *more]
        plain.rounds([("nothing", 0)], -(-CUTS // 3 // len(runs)))


PLAIN = {
    "lanes": [],
    "stream": ["-j1"],
    "syncfs": ["--sync-method=syncfs"],
    "without WAL": ["-X", "none"],
    "fetched WAL": ["-X", "fetch"],
    "no WAL directory apart": None,
    "tar": ["-Ft"],
    "compressed tar": ["-Ft", "-z"],
}


def seeded(plain, where, options):
    """(the journal of a fresh copy in a directory that is several levels deep, what is lost of it)"""
    plain.ground.target = plain.scene.target = plain.ground.named(where)
    if options is None:
        plain.options = []
    else:
        plain.options = [*([] if "-Ft" in options else plain.options), *options]
    run = plain.begin("nothing")
    plain.life(run)
    return run.ended()


@pytest.mark.every_major
@pytest.mark.parametrize("how", PLAIN)
def test_what_is_done_stays(pg, clusters, run, tmp, base, rng, how):
    """The program has ended well: no cut takes anything away."""
    plain = Plain(pg, clusters, run, tmp, base, rng, [])
    plain.primary.sql("DROP DATABASE doomed", "DROP TABLE big")
    if "tar" not in how:
        plain._space("near")
    seed = seeded(plain, f"some/where/{STANDBY}", PLAIN[how])
    assert not seed.lost_at_the_end(rng)


def test_without_syncs_nothing_was_promised(pg, clusters, run, tmp, base, rng):
    """So the tests above can see what a cut takes away."""
    seed = seeded(Plain(pg, clusters, run, tmp, base, rng, []), STANDBY, ["--no-sync"])
    lost = seed.lost_at_the_end(rng)
    assert len([path for path in lost if re.search(r"/base/\d+/\d+$", path)]) > 100
    assert f"{STANDBY}/global/pg_control" in lost
    with pytest.raises(AssertionError, match="would start|neither the old nor|without pg_control|no manifest"):
        for what, _, image, _ in seed.cuts(rng, 200):
            seed.judge(image, what)
