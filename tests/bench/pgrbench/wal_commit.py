"""Commits that wait for a sink: how many a second, and how long each takes."""

import contextlib
import glob
import math
import os
import re
import signal
import time

from . import machine, meter, turns
from .wal_contest import conninfo
from pgrtest import installs, wal
from pgrtest.place import wait_until
from pgrtest.powercut import preload
from pgrtest.process import Process
from pgrtest.server import HBA

NAME = "sink"
BACKGROUND_BYTES = 128 << 10
COMMIT = "INSERT INTO told (client, note) VALUES (:client_id, repeat('x', 100))\n"
BACKGROUND = f"SELECT pg_logical_emit_message(false, 'bench', repeat('x', {BACKGROUND_BYTES}))\n"
QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


class Commit:
    """Measurements: {"seconds": of all, "clients": {number: what one run of pgbench came to}}, the latter being

    tps                  commits a second
    p50, p99, p999, max  milliseconds from the client's command to its answer
    commits              so many were there
    switches             so many segments ended meanwhile
    wal, written         bytes of WAL, and bytes that the sink gave the kernel to write
    sink_cpu, server_cpu processor seconds
    """

    def __init__(self, bench, seconds, clients, megabytes_beside):
        self._bench, self._seconds, self._clients, self._beside = bench, seconds, clients, megabytes_beside

    def run(self, case, rounds):
        server = self._bench.servers.running(case.data)
        started = turns.now()
        results = turns.take_turns(case, rounds, lambda c, *_: self._turn(server, case, c), self._bench.tell)
        return {"started": started, "contestants": results,
                "data": {"seconds": self._seconds, "clients": self._clients, "beside": self._beside}}

    def _turn(self, server, case, contestant):
        begun = time.monotonic()
        server.sql("TRUNCATE told", "CHECKPOINT")
        self._make_segments(server, server.wal_path())
        directory = self._bench.place.directory()
        try:
            with self._sink(server, contestant, directory, case.sync_ms) as pid:
                counted = {str(n): self._commits(server, n, pid) for n in self._clients}
        finally:
            self._bench.place.discard(directory)
        return {"seconds": time.monotonic() - begun, "clients": counted}

    def _make_segments(self, server, directory):
        """As checkpoints leave them on a server that has run for a while: none has to be filled with zeros in a run."""
        place, size, zeros = self._bench.place, server.segment_bytes(), bytes(1 << 20)
        now = wal.lsn_number(server.lsn())
        for ahead in range(1, 2 + int((self._beside + 6) * 1e6 * self._seconds * len(self._clients) / size)):
            path = os.path.join(directory, wal.segment_name(1, now + ahead * size, size))
            if os.path.exists(path):
                continue
            with open(f"{path}.new", "wb") as f:
                for _ in range(size // len(zeros)):
                    f.write(zeros)
            os.chmod(f"{path}.new", 0o600)
            os.rename(place.give(f"{path}.new"), path)

    # ---- sinks

    @contextlib.contextmanager
    def _sink(self, server, contestant, directory, sync_ms):
        """Commits wait for it within the block; its process (None: there is no sink)."""
        if contestant.program == "none":
            yield None
            return
        start = self._standby if contestant.program == "standby" else self._receiver
        with start(server, contestant, directory, sync_ms) as (pid, running):
            try:
                _name_synchronous(server, f"'{NAME}'")
                state = f"SELECT sync_state, flush_lsn >= '{server.lsn()}' FROM pg_stat_replication"
                wait_until(lambda: "sync|t" in server.sql(state) or not running(), f"{contestant.name} is synchronous")
                if running():
                    yield pid
                if not running():
                    raise meter.Failed(f"{contestant.name} ended")
            finally:
                # Before the sink goes, or somebody waits for ever.
                _name_synchronous(server, "''")

    def _slow(self, directory, sync_ms):
        return preload(self._bench.place, directory=directory, sync_ms=sync_ms) if sync_ms else []

    @contextlib.contextmanager
    def _receiver(self, server, contestant, directory, sync_ms):
        argv = [self._bench.receiver(contestant), "-d", conninfo(server, application_name=NAME), "-w", "-n", "-D",
                directory, *contestant.options]
        process = Process(self._bench.place, argv, prefix=self._slow(directory, sync_ms))
        try:
            yield process.pid, process.running
            process.signal(signal.SIGINT)
            if process.wait() != 0:
                raise meter.Failed(str(process))
        finally:
            process.end()
            self._bench.place.discard(process.directory)

    @contextlib.contextmanager
    def _standby(self, server, _contestant, directory, sync_ms):
        """Seeded anew, so that it has no backlog; only syncs of its WAL are slow."""
        self._bench.place.call([self._bench.programs.basebackup_path, "-d", conninfo(server, application_name=NAME),
                                "-w", "-R", "--checkpoint=fast", "-D", directory])
        slow = self._slow(os.path.join(directory, "pg_wal"), sync_ms)
        standby = self._bench.clusters.adopt(self._bench.install, directory, wrap=slow)
        standby.set_hba(HBA)
        self._make_segments(server, standby.wal_path())
        standby.start()
        try:
            yield meter.postmaster(standby), standby.running
        finally:
            standby.stop("immediate")
            os.unlink(standby.log)

    # ---- one run of pgbench

    def _commits(self, server, clients, sink):
        machine.settle(self._bench.place.base)
        with self._wal_beside(server):
            before = self._accounts(server, sink)
            process = _pgbench(server, COMMIT, ["-c", clients, "-j", min(clients, 2), "-T", self._seconds, "-l"])
            try:
                if process.wait(3 * self._seconds + 120) != 0:
                    raise meter.Failed(str(process))
                counted = {name: value - before[name] for name, value in self._accounts(server, sink).items()}
                return {"tps": float(re.search(r"^tps = ([\d.]+)", process.out, re.MULTILINE)[1]),
                        **_latencies(process.directory), **counted}
            finally:
                process.end()
                self._bench.place.discard(process.directory)

    @staticmethod
    def _accounts(server, sink):
        position, size = wal.lsn_number(server.lsn()), server.segment_bytes()
        return {"wal": position, "switches": position // size,
                "server_cpu": meter.family_seconds(meter.postmaster(server)),
                "sink_cpu": meter.family_seconds(sink) if sink else 0.0,
                "written": meter.family_written(sink) if sink else 0}

    @contextlib.contextmanager
    def _wal_beside(self, server):
        """One session writes WAL at a steady rate and waits for nothing: segments end however few commits there are."""
        if not self._beside:
            yield
            return
        rate = self._beside * 1e6 / BACKGROUND_BYTES
        process = _pgbench(server, BACKGROUND, ["-c", 1, "-T", 10 * self._seconds + 600, "-R", f"{rate:.1f}"])
        try:
            yield
            if not process.running():
                raise meter.Failed(str(process))
        finally:
            process.end()
            self._bench.place.discard(process.directory)


def _name_synchronous(server, names):
    server.sql(f"ALTER SYSTEM SET synchronous_standby_names = {names}", "SELECT pg_reload_conf()")


def _pgbench(server, script, options):
    """Started in a directory of its own, where also its logs go."""
    place = server.place
    path = place.write(os.path.join(place.base, f"script-{abs(hash(script))}"), script)
    argv = [installs.client("pgbench"), "-n", "-M", "prepared", "-f", path, "-h", place.sockets, "-p", server.port,
            "-U", "postgres", *options, "postgres"]
    return Process(place, argv)


def _latencies(directory):
    """From pgbench's logs: client, number, microseconds, ..."""
    found = []
    for path in glob.glob(os.path.join(directory, "pgbench_log.*")):
        with open(path, encoding="utf-8") as f:
            found += [int(line.split(" ", 3)[2]) / 1000 for line in f]
    if not found:
        raise meter.Failed("pgbench has committed nothing")
    found.sort()
    return {"commits": len(found), "max": found[-1],
            **{name: found[math.ceil(q * len(found)) - 1] for name, q in QUANTILES.items()}}
