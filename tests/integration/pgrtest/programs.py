"""The programs under test, and what every run of them must keep to."""

import os
import re

from . import installs
from .process import Process

SANITIZER_REPORT = re.compile(r"Sanitizer|runtime error:")
ERROR_LINE = re.compile(r"^[\w.-]+: error: ", re.MULTILINE)


def _program(name, variable):
    """PGR_BASEBACKUP / PGR_RECEIVEWAL name one; otherwise it is in PGR_BIN_DIR, or in the ordinary build's directory."""
    if os.environ.get(variable):
        return os.environ[variable]
    built = os.environ.get("PGR_BIN_DIR") or os.path.join("build", "plain")
    path = os.path.join(installs.TREE, built, name)
    if not os.path.exists(path):
        raise installs.Missing(f"{path} is not built: make")
    return path


class Programs:
    """Starts pgr-basebackup and pgr-receivewal as the unprivileged user."""

    def __init__(self, place):
        self.place = place
        self.basebackup_path = place.within_reach(_program("pgr-basebackup", "PGR_BASEBACKUP"))
        self.receivewal_path = place.within_reach(_program("pgr-receivewal", "PGR_RECEIVEWAL"))
        self._started = []

    def start(self, path, *arguments, **kw):
        """Keywords as for Process."""
        process = Process(self.place, [path, *arguments], **kw)
        self._started.append(process)
        return process

    def start_basebackup(self, *arguments, **kw):
        return self.start(self.basebackup_path, *arguments, **kw)

    def start_receivewal(self, *arguments, **kw):
        return self.start(self.receivewal_path, *arguments, **kw)

    def start_psql(self, server, query):
        """A session of its own, for a query that waits."""
        env = {"PGHOST": self.place.sockets, "PGPORT": server.port, "PGUSER": "postgres", "PGDATABASE": "postgres"}
        return self.start(installs.client("psql"), "-X", "-c", query, env=env)

    def basebackup(self, *arguments, **kw):
        """Runs it to its end; it has to succeed."""
        return succeeded(self.start_basebackup(*arguments, **kw))

    def receivewal(self, *arguments, **kw):
        return succeeded(self.start_receivewal(*arguments, **kw))

    def end_all(self):
        """Ends what a test left running; returns all processes of the test."""
        for process in self._started:
            process.end()
        started, self._started = self._started, []
        return started


def _no_children(process):
    assert not process.children(), f"left processes behind: {process.children()}\n{process}"


def succeeded(process):
    assert process.wait() == 0, str(process)
    assert not ERROR_LINE.search(process.err), str(process)
    _no_children(process)
    return process


def failed(process, *words):
    """It ended with exit code 1 and exactly one error, which says all the words (case does not matter)."""
    assert process.wait() == 1, str(process)
    assert len(ERROR_LINE.findall(process.err)) == 1, f"not one error\n{process}"
    for word in words:
        assert str(word).lower() in process.err.lower(), f"does not say {word!r}\n{process}"
    _no_children(process)
    return process


def gave_up(process, *words):
    """As failed(), for a program that may add an error of its own about not trying again."""
    assert process.wait() == 1, str(process)
    for word in words:
        assert word in process.err, f"does not say {word!r}\n{process}"
    _no_children(process)


def died_of(process, number):
    """It ended by the signal's default action."""
    assert process.wait() == -number, str(process)
    _no_children(process)
    return process
