"""Which PostgreSQL programs there are: Debian's, and those of tests/support/fetch-servers.sh."""

import glob
import os
import re
import subprocess

TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
FETCH = os.path.join(TREE, "tests", "support", "fetch-servers.sh")


class Missing(Exception):
    """A program that a test needs is not installed."""


class Install:
    """The server programs of one major version in `bindir`."""

    def __init__(self, name, bindir):
        self.name = name
        self.bindir = bindir
        said = subprocess.run([self.program("postgres"), "--version"], capture_output=True, text=True, check=True)
        self.version = re.search(r"\d+\.\d+", said.stdout)[0]
        self.major = int(self.version.split(".")[0])

    def program(self, name):
        return os.path.join(self.bindir, name)

    def __repr__(self):
        return f"PostgreSQL {self.version} ({self.bindir})"


def _debian_bindir():
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    if not found:
        raise Missing("Debian's PostgreSQL is not installed: tests/support/install-deps.sh check")
    return os.path.dirname(max(found, key=lambda p: int(p.split("/")[4])))


def cache():
    done = subprocess.run([FETCH, "--cache"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def find(name):
    """`debian`, or a major version number from the cache."""
    if name == "debian":
        return Install(name, _debian_bindir())
    bindir = os.path.join(cache(), "servers", name, "bin")
    if not os.path.exists(os.path.join(bindir, "postgres")):
        raise Missing(f"PostgreSQL {name} is not in the cache: tests/support/fetch-servers.sh {name}")
    return Install(name, bindir)


def client(name):
    """psql, pgbench, ...: Debian's, past the wrapper in /usr/bin that looks for clusters."""
    path = os.path.join(_debian_bindir(), name)
    if not os.path.exists(path):
        raise Missing(f"{path} is not installed")
    return path


def reader_of(name, major):
    """A program that reads another program's files (pg_verifybackup, pg_waldump), of this major or the next one up.

    Returns its path and its own major version.
    """
    debian = _debian_bindir()
    own = int(debian.split("/")[4])
    candidates = [(own, os.path.join(debian, name))]
    for path in glob.glob(os.path.join(cache(), "clients", "*", "bin", name)):
        candidates.append((int(path.split("/")[-3]), path))
    fitting = sorted(c for c in candidates if c[0] >= major and os.path.exists(c[1]))
    if not fitting:
        raise Missing(f"no {name} for PostgreSQL {major}: tests/support/fetch-servers.sh {major}")
    return fitting[0][1], fitting[0][0]
