"""What stands between a program and a server: the relay of tests/bench (slow, distant or faulty), one name for several servers."""

import os
import re
import socket
import subprocess
import threading

from . import installs
from .place import PATIENCE


def relay_path():
    path = os.path.join(installs.TREE, os.environ.get("PGR_BIN_DIR") or os.path.join("build", "plain"),
                        "tests", "bench", "relay")
    if not os.path.exists(path):
        raise installs.Missing(f"{path} is not built: make relay")
    return path


class Relay:
    """Passes connections to 127.0.0.1:`port` on to `target` (HOST:PORT, or the path of a Unix socket).

    Options as the relay's: rate, link_rate (bytes a second), delay (ms), flip_byte, cut_after, times, when.
    """

    def __init__(self, place, target, **options):
        argv = [place.within_reach(relay_path()), "--connect", target]
        for name, value in options.items():
            argv += [f"--{name.replace('_', '-')}", str(value)]
        self._process = subprocess.Popen(place.command(argv), env=place.environment(), cwd=place.base,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.host = "127.0.0.1"
        self.port = int(self._process.stdout.readline())

    def address(self, user="postgres"):
        """Connection options of the programs under test."""
        return ["-h", self.host, "-p", str(self.port), "-U", user]

    def stop(self):
        """Ends it.  What passed: {"connections": ..., "from_server": bytes, "to_server": bytes}."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0, f"the relay ended with {self._process.returncode}: {said}"
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", said)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.stop()


class Balancer:
    """Passes each connection to 127.0.0.1:`port` on to the server, or relay, that choose(n) says, n = 1, 2, 3, ..."""

    def __init__(self, choose):
        self._choose = choose
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def address(self, user="postgres"):
        return ["-h", self.host, "-p", str(self.port), "-U", user]

    def _serve(self):
        n = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            n += 1
            server = self._connect(self._choose(n))
            self._connected(n, client, server)

    @staticmethod
    def _connect(target):
        if isinstance(target, Relay):
            return socket.create_connection((target.host, target.port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(socket_of(target))
        return server

    def _connected(self, _n, client, server):
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass(one, other, before=lambda data: None):
        try:
            while data := one.recv(65536):
                before(data)
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Holder(Balancer):
    """Passes connections on to `server`.  Before anything that the server says is passed on, hold(n, sent) is called with
    the number of the connection and all that the client has sent on it, and may wait for what must not wait for this.

    connections  how many there were so far
    """

    def __init__(self, server, hold):
        self.connections = 0
        self._hold = hold
        super().__init__(self._count(server))

    def _count(self, server):
        def choose(n):
            self.connections = n
            return server
        return choose

    def _connected(self, n, client, server):
        sent = bytearray()
        for one, other, before in ((client, server, sent.extend), (server, client, lambda _: self._hold(n, sent))):
            threading.Thread(target=self._pass, args=(one, other, before), daemon=True).start()


def socket_of(server):
    """The target that spares the relay's other side the network."""
    return f"{server.place.sockets}/.s.PGSQL.{server.port}"
