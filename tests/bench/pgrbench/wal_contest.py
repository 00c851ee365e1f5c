"""What the cases of the WAL benchmark share, and the two that do not commit: catching up, and starting."""

import os
import re
import signal
import time
from dataclasses import dataclass

from . import machine, meter, turns
from .wal_archive import Archive
from pgrtest.archive import SEGMENT, decode
from pgrtest.place import wait_until
from pgrtest.process import Process

STARTED = re.compile(r"^(\d+\.\d+) .*received replication command: START_REPLICATION", re.MULTILINE)


@dataclass(frozen=True)
class Bench:
    """What all cases need.

    install     the server's and the stock client's programs
    programs    pgrtest.programs.Programs
    clusters    pgrtest.server.Clusters
    servers     data.Servers
    rawrecv     the path of tests/bench/rawrecv
    tell        called with a line for whoever waits
    """

    place: object
    install: object
    programs: object
    clusters: object
    servers: object
    rawrecv: str
    tell: object

    def receiver(self, contestant):
        return self.install.program("pg_receivewal") if contestant.program == "stock" else self.programs.receivewal_path


def conninfo(server, **more):
    values = {"host": server.host, "port": server.port, "user": "postgres", "sslmode": "disable",
              "gssencmode": "disable", **more}
    return " ".join(f"{name}={value}" for name, value in values.items())


class CatchUp:
    """Measurements as meter.run makes them, and
    copied     bytes of WAL
    files      bytes of the files that were made of them
    device     bytes that the device wrote meanwhile, up to the last one that was left behind in the page cache
    """

    def __init__(self, bench):
        self._bench = bench

    def run(self, case, rounds):
        server = self._bench.servers.running(case.data)
        facts = self._bench.servers.facts(case.data)
        started = turns.now()

        def turn(contestant, number, _results):
            server.sql("SELECT pg_copy_physical_replication_slot('kept', 'run')", "CHECKPOINT")
            target = self._bench.place.directory()
            try:
                return self._measure(server, facts, contestant, number, target)
            finally:
                wait_until(lambda: server.sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'run'") == "f",
                           "the slot is free")
                server.sql("SELECT pg_drop_replication_slot('run')")
                self._bench.place.discard(target)

        results = turns.take_turns(case, rounds, turn, self._bench.tell)
        return {"started": started, "data": facts, "contestants": results}

    def _measure(self, server, facts, contestant, number, target):
        machine.warm(server.wal_path())
        machine.settle(target)
        before = machine.device_bytes_written(target)
        measured = meter.run(self._bench.place, self._command(server, facts, contestant, target),
                             meter.postmaster(server))
        os.sync()
        measured["device"] = None if before is None else machine.device_bytes_written(target) - before
        measured["copied"] = facts["bytes"]
        measured["files"] = machine.tree_bytes(target)
        if contestant.program == "raw":
            # Whatever was written meanwhile is not its doing.
            measured["device"] = measured["written"] = None
        elif number == 1:
            self._check(server, facts, contestant, target)
        return measured

    def _command(self, server, facts, contestant, target):
        if contestant.program == "raw":
            return [self._bench.rawrecv, conninfo(server), facts["start"], facts["last"]]
        return [self._bench.receiver(contestant), "-d", conninfo(server), "-w", "-n", "-D", target, "-S", "run",
                f"--endpos={facts['last']}", *contestant.options]

    @staticmethod
    def _check(server, facts, contestant, target):
        """Every segment is there, and is the server's own; of compressed ones some are looked at.  Outside the time."""
        names = [m for m in map(SEGMENT.fullmatch, sorted(os.listdir(target))) if m and not m[4]]
        assert len(names) == facts["bytes"] // facts["segment_bytes"], f"{contestant.name} left {len(names)} segments"
        for name in names[::16] if contestant.options else names:
            content = decode(_content(os.path.join(target, name[0])), name[3])
            assert content == _content(server.wal_path(name[1] + name[2])), f"{contestant.name}: {name[0]} is wrong"


def _content(path):
    with open(path, "rb") as f:
        return f.read()


class Start:
    """Measurements: seconds until the server gets START_REPLICATION; the program's client_cpu and memory up to then."""

    def __init__(self, bench, files):
        self._bench, self._files = bench, files
        self._archives = {}

    def run(self, case, rounds):
        server = self._bench.servers.running(case.data)
        started, cold = turns.now(), machine.forget()
        try:
            for mixed in (False, True):
                self._bench.tell(f"making an archive of {self._files:,} segments")
                self._archives[mixed] = Archive(self._bench.place, self._files, case.data.SEGMENT,
                                                server.segment_bytes(), mixed)
            results = turns.take_turns(case, rounds, lambda c, *_: self._turn(server, c, cold), self._bench.tell)
        finally:
            for archive in self._archives.values():
                archive.remove()
        return {"started": started, "data": {"files": self._files}, "contestants": results}

    def _turn(self, server, contestant, cold):
        archive = self._archives[contestant.mixed]
        program = self._bench.receiver(contestant)
        if contestant.cold:
            if not cold:
                raise meter.Failed("only root can empty the kernel's caches")
            machine.forget()
        else:
            machine.warm_names(archive.path)
        # The program itself is in the cache, the archive (when cold) is not.
        self._bench.place.call([program, "--version"])
        machine.settle(archive.path)
        known = os.path.getsize(server.log)
        begun = time.time()
        process = Process(self._bench.place, [program, "-d", conninfo(server), "-w", "-n", "-D", archive.path])
        try:
            found = wait_until(lambda: self._started(server, known) or not process.running(), "the stream begins")
            used, memory = meter.family_seconds(process.pid), meter.peak(process.pid)
            process.signal(signal.SIGINT)
            process.wait()
        finally:
            process.end()
            archive.restore()
        if found is True:
            raise meter.Failed(f"ended with {process.returncode}: {process.err.strip()}")
        return {"seconds": found - begun, "client_cpu": used, "memory": memory}

    @staticmethod
    def _started(server, known):
        """When the server got the command, by its own clock, which is ours."""
        with open(server.log, encoding="utf-8", errors="replace") as f:
            f.seek(known)
            found = STARTED.search(f.read())
        return float(found[1]) if found else None
