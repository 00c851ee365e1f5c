"""Rounds of a WAL sink whose power is cut, and what must be true at every moment of them."""

import bisect
import os
import shutil

from . import powercut
from .place import wait_until

RANDOM_CUTS = ("any moment", "near an operation on names or a sync", "behind a status message")


class Round:
    """One life of the receiver: what its directory held before, and its journal."""

    def __init__(self, start, log, floor=0):
        self._start, self._log = start, log
        self.floor = floor  # what was acknowledged in earlier rounds

    def journal(self):
        return powercut.Journal(self._log)

    def disk(self):
        return powercut.Disk(self._start)


def last_picture(this, directory, rng):
    """The end of a round: what the kill, as a power cut, leaves.  Also checks that the journal tells everything."""
    disk = this.disk().play(this.journal())
    powercut.assert_complete(disk, directory)
    return disk.cut(rng, rng.choice(powercut.NAMES), rng.choice(powercut.DATA))


class Examiner:
    """Holds against the journal of a round what the server and its clients were told."""

    def __init__(self, judge, start, commits, rng):
        self.judge, self.start, self.rng = judge, start, rng
        self._times = [when for when, _, _ in commits]
        self._ends = []
        for _, end, _ in commits:
            self._ends.append(max(end, self._ends[-1] if self._ends else 0))

    def promised_to_clients(self, when):
        """The end of the last commit that a client knew of at this moment."""
        n = bisect.bisect_right(self._times, when)
        return self._ends[n - 1] if n else 0

    def acknowledgements(self, this, journal=None, at_most=None):
        """No status message reports what is not durable, whatever a cut at that moment would leave.

        The same is looked at behind each change of a name.  Returns how many messages there were; `at_most` so many of
        them are looked at, about.
        """
        journal = journal or this.journal()
        messages = powercut.statuses(journal)
        for status in messages:
            assert status.flushed <= status.written, f"flushed {_lsn(status.flushed)}, written {_lsn(status.written)}"
            assert status.applied <= status.flushed, f"applied {_lsn(status.applied)}, flushed {_lsn(status.flushed)}"
        step = max(1, len(messages) // at_most) if at_most else 1
        moments = [(status.began, status.flushed, "status message") for status in messages[::step]]
        moments += [(op.ended + 1, 0, "change of a name") for op in journal.operations(*powercut.NAME_CHANGES) if op.ended]
        disk, reported = this.disk(), this.floor
        for n, flushed, what in sorted(moments):
            if what == "status message" and flushed <= reported:
                continue  # nothing new was promised
            reported = max(reported, flushed)
            for image in disk.play(journal, n).worst_cuts(self.rng):
                self._reaches(image, reported, f"{what} at record {n}")
        return len(messages)

    def cuts(self, this, count):
        """So many cuts at random moments: nothing is missing that the server or a client was told of."""
        journal, disk = this.journal(), this.disk()
        messages = powercut.statuses(journal)
        sent = [status.began for status in messages]
        for n in sorted(self._moments(journal, sent) for _ in range(count)):
            disk.play(journal, n)
            names, data = self.rng.choice(powercut.NAMES), self.rng.choice(powercut.DATA)
            promised = [this.floor, self.promised_to_clients(journal.time_of(n))]
            promised += [status.flushed for status in messages[:bisect.bisect_left(sent, n)]]
            image = disk.cut(self.rng, names, data)
            self._reaches(image, max(promised), f"cut at record {n} of {len(journal)} (names: {names}, data: {data})")

    def _moments(self, journal, sent):
        kind = self.rng.choice(RANDOM_CUTS)
        if kind == RANDOM_CUTS[1]:
            special = [n for n, (op, _) in enumerate(journal.records)
                       if op.kind in powercut.NAME_CHANGES + (powercut.SYNC, powercut.SYNC_ALL)]
            return min(len(journal), self.rng.choice(special) + self.rng.randint(0, 2))
        if kind == RANDOM_CUTS[2] and sent:
            return min(len(journal), self.rng.choice(sent) + self.rng.randint(0, 2))
        return self.rng.randint(0, len(journal))

    def _reaches(self, image, promised, when):
        reach = self.judge.reach(image, self.start)
        assert reach >= promised, (
            f"{when}: the archive ends at {_lsn(reach)}, {_lsn(promised)} was promised; it holds "
            + ", ".join(f"{name} ({'directory' if c is None else len(c)})" for name, c in sorted(image.items())[-6:]))

    def floor_after(self, this):
        """What the rounds after this one must not lose."""
        journal = this.journal()
        return max([this.floor, self.promised_to_clients(journal.times[-1])]
                   + [status.flushed for status in powercut.statuses(journal)])


def _lsn(position):
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:08X}"


def restore(clusters, pg, backup, archive):
    """A server from base backup and archive ({name: content}) alone, recovered to the archive's end and promoted."""
    place = clusters.place
    data, wal = place.directory(memory=True), place.directory(memory=True)
    os.rmdir(data)
    shutil.copytree(backup, data, symlinks=True)
    for top, directories, files in os.walk(data):
        for name in directories + files:
            place.give(os.path.join(top, name))
    place.give(data)
    for name, content in archive.items():
        with open(os.path.join(wal, name), "wb") as f:
            f.write(content)
        place.give(f.name)
    settings = {"restore_command": f"'cp {wal}/%f %p'", "recovery_target_timeline": "'current'"}
    server = clusters.adopt(pg, data)
    if pg.major >= 12:
        server.configure(**settings)
        place.write(os.path.join(data, "recovery.signal"), "")
    else:
        del settings["recovery_target_timeline"]
        place.write(os.path.join(data, "recovery.conf"), "".join(f"{k} = {v}\n" for k, v in settings.items()))
    server.configure(synchronous_standby_names="''")
    server.start()
    wait_until(lambda: server.sql("SELECT pg_is_in_recovery()") == "f", f"{server} has recovered")
    return server
