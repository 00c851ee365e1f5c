"""A program that runs, in the background or to its end."""

import os
import select
import signal
import subprocess

from .place import PATIENCE, wait_until


class Process:
    """A program in a session of its own, so that its children can be found when it is gone.

    Until end() nobody waits for it in the kernel's sense: so long its number is nobody else's, and what is killed by
    that number is its own.
    """

    def __init__(self, place, argv, env=None, prefix=(), cwd=None, stdin=""):
        self.argv = [str(a) for a in argv]
        self.directory = place.directory()
        self._out = os.path.join(self.directory, "stdout")
        self._err = os.path.join(self.directory, "stderr")
        given = place.write(os.path.join(self.directory, "stdin"), stdin)
        with open(given, "rb") as text, open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.popen = subprocess.Popen(
                list(prefix) + place.command(self.argv), env=place.environment(**(env or {})), stdin=text,
                stdout=out, stderr=err, cwd=cwd or self.directory, start_new_session=True,
            )
        self.pid = self.popen.pid

    @property
    def out(self):
        return _read(self._out)

    @property
    def err(self):
        return _read(self._err)

    @property
    def returncode(self):
        """None while it runs; negative: the signal that ended it."""
        if self.popen.returncode is not None:
            return self.popen.returncode
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def running(self):
        return self.returncode is None

    def signal(self, number):
        if self.running():
            os.kill(self.pid, number)

    def wait(self, patience=None):
        """The exit code.  A program that hangs is killed and reported."""
        if self.running() and not self._ends_within(patience or PATIENCE):
            self.end()
            raise AssertionError(f"did not end: {self}")
        return self.returncode

    def _ends_within(self, seconds):
        fd = os.pidfd_open(self.pid)
        try:
            if not select.select([fd], [], [], seconds)[0]:
                return False
        finally:
            os.close(fd)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # a debugger hears of it before us
        return True

    def end(self):
        """Kills what is left of it, once."""
        if self.popen.returncode is not None:
            return
        for pid in [self.pid] + self.children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait()

    def children(self):
        """Processes of its session other than itself."""
        return [pid for pid in session_members(self.pid) if pid != self.pid]

    def wait_for_text(self, text):
        wait_until(lambda: text in self.err or not self.running(), f"{self.argv[0]} says {text!r}")
        assert text in self.err, str(self)

    def __str__(self):
        command = " ".join(self.argv)
        return f"{command}\nexit code {self.returncode}\n--- stderr\n{self.err}\n--- stdout\n{self.out[:2000]}"


def _read(path):
    with open(path, encoding="utf-8", errors="backslashreplace") as f:
        return f.read()


def _stat_fields(pid):
    """/proc/PID/stat after the command: state, ppid, pgrp, session ..."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _processes():
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat_fields(name)
            if fields and fields[0] != "Z":
                yield int(name), fields


def session_members(session):
    return [pid for pid, fields in _processes() if int(fields[3]) == session]


def children_of(parent):
    return [pid for pid, fields in _processes() if int(fields[1]) == parent]
