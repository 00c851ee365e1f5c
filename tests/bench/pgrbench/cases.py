"""What is compared."""

from dataclasses import dataclass, field, replace

from .data import Data

STOCK = "pg_basebackup"
OURS = "pgr-basebackup"


@dataclass(frozen=True)
class Contestant:
    """A way to copy the data directory.

    program   "stock", "ours", "cp", "raw"
    via       "tcp", "unix", "tls", or the name of one of the case's relays
    user      `repl` has only the attribute REPLICATION
    against   the name of the contestant that it is compared with
    """

    name: str
    program: str
    via: str = "tcp"
    options: tuple = ()
    user: str = "postgres"
    against: str = STOCK


@dataclass(frozen=True)
class Case:
    key: str
    title: str
    about: str
    data: Data
    contestants: list
    relays: dict = field(default_factory=dict)  # name -> options of the relay
    plain: bool = True  # the result is a data directory, which pg_verifybackup can check
    beside: tuple = ()  # (name, other name): also tell how much longer the first takes than the second
    keep: bool = False  # no copy is removed before all are made

    def contestant(self, name):
        return next(c for c in self.contestants if c.name == name)


@dataclass(frozen=True)
class Features:
    """What the program under test can do, by its --help."""

    jobs: bool
    tar: bool

    @staticmethod
    def of(help_text):
        formats = [line for line in help_text.split("\n") if "--format" in line]
        values = formats[0].partition("=")[2].split()[0] if formats else ""
        return Features(jobs="--jobs" in help_text, tar="t" in values)


@dataclass(frozen=True)
class Scale:
    """How much data: `gigabytes` for most cases, less where a slow network is the subject."""

    gigabytes: float
    capped_gigabytes: float
    tables: int
    checksums: bool


def _stock(via="tcp", options=(), suffix=""):
    return Contestant(STOCK + suffix, "stock", via, tuple(options), against=STOCK + suffix)


def _ours(features, jobs, via="tcp", options=(), suffix=""):
    """pgr-basebackup with these numbers of jobs; None: as it chooses itself.  Only one way if it has no choice yet."""
    if not features.jobs:
        return [Contestant(OURS + suffix, "ours", via, tuple(options), "repl", STOCK + suffix)]
    return [Contestant(f"{OURS}{f' -j{n}' if n else ''}{suffix}", "ours", via,
                       (*((f"--jobs={n}",) if n else ()), *options), "repl" if n == 1 else "postgres", STOCK + suffix)
            for n in jobs]


COPY = Contestant("cp -r, sync", "cp")


def _tcp(f, data):
    ways, raw = _ours(f, (None, 1, 2, 4, 8)), Contestant("raw O_DIRECT write", "raw")
    return Case(
        "tcp", "TCP, nothing in the way",
        "Client and server on one machine: the disk and the processors are the limit.", data,
        [_stock(), *ways, COPY, raw], beside=tuple((way.name, raw.name) for way in ways))


def _unix(f, data):
    return Case("unix", "Unix socket", "As above, through a Unix socket.", data,
                [_stock("unix"), *_ours(f, (1, 2), "unix")])


def _tls(f, data):
    return Case("tls", "TLS", "As the first, encrypted (sslmode=require).", data,
                [_stock("tls"), *_ours(f, (1, 2, 4), "tls")])


def _tar(f, data):
    # tar comes in one stream, whoever asks
    one = replace(f, jobs=False)
    packed = {"options": ["-Ft", "-z"], "suffix": ", gzip"}
    return Case("tar", "Tar format", "Into tar files (-Ft), not compressed and with gzip here (-z).", data,
                [_stock(options=["-Ft"]), *_ours(one, (), options=["-Ft"]), _stock(**packed), *_ours(one, (), **packed)],
                plain=False)


def _capped(f, data):
    return Case(
        "capped", "Each connection limited to 30 MB/s",
        "As in many clouds: a relay passes 30 MB/s per connection and direction.", data,
        [_stock("relay"), *_ours(f, (1, 4, 8), "relay")], {"relay": {"rate": 30_000_000}})


def _delay(f, data):
    near, far = ([_stock(via, suffix=suffix), *_ours(f, (1, 4), via, suffix=suffix)]
                 for via, suffix in (("near", ", near"), ("far", ", 40 ms")))
    return Case(
        "delay", "A delay of 40 ms each way",
        "A relay passes 250 MB/s in all, without a delay (near) and with 40 ms each way.",
        data, near + far, {"near": {"link_rate": 250_000_000}, "far": {"link_rate": 250_000_000, "delay": 40}},
        beside=tuple((b.name, a.name) for a, b in zip(near, far)))


def _small(f, data):
    return Case(
        "small", f"{data.tables:,} small tables",
        "Each table is one file of 8 KiB, without indexes.  Copies are removed only when all are made: a file system "
        "may be slow at making files where many were just removed (ext4 does not use their inodes for a while, and "
        "looks at each).", data,
        [_stock(), *_ours(f, (1, 2, 4)), COPY], keep=True)


def all_cases(features, scale):
    """{key: Case}, in the order in which they run; one server after the other."""
    data = Data(scale.gigabytes, checksums=scale.checksums)
    capped = Data(scale.capped_gigabytes, checksums=scale.checksums)
    small = Data(tables=scale.tables, checksums=scale.checksums)
    cases = [_tcp(features, data), _unix(features, data), _tls(features, data)]
    if features.tar:
        cases.append(_tar(features, data))
    cases += [_delay(features, data), _capped(features, capped), _small(features, small)]
    return {case.key: case for case in cases}
