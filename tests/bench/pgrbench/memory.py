"""A bound on the memory of several processes together, what they have in the page cache included: a control group."""

import os

from . import meter

TOP = "/sys/fs/cgroup"
# Runs the rest of its arguments within the group.
JOIN = 'echo $$ >"$0" && exec "$@"'


class Limit:
    """Holds processes, and those that they start, to so many bytes; `with` it.  Failed where no group can be made."""

    def __init__(self, place, size):
        self._place = place
        parent, limit = _own_group()
        self._group = os.path.join(parent, f"pgr-bench-{os.getpid()}")
        try:
            os.mkdir(self._group)
            _write(os.path.join(self._group, limit), size)
            place.give(self._procs(self._group))
        except OSError as e:
            self._remove()
            raise meter.Failed(f"no group of processes with a limit of memory can be made here: {e}") from e
        self._parent = parent

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        """Who is still there goes back."""
        with open(self._procs(self._group), encoding="ascii") as f:
            for pid in f.read().split():
                _move(self._procs(self._parent), pid)
        self._remove()

    def take(self, pid):
        """A process and its children."""
        for each in [pid, *meter.children(pid)]:
            _move(self._procs(self._group), each)

    def command(self, argv):
        """argv, to be run by the place's user within the group."""
        return ["sh", "-c", JOIN, self._procs(self._group), *argv]

    @staticmethod
    def _procs(group):
        return os.path.join(group, "cgroup.procs")

    def _remove(self):
        if os.path.isdir(self._group):
            os.rmdir(self._group)


def _own_group():
    """The group that we are in, and its file for the limit: of the old hierarchy of memory, or of the new one."""
    new = TOP
    with open("/proc/self/cgroup", encoding="utf-8") as f:
        for line in f:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "memory" in controllers.split(","):
                return os.path.join(TOP, "memory") + path, "memory.limit_in_bytes"
            if not controllers:
                new = TOP + path
    return new, "memory.max"


def _move(procs, pid):
    try:
        _write(procs, pid)
    except ProcessLookupError:
        pass  # it has ended


def _write(path, value):
    with open(path, "w", encoding="ascii") as f:
        f.write(str(value))
