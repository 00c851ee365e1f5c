"""The relay of tests/bench between a program and a server: slow, distant or faulty."""

import os
import re
import subprocess

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


def socket_of(server):
    """The target that spares the relay's other side the network."""
    return f"{server.place.sockets}/.s.PGSQL.{server.port}"
