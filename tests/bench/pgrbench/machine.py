"""The machine: a network of its own, counters, a quiet moment before each run, facts for the page."""

import fcntl
import os
import platform
import shutil
import socket
import struct
import subprocess
import time
import zlib

MARK = "PGR_BENCH_NETWORK"
SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x41


def isolate_network(argv):
    """Starts this program anew in a network namespace, so that nobody else's bytes pass our loopback.

    Returns in the new one (or in the old one where that is not allowed): whether the loopback is ours alone.
    """
    if MARK not in os.environ and os.geteuid() == 0 and shutil.which("unshare"):
        if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0:
            os.environ[MARK] = "own"
            os.execvp("unshare", ["unshare", "--net", "--", *argv])
    if MARK not in os.environ:
        return False
    with socket.socket() as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP_RUNNING))
    return True


def _read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def loopback_bytes():
    for line in _read("/proc/self/net/dev").split("\n"):
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    return 0


def processor_seconds():
    """What all processors did since the start: (busy, taken away by the hypervisor)."""
    fields = [int(f) / os.sysconf("SC_CLK_TCK") for f in _read("/proc/stat").split("\n", maxsplit=1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return user + nice + system + irq + softirq, steal


# ---- a quiet moment

def _unwritten_bytes():
    found = [line.split() for line in _read("/proc/meminfo").split("\n")]
    return sum(int(f[1]) for f in found if f and f[0] in ("Dirty:", "Writeback:")) * 1024


def _requests_in_flight(path):
    number = os.stat(path).st_dev
    try:
        return sum(int(n) for n in _read(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/inflight").split())
    except FileNotFoundError:
        return 0


def device_bytes_written(path):
    """What the device below this directory has written since the start, whoever asked for it; None: nobody knows."""
    number = os.stat(path).st_dev
    try:
        fields = _read(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").split()
    except FileNotFoundError:
        return None
    return int(fields[6]) * 512


def forget():
    """Empties the caches of files, names and inodes; whether that is allowed."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as f:
            f.write("3")
    except OSError:
        return False
    return True


def settle(path, patience=30.0):
    """Everything that was written is on the disk, and the disk has nothing to do; not longer than `patience`."""
    os.sync()
    end, calm = time.monotonic() + patience, 0
    while calm < 5 and time.monotonic() < end:
        quiet = _unwritten_bytes() < 64 << 20 and _requests_in_flight(path) == 0
        calm = calm + 1 if quiet else 0
        time.sleep(0.2)


def _files(top):
    for path, _, names in os.walk(top):
        for name in names:
            full = os.path.join(path, name)
            if os.path.isfile(full) and not os.path.islink(full):
                yield full


def warm(top):
    """Reads a directory, so that it is in the page cache."""
    buffer = bytearray(1 << 20)
    for path in _files(top):
        try:
            with open(path, "rb", buffering=0) as f:
                while f.readinto(buffer):
                    pass
        except FileNotFoundError:
            pass  # the server's, which runs


def cool(top):
    """Its files leave the page cache; what was not written yet stays."""
    for path in _files(top):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def warm_names(top):
    """Looks at a directory's names and inodes, so that they are in the kernel's caches."""
    with os.scandir(top) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


def tree_bytes(top):
    total = 0
    for path in _files(top):
        try:
            total += os.path.getsize(path)
        except FileNotFoundError:
            pass
    return total


def tree_files(top):
    return sum(1 for _ in _files(top))


def compresses(top):
    """How many times smaller zlib's fastest level makes the middle of the biggest file."""
    return file_compresses(max(_files(top), key=os.path.getsize))


def file_compresses(path, sample_bytes=32 << 20):
    with open(path, "rb") as f:
        f.seek(max(0, os.path.getsize(path) - sample_bytes) // 2)
        sample = f.read(sample_bytes)
    return len(sample) / len(zlib.compress(sample, 1))


# ---- facts

def _field(path, key):
    for line in _read(path).split("\n"):
        name, _, value = line.replace("=", ":", 1).partition(":")
        if name.strip() == key:
            return value.strip().strip('"')
    return "?"


def _said(*argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "?"
    return done.stdout.strip().split("\n")[0] or "?"


def file_system(path):
    return _said("findmnt", "--noheadings", "--output=FSTYPE", "--target", path)


def facts(path):
    return {
        "processor": _field("/proc/cpuinfo", "model name"),
        "processors": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "system": _field("/etc/os-release", "PRETTY_NAME"),
        "file_system": file_system(path),
        "hypervisor": "hypervisor" in _field("/proc/cpuinfo", "flags").split(),
        "openssl": " ".join(_said("openssl", "version").split()[:2]),
    }
