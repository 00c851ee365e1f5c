"""What is compared where an old copy is made over: full copies, the delta and rsync."""

from dataclasses import dataclass

from .data import Data

STOCK, OURS = "pg_basebackup", "pgr-basebackup"
PERCENTS = (0, 1, 10, 50)
LINE_BYTES = 100_000_000  # a second, in each direction
MEMORY_SHARE = 10
LARGER = 2


@dataclass(frozen=True)
class Contestant:
    """A way to have the server's directory.

    program   "stock", "ours" (full copies), "delta", "rsync"
    percent   of the pages differ in the directory that it begins with; None: there is none
    killed    it begins with what the same command left that was killed when half of the database had come
    way       what a reader calls it, whatever the percentage
    """

    name: str
    program: str
    way: str
    options: tuple = ()
    percent: int = None
    killed: bool = False
    against: str = STOCK


@dataclass(frozen=True)
class Case:
    key: str
    title: str
    about: str
    data: Data
    contestants: list
    line: int = 0  # bytes a second; 0: as much as the loopback takes
    memory_share: int = 0  # server and client have this part of the database's size; 0: what the machine has

    def contestant(self, percent, way):
        return next(c for c in self.contestants if (c.percent, c.way) == (percent, way))


class DeltaData(Data):
    """As for full copies; the server writes summaries of its WAL where it can."""

    def __init__(self, gigabytes, summaries):
        super().__init__(gigabytes)
        self.summaries = summaries
        self.measured = {**Data.measured, **({"summarize_wal": "on"} if summaries else {})}

    @property
    def name(self):
        return f"delta-{super().name}"


def ways(summaries):
    """(way, program, options)"""
    found = [(f"{OURS} --delta=hash", "delta", ("--delta=hash",))]
    if summaries:
        found.append((f"{OURS} --delta=summary", "delta", ("--delta=summary",)))
    return [*found, ("rsync", "rsync", ()), ("rsync --checksum", "rsync", ("--checksum",))]


def _contestants(summaries, percents=PERCENTS):
    full = [Contestant(STOCK, "stock", STOCK), Contestant(OURS, "ours", OURS)]
    return full + [Contestant(f"{way}, {percent} %", program, way, options, percent)
                   for percent in percents for way, program, options in ways(summaries)]


def killed(way):
    return f"{way}, killed halfway"


def _resumed(summaries):
    """The time of what was killed is nobody's."""
    return [Contestant(OURS, "ours", OURS)] + [
        Contestant(killed(way), program, way, options, killed=True)
        for way, program, options in ways(summaries) if program == "delta"]


def _larger(summaries):
    """Nobody but us: what of a run does not grow with the database."""
    return [c for c in _contestants(summaries, PERCENTS[:2]) if c.program in ("ours", "delta")]


def all_cases(gigabytes, summaries):
    """{key: Case}, in the order in which they run."""
    data = DeltaData(gigabytes, summaries)
    cases = [
        Case("delta", "Nothing in the way", "Client and server on one machine: its disk and processors are the limit.",
             data, _contestants(summaries)),
        Case("delta-line", f"A line of {LINE_BYTES // 1_000_000} MB/s",
             "A relay passes so much in each direction, over all connections together.", data,
             _contestants(summaries), LINE_BYTES),
        Case("delta-resume", "Killed, and run again",
             "A first seed is killed when half of the database has come; what is measured is the same command's next run.",
             data, _resumed(summaries)),
        Case("delta-size", f"{LARGER} times the database",
             "What a run transfers whatever the size (the last WAL, manifests, what is no increment) weighs "
             "less.", DeltaData(LARGER * gigabytes, summaries), _larger(summaries)),
        Case("delta-memory", f"A database of {MEMORY_SHARE} times the memory",
             "Server and client together, with what they have in the page cache, are held to a "
             f"{MEMORY_SHARE}th of the database's size, and nothing of it is in memory when they begin.",
             data, _contestants(summaries, PERCENTS[:2]), memory_share=MEMORY_SHARE),
    ]
    return {case.key: case for case in cases}
