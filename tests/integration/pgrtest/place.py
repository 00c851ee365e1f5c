"""Where things run: as which user, in which directory, and how long we wait for them."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time

# Nothing is asserted on elapsed time; this only ends a run that hangs.
PATIENCE = float(os.environ.get("PGR_PATIENCE", "90"))

# What the programs get of our environment: nothing that could change a connection or a message.
PASSED_ON = ("PATH", "TMPDIR")

# A sanitizer's finding must not look like an ordinary failure, whose exit code is 1.
SANITIZERS = {
    "ASAN_OPTIONS": "exitcode=99",
    "UBSAN_OPTIONS": "exitcode=99:print_stacktrace=1",
    "TSAN_OPTIONS": "exitcode=99",
    "LSAN_OPTIONS": "exitcode=99",
}


def wait_until(condition, what, patience=None):
    """Polls until condition() is true and returns its value; fails with `what` was waited for."""
    deadline = time.monotonic() + (patience or PATIENCE)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain until {what}")
        time.sleep(0.02)


class Place:
    """A directory of its own below /tmp, and the user who runs servers and programs there.

    PostgreSQL does not run as root.  When the tests do, everything runs as the user `postgres` (or `nobody`).
    """

    def __init__(self):
        self.root = os.geteuid() == 0
        self.user = self._unprivileged_user() if self.root else pwd.getpwuid(os.geteuid())
        # Short, because the path of a Unix socket has at most 107 bytes.
        self.base = self._base(os.environ.get("TMPDIR", "/tmp"))
        # What the programs write goes to a real file system; the servers they read from need none.
        self.memory = self._base("/dev/shm") if self._has_room("/dev/shm") else self.base
        self._serial = 0
        self.home = self.directory("home")
        self.sockets = self.directory("s")

    @staticmethod
    def _unprivileged_user():
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise RuntimeError("there is no user postgres or nobody to run the servers as")

    @staticmethod
    def _base(parent):
        path = tempfile.mkdtemp(prefix="pgr-it-", dir=parent)
        os.chmod(path, 0o755)
        return path

    @staticmethod
    def _has_room(path):
        try:
            return shutil.disk_usage(path).free > 6 << 30
        except OSError:
            return False

    def directory(self, name=None, memory=False):
        """A new directory that belongs to the user; with `memory`, for a server that is no test's subject."""
        self._serial += 1
        path = os.path.join(self.memory if memory else self.base, name or f"d{self._serial}")
        os.mkdir(path, 0o700)
        self.give(path)
        return path

    def give(self, path):
        """Hands a file, link or directory over to the user."""
        if self.root:
            os.chown(path, self.user.pw_uid, self.user.pw_gid, follow_symlinks=False)
        return path

    def copy_tree(self, top, copy):
        """A copy that belongs to the user; links stay links."""
        shutil.copytree(top, copy, symlinks=True)
        if self.root:
            for path, directories, files in os.walk(copy):
                for name in directories + files:
                    self.give(os.path.join(path, name))
            self.give(copy)
        return copy

    def write(self, path, text, mode=0o600):
        """A file of the user's."""
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)
        return self.give(path)

    def environment(self, **more):
        env = {k: os.environ[k] for k in PASSED_ON if k in os.environ}
        env.update({k: ":".join(filter(None, (os.environ.get(k), v))) for k, v in SANITIZERS.items()})
        env.update(LC_ALL="C", HOME=self.home, TZ="UTC")
        env.update({k: str(v) for k, v in more.items()})
        return env

    def command(self, argv, death="KILL"):
        """argv, run as the user, and ended by the signal `death` should these tests die."""
        # Under nohup or in a background job these signals are ignored, and what is started would inherit that.
        prefix = ["env", "--default-signal=HUP,INT,TERM", "setpriv", "--pdeathsig", death]
        if self.root:
            prefix += ["--reuid", str(self.user.pw_uid), "--regid", str(self.user.pw_gid), "--init-groups"]
        return prefix + [str(a) for a in argv]

    def call(self, argv, **env):
        """Runs a tool as the user; what it printed, or AssertionError with what it said."""
        done = subprocess.run(
            self.command(argv), env=self.environment(**env), cwd=self.base, capture_output=True, text=True,
            timeout=PATIENCE, errors="backslashreplace", check=False,
        )
        assert done.returncode == 0, f"{' '.join(map(str, argv))}\nexit code {done.returncode}\n{done.stderr}"
        return done.stdout

    def can_run(self, program):
        probe = subprocess.run(self.command(["test", "-x", program]), check=False)
        return probe.returncode == 0

    def within_reach(self, program):
        """The program, or a copy where the user can execute it (a clone below /root, say)."""
        if self.can_run(program):
            return program
        copies = os.path.join(self.base, "bin")
        os.makedirs(copies, mode=0o755, exist_ok=True)
        copy = os.path.join(copies, os.path.basename(program))
        if not os.path.exists(copy):
            shutil.copy(program, copy)
            os.chmod(copy, 0o755)
        return copy

    def discard(self, path):
        """Removes a directory early; with PGR_KEEP it stays."""
        if os.path.isdir(path) and not os.environ.get("PGR_KEEP"):
            shutil.rmtree(path, onerror=_make_removable)

    def remove(self):
        """Returns what is left: nothing, but with PGR_KEEP."""
        for path in (self.base, self.memory):
            self.discard(path)
        return {path for path in (self.base, self.memory) if os.path.exists(path)}


def _make_removable(function, path, _error):
    """A test may have left a directory that cannot be written to."""
    os.chmod(os.path.dirname(path), stat.S_IRWXU)
    function(path)
