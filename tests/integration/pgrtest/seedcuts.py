"""Runs of pgr-basebackup whose power is cut: what a cut may leave, and what the next run makes of it.

A Ground is a directory that stands for a disk: what is made over, its tablespaces and its WAL directory lie in it.  A
Run is one or more lives of the program on it, with their journal; each moment of that can be cut.
"""

import os
import re

from . import powercut
from .checks import nothing_of_ours
from .trees import PROBE, VARIES, unlogged

STANDBY = "standby"
CONTROL, ASIDE = "global/pg_control", "global/pg_control.pgr"
STATE, MANIFEST = "pgr_seed.state", "backup_manifest"

# What a run has beside the old files, or beside the new ones, when it is cut short.
OF_OURS = {STATE, f"{STATE}.tmp", f"{CONTROL}.tmp"}
TURNING_POINTS = re.compile(r"pgr_seed\.state|pg_control|backup_manifest|backup_label|standby\.signal|recovery\.conf|pg_tblspc"
                            r"|pg_wal|PG_VERSION")


def inside(image, top=STANDBY):
    """What lies below one of the directories, by its paths there."""
    return {path[len(top) + 1:]: content for path, content in image.items() if path.startswith(f"{top}/")}


def unlike(one, other, ignore=lambda path: False):
    """Paths in which two images differ."""
    return sorted(path for path in one.keys() | other.keys()
                  if not ignore(path) and one.get(path, b"missing") != other.get(path, b"missing"))


def _is_no_content(path):
    """What two backups of a quiet server differ in, and what -R makes; of other tops than STANDBY only tablespaces."""
    top, _, rest = path.partition("/")
    if top != STANDBY:
        return not rest or top == "wal" or rest.startswith(PROBE)
    return (not rest or rest in VARIES or rest.split("/")[0] == "pg_wal" or rest.startswith(PROBE)
            or rest.endswith("pg_internal.init") or re.fullmatch(r"pg_tblspc/\d+", rest) is not None)


class Ground:
    """
    path    the disk
    target  the data directory on it
    """

    def __init__(self, place, base):
        self.place = place
        self.path = _directory(place, base, "disk")
        self._parked = _directory(place, base, "parked")
        self.target = os.path.join(self.path, STANDBY)

    def named(self, name):
        return os.path.join(self.path, name)

    def image(self):
        return powercut.image_of(self.path)

    def lay_out(self, image, inode):
        """Makes the disk look like this; the data directory is the one that it was then, since a state is of one only."""
        self._be_the_one(inode if STANDBY in image else None)
        powercut.materialise(image, self.path, self.place)

    def _be_the_one(self, inode):
        here = os.stat(self.target).st_ino if os.path.isdir(self.target) else None
        if here == inode:
            return
        if here is not None:
            os.rename(self.target, os.path.join(self._parked, str(here)))
        parked = os.path.join(self._parked, str(inode))
        if inode is not None and os.path.isdir(parked):
            os.rename(parked, self.target)


def _directory(place, base, name):
    path = os.path.join(base, name)
    os.mkdir(path, 0o700)
    return place.give(path)


class Run:
    """
    old      the disk before
    between  the disk after each life but the last that left a pg_control of its own
    journal  all lives of the program, one behind the other
    end      the disk at the end
    """

    def __init__(self, ground, log):
        self._ground, self.log = ground, log
        ground.place.write(log, "")
        self._start = powercut.snapshot(ground.path)
        self.old = {path: content for path, _, content in self._start if path}
        self.between = []
        self.journal = self.end = None

    def life_ended(self):
        """It was to be killed, but may have come to its end before, or nearly."""
        image = self._ground.image()
        if inside(image).get(CONTROL) not in (None, inside(self.old).get(CONTROL)):
            self.between.append(image)

    def wrap(self, program, **more):
        """The command of one life; `kill` is the operation before which it ends."""
        return [*powercut.preload(self._ground.place, self._ground.path, self.log, **more), program]

    def ended(self):
        """The journal is whole.  It has to account for every byte."""
        self.journal = powercut.Journal(self.log)
        os.unlink(self.log)
        powercut.assert_complete(self.disk().play(self.journal), self._ground.path)
        self.end = self._ground.image()
        return self

    def disk(self):
        return powercut.Disk(self._start)

    def operations(self):
        """How many POWERCUT_KILL counts."""
        return len([op for op in self.journal.operations() if op.kind != powercut.SEND])

    # ---- moments

    def turning_points(self):
        """Around each change of a name that decides what the directory is, and the syncs behind it."""
        found = set()
        for at, (op, _) in enumerate(self.journal.records):
            if op.kind in powercut.NAME_CHANGES and TURNING_POINTS.search(f"{op.name} {op.name2}"):
                found |= {at, at + 1}
        return sorted(found)

    def behind_the_last_file(self):
        """From where every relation's file is written, up to the end: syncs, pg_control, the manifest."""
        manifest = {op.made for op in self.journal.operations(powercut.CREATE) if op.name.startswith(MANIFEST)}
        writes = [at for at, (op, ended) in enumerate(self.journal.records)
                  if ended and op.kind == powercut.WRITE and op.ino not in manifest and len(op.data) >= 8192]
        return range(writes[-1] + 1 if writes else 0, len(self.journal) + 1)

    def moments(self, rng, count):
        """So many, in the order of time."""
        points, n = self.turning_points(), len(self.journal)
        last = self.behind_the_last_file()
        some = [rng.choice((lambda: rng.choice(points), lambda: rng.choice(last), lambda: rng.randint(0, n),
                            lambda: rng.randint(0, n)))() for _ in range(count)]
        return sorted(min(at, n) for at in some)

    def cuts(self, rng, count):
        """(what it is, record, image, inode of the data directory) for so many cuts, in the order of time."""
        disk = self.disk()
        for at in self.moments(rng, count):
            disk.play(self.journal, at)
            names, data = rng.choice(powercut.NAMES), rng.choice(powercut.DATA)
            yield (f"cut at record {at} of {len(self.journal)} (names: {names}, data: {data})", at,
                   disk.cut(rng, names, data), disk.inode(STANDBY))

    # ---- what must be true

    def lost_at_the_end(self, rng, count=6):
        """Paths of what a cut behind the end of the program takes away or changes."""
        disk = self.disk().play(self.journal)
        return sorted({path for names in powercut.NAMES for data in powercut.DATA for _ in range(count)
                       for path in unlike(disk.cut(rng, names, data), self.end)})

    def judge(self, image, what):
        """Such a directory does not start, or is as it was, or is as it is to be: which of these."""
        here, end, old = inside(image), inside(self.end), inside(self.old)
        if CONTROL not in here:
            before = [old, *map(inside, self.between)]
            assert here.get(MANIFEST) in [None, *(one.get(MANIFEST) for one in before)], f"{what}: a manifest without pg_control"
            return "unfinished"
        if here[CONTROL] == end.get(CONTROL):
            self._is_complete(image, what)
            return "complete"
        for image_between in self.between:
            if here[CONTROL] == inside(image_between)[CONTROL]:
                self._is_complete_between(image, image_between, what)
                return "complete"
        assert here[CONTROL] == old.get(CONTROL), f"{what}: a pg_control that is neither the old nor the new one"
        wrong = unlike(image, self.old, lambda path: self._is_prepared(image, path))
        assert not wrong, f"{what}: has the old pg_control, and would start, but differs in {wrong[:10]}"
        return "untouched"

    def _is_prepared(self, image, path):
        """What is made before the first change: empty directories, the state."""
        top, _, rest = path.partition("/")
        empty = image.get(path, b"") is None and not any(other.startswith(f"{path}/") for other in image)
        return empty or rest in OF_OURS or rest.startswith(PROBE) or (not rest and top != STANDBY)

    def _is_complete_between(self, image, image_between, what):
        manifests = {MANIFEST, f"{MANIFEST}.tmp"}
        wrong = unlike(image, image_between,
                       lambda path: self._is_prepared(image, path) or path.partition("/")[2] in {*OF_OURS, *manifests})
        assert not wrong, f"{what}: has the pg_control of an earlier run, and would start, but differs in {wrong[:10]}"

    def _is_complete(self, image, what):
        wrong = unlike(image, self.end, lambda path: path.partition("/")[2] in {*OF_OURS, MANIFEST, f"{MANIFEST}.tmp"})
        assert not wrong, f"{what}: has the new pg_control, and would start, but differs in {wrong[:10]}"
        here, end = inside(image), inside(self.end)
        if MANIFEST in end:
            manifests = [here[name] for name in (MANIFEST, f"{MANIFEST}.tmp") if name in here]
            assert end[MANIFEST] in manifests, f"{what}: has the new pg_control and no manifest"
        if MANIFEST in here:
            assert here[MANIFEST] == end[MANIFEST] and not (OF_OURS - {STATE}) & here.keys(), f"{what}: finished with {sorted(here)}"


def assert_like_fresh(ground, fresh):
    """A finished directory: what stock pg_basebackup makes of the same quiet server, and nothing of ours."""
    nothing_of_ours(ground.target)
    image = ground.image()
    lost = unlogged(image) & unlogged(fresh)
    wrong = unlike(image, fresh, lambda path: path in lost or _is_no_content(path))
    assert not wrong, f"differs from a fresh copy in {len(wrong)}: {wrong[:10]}"
