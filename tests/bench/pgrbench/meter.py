"""One run of a program, measured.

A measurement is a dictionary:
    seconds         from the start of the program to its end
    client_cpu      processor seconds of the program and its children
    server_cpu      of the postmaster and all its children, also those that ended meanwhile
    elsewhere_cpu   of everything else on the machine: the kernel's own threads, and strangers
    stolen_cpu      taken away by the hypervisor
    memory          peak resident bytes, summed over the program's processes
    wire            bytes over the loopback; None for what does not use it
    written         bytes that the program and its children gave the kernel to write to a disk (write_bytes in
                    /proc/PID/io): a page of the cache counts when it becomes dirty, again after it was written out
"""

import mmap
import os
import resource
import select
import subprocess
import time

from . import machine
from pgrtest.place import wait_until

TICK = 1 / os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.05


class Failed(Exception):
    """A program that was to be measured did not do what it should."""


def postmaster(server):
    with open(os.path.join(server.data, "postmaster.pid"), encoding="utf-8") as f:
        return int(f.readline())


def _stat(pid):
    """/proc/PID/stat behind the command, or None: state, ppid, ... utime, stime, cutime, cstime at 11 to 14."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _seconds(stat):
    return sum(int(field) for field in stat[11:15]) * TICK if stat else 0.0


def children(parent):
    """{pid: stat}, zombies too: nobody else accounts for their time yet."""
    stats = {int(name): _stat(name) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: stat for pid, stat in stats.items() if stat and int(stat[1]) == parent}


def family_seconds(pid):
    """Processor seconds of a process and its children; those that it has buried are in its own account."""
    return _seconds(_stat(pid)) + sum(_seconds(stat) for stat in children(pid).values())


def family_written(pid):
    """Bytes that a process and its living children gave the kernel to write to a disk."""
    return sum(_written(p) for p in [pid, *_descendants(pid)])


def _written(pid):
    try:
        with open(f"/proc/{pid}/io", encoding="utf-8") as f:
            return sum(int(line.split()[1]) for line in f if line.startswith("write_bytes:"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def peak(pid):
    """Of its resident bytes."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _descendants(pid):
    """Cheaper than to look through /proc, for it is asked often."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as f:
            children = [int(c) for c in f.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [d for c in children for d in _descendants(c)]


class _Memory:
    """Peaks of a program's processes, sampled.  The kernel keeps the peak, so only the last moments can be missed."""

    def __init__(self, pid):
        self._pid = pid
        self._peaks = {}

    def sample(self):
        for pid in [self._pid, *_descendants(self._pid)]:
            self._peaks[pid] = max(self._peaks.get(pid, 0), peak(pid))

    def total(self):
        return sum(self._peaks.values())


class _Accounts:
    """What the kernel counts, before and after."""

    def __init__(self, server_pid, helpers=()):
        self._server, self._helpers = server_pid, helpers
        self._processes = set(children(server_pid))
        self._before = {**self._machine(), "server_cpu": family_seconds(server_pid)}

    def _machine(self):
        busy, stolen = machine.processor_seconds()
        own = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) + sum(_seconds(_stat(h)) for h in self._helpers)
        return {"busy": busy, "stolen_cpu": stolen, "own": own, "wire": machine.loopback_bytes()}

    def difference(self):
        """The server's processes for this client may outlive it by a moment, which is still on its account."""
        after = self._machine()
        wait_until(lambda: set(children(self._server)) <= self._processes, "the client's server processes are gone")
        after["server_cpu"] = family_seconds(self._server)
        return {name: after[name] - value for name, value in self._before.items()}


def _wait(popen, memory):
    """Until it ends; samples its memory meanwhile."""
    fd = os.pidfd_open(popen.pid)
    try:
        while True:
            memory.sample()
            if select.select([fd], [], [], SAMPLE_SECONDS)[0]:
                return
    finally:
        os.close(fd)


def run(place, argv, server_pid, helpers=(), over_network=True):
    """Measures a program, run as the unprivileged user; Failed with what it said when it fails."""
    said_path = os.path.join(place.base, "said")
    with open(said_path, "w+", encoding="utf-8", errors="replace") as said:
        accounts = _Accounts(server_pid, helpers)
        start = time.monotonic()
        popen = subprocess.Popen(place.command(argv), env=place.environment(), cwd=place.base,
                                 stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        memory = _Memory(popen.pid)
        _wait(popen, memory)
        seconds = time.monotonic() - start
        _, status, usage = os.wait4(popen.pid, 0)
        popen.returncode = os.waitstatus_to_exitcode(status)
        counted = accounts.difference()
        if popen.returncode != 0:
            said.seek(0)
            raise Failed(f"{os.path.basename(argv[0])} ended with {popen.returncode}: {said.read().strip()}")
    return _measurement(seconds, usage, counted, memory.total(), over_network)


def _measurement(seconds, usage, counted, memory, over_network):
    client = usage.ru_utime + usage.ru_stime
    return {
        "seconds": seconds,
        "client_cpu": client,
        "server_cpu": counted["server_cpu"],
        "elsewhere_cpu": max(0.0, counted["busy"] - counted["server_cpu"] - counted["own"] - client),
        "stolen_cpu": counted["stolen_cpu"],
        "memory": memory,
        "wire": counted["wire"] if over_network else None,
        "written": usage.ru_oublock * 512,
    }


def direct_write(path, size, server_pid):
    """Measures a sequential write of `size` bytes past the page cache, in blocks of 1 MiB, and fsync."""
    block = mmap.mmap(-1, 1 << 20)  # aligned as O_DIRECT wants it
    block.write(os.urandom(len(block)))
    before = resource.getrusage(resource.RUSAGE_SELF)
    accounts = _Accounts(server_pid)
    start = time.monotonic()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o600)
    try:
        for offset in range(0, size, len(block)):
            if os.pwrite(fd, block, offset) != len(block):
                raise Failed("short write")
        os.fsync(fd)
    finally:
        os.close(fd)
    seconds = time.monotonic() - start
    counted = accounts.difference()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = resource.struct_rusage([a - b for a, b in zip(after, before)])
    # Our own time is this run's.
    counted["own"] = 0.0
    return {**_measurement(seconds, used, counted, 0, False), "memory": None}
