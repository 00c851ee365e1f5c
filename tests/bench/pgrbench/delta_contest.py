"""Runs a case of the delta benchmark: everybody once a round, each on an old copy that was put back before."""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass

from . import machine, meter, turns
from .delta_data import OldCopies
from .delta_rsync import Daemon
from .memory import Limit
from .wal_contest import conninfo
from pgrtest.relay import Relay, socket_of


@dataclass(frozen=True)
class Bench:
    """What all cases need.

    stock, ours   paths of the programs
    verifier      path of a pg_verifybackup for the server's version; None: there is none
    tell          called with a line for whoever waits
    """

    place: object
    stock: str
    ours: str
    verifier: str
    clusters: object
    servers: object
    tell: object


class DeltaContest:
    """Measurements as meter.run makes them, and
    copied     bytes of the directory afterwards, without WAL
    wire       of a line: what the relay passed on; otherwise what the loopback counted
    """

    def __init__(self, bench):
        self._bench = bench
        self._old, self._daemon = {}, None  # server's directory -> OldCopies

    def run(self, case, rounds):
        server = self._bench.servers.running(case.data)
        if server.data not in self._old:
            self._old[server.data] = OldCopies(self._bench, server)
        old, started = self._old[server.data], turns.now()
        self._daemon = Daemon(self._bench.place, server)
        try:
            results = turns.take_turns(case, rounds, lambda c, n, _: self._turn(case, server, old, c, n),
                                       self._bench.tell)
        finally:
            self._daemon.stop()
        return {"started": started, "data": {**self._bench.servers.facts(case.data), "levels": old.facts,
                                             "bytes": _bytes(server.data)}, "contestants": results}

    def _turn(self, case, server, old, contestant, number):
        target = self._bench.place.directory()
        try:
            if contestant.percent is not None:
                old.put_back(contestant.percent, target)
            if contestant.killed:
                self._kill_halfway(server, contestant, target)
            server.sql("CHECKPOINT")
            if not case.memory_share:
                machine.warm(server.data)
            machine.settle(target)
            with self._held(case, server) as limit:
                measured = self._measure(case, server, contestant, target, limit)
            measured["copied"] = _bytes(target)
            if number == 1 and contestant.program in ("ours", "delta") and self._bench.verifier:
                self._bench.place.call([self._bench.verifier, "--no-parse-wal", target])
            return measured
        finally:
            self._bench.place.discard(target)

    @contextlib.contextmanager
    def _held(self, case, server):
        """None, or the limit that the server and the daemon are held to, and the client is to be."""
        if not case.memory_share:
            yield None
            return
        machine.cool(server.data)
        size = self._bench.servers.facts(case.data)["bytes"] // case.memory_share
        with Limit(self._bench.place, size) as limit:
            for pid in (meter.postmaster(server), self._daemon.pid):
                limit.take(pid)
            yield limit

    def _measure(self, case, server, contestant, target, limit):
        rsync, place = contestant.program == "rsync", self._bench.place
        if not case.line:
            return self._run(server, contestant, target, self._daemon.port if rsync else server.port, limit=limit)
        goal = f"127.0.0.1:{self._daemon.port}" if rsync else socket_of(server)
        with Relay(place, goal, link_rate=case.line) as relay:
            measured = self._run(server, contestant, target, relay.port, [relay.pid])
            passed = relay.stop()
        measured["wire"] = passed["from_server"] + passed["to_server"]
        return measured

    def _run(self, server, contestant, target, port, helpers=(), limit=None):
        """The daemon is the server that rsync copies from."""
        bench, before = self._bench, meter.family_seconds(self._daemon.pid)
        if contestant.program == "rsync":
            argv = self._daemon.command(conninfo(server), target, port, contestant.options)
        else:
            argv = self._seed(server, contestant, target, port)
        if limit:
            argv = limit.command(argv)
        measured = meter.run(bench.place, argv, meter.postmaster(server), [self._daemon.pid, *helpers])
        measured["server_cpu"] += meter.family_seconds(self._daemon.pid) - before
        return measured

    def _seed(self, server, contestant, target, port):
        program = self._bench.stock if contestant.program == "stock" else self._bench.ours
        return [program, "-d", conninfo(server, port=port), "-w", "--checkpoint=fast", "-D", target,
                *contestant.options]

    def _kill_halfway(self, server, contestant, target):
        place = self._bench.place
        most = machine.loopback_bytes() + _bytes(server.data) // 2
        with subprocess.Popen(place.command(self._seed(server, contestant, target, server.port)),
                              env=place.environment(), cwd=place.base, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as seed:
            while machine.loopback_bytes() < most:
                if seed.poll() is not None:
                    raise meter.Failed(f"what was to be killed halfway ended with {seed.returncode}")
                time.sleep(0.01)
            seed.kill()


def _bytes(top):
    return machine.tree_bytes(top) - machine.tree_bytes(os.path.join(top, "pg_wal"))
