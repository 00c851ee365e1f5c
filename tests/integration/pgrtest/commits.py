"""Clients that commit numbered rows and remember when they were told so."""

import contextlib
import os
import random
import socket
import struct
import threading
import time

from .archive import commit_ends
from .installs import reader_of
from .place import PATIENCE, wait_until
from .relay import socket_of

TABLE = "CREATE TABLE told (id bigint PRIMARY KEY, filler text); ALTER TABLE told ALTER filler SET STORAGE EXTERNAL"


class Session:
    """A connection that runs one query after the other ("Simple Query"), without results."""

    def __init__(self, server):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(socket_of(server))
        self._in = self._socket.makefile("rb")
        body = struct.pack("!I", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
        self._socket.sendall(struct.pack("!I", len(body) + 4) + body)
        self._until_ready()

    def run(self, query):
        self._socket.sendall(b"Q" + struct.pack("!I", len(query) + 5) + query.encode() + b"\0")
        self._until_ready()

    def _until_ready(self):
        while True:
            head = self._in.read(5)
            if len(head) < 5:
                raise ConnectionError("the server closed the connection")
            body = self._in.read(struct.unpack("!I", head[1:])[0] - 4)
            if head[:1] == b"E":
                raise ConnectionError(body.decode(errors="replace"))
            if head[:1] == b"Z":
                return

    def close(self):
        self._socket.close()


class Clients:
    """So many sessions that insert rows of up to `row_bytes` from entry to exit of a `with` block.

    `told` is a list of (id, time.monotonic_ns() when the commit was known to the client).
    """

    def __init__(self, server, sessions=4, row_bytes=6000):
        self._server = server
        self.told = []
        self._stop = threading.Event()
        self._server_may_die = threading.Event()
        self._failed = []
        self._row_bytes = row_bytes
        self._threads = [threading.Thread(target=self._work, args=(i, sessions), daemon=True) for i in range(sessions)]

    def _work(self, first, step):
        session, number = None, first
        while not self._stop.is_set():
            try:
                session = session or self._connect()
                filler = os.urandom(random.randint(1, self._row_bytes // 2)).hex()
                session.run(f"INSERT INTO told VALUES ({number}, '{filler}')")
                self.told.append((number, time.monotonic_ns()))
            except OSError as e:
                session = None
                if not self._server_may_die.is_set() and not self._stop.is_set():
                    self._failed.append(e)
                    return
            number += step  # also when nobody knows whether it was committed
        if session is not None:
            session.close()

    def _connect(self):
        """Waits for a server that is on its way back."""
        while True:
            try:
                return Session(self._server)
            except OSError:
                if self._stop.is_set() or not self._server_may_die.is_set():
                    raise
                self._stop.wait(0.05)

    @contextlib.contextmanager
    def without_server(self):
        """A server that dies within this block and comes back is no failure."""
        self._server_may_die.set()
        yield
        self.wait_for(10 * len(self._threads))  # all sessions are new ones
        self._server_may_die.clear()

    def wait_for(self, commits):
        """Waits until so many more are told."""
        goal = len(self.told) + commits
        wait_until(lambda: len(self.told) >= goal or self._failed, f"{commits} more commits")
        assert not self._failed, self._failed

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        """A session whose commit waits for a standby that is gone ends with the server."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def with_positions(server, told, start):
    """[(time, end of the commit record, id)] by time, of a server that still runs and has kept its WAL."""
    transactions = {int(id): int(xmin) for id, xmin in server.rows("SELECT id, xmin FROM told")}
    waldump, _ = reader_of("pg_waldump", server.major)
    end = server.sql("SELECT pg_current_wal_insert_lsn()")
    out = server.place.call([waldump, "-p", server.wal_path(), "-r", "Transaction", "-s", start, "-e", end])
    ends = commit_ends(out, server.segment_bytes())
    return sorted((when, ends[transactions[number]], number) for number, when in told)
