"""What is compared of receivers of WAL."""

from dataclasses import dataclass

from .wal_data import Accounts, Backlog, Old

STOCK = "pg_receivewal"
OURS = "pgr-receivewal"
STANDBY = "hot standby"
NONE = "no synchronous standby"


@dataclass(frozen=True)
class Contestant:
    """A receiver.

    program   "stock", "ours", "raw" (throws the bytes away), "standby", "none"
    against   the name of the contestant that it is compared with
    mixed     (start) the archive has compressed segments as well
    cold      (start) the kernel's caches are empty
    """

    name: str
    program: str
    options: tuple = ()
    against: str = STOCK
    mixed: bool = False
    cold: bool = False


@dataclass(frozen=True)
class Case:
    """kind: "catchup", "commit", "start".  sync_ms: by so much the receiver's syncs take longer."""

    key: str
    kind: str
    title: str
    about: str
    data: object
    contestants: tuple
    sync_ms: int = 0

    def contestant(self, name):
        return next(c for c in self.contestants if c.name == name)


def _catchup(gigabytes, methods):
    """methods: of compression, which the program under test takes."""
    stock_lz4 = f"{STOCK}, -Z lz4"
    contestants = [Contestant(STOCK, "stock"), Contestant(OURS, "ours"), Contestant("thrown away", "raw"),
                   Contestant(stock_lz4, "stock", ("-Z", "lz4"), stock_lz4)]
    contestants += [Contestant(f"{OURS}, -Z {method}", "ours", ("-Z", method), stock_lz4) for method in methods]
    return Case(
        "catchup", "catchup", "Catching up",
        "A server has kept WAL since a slot was made; a receiver takes all of it, from the slot's position on, and "
        "ends.", Backlog(gigabytes), tuple(contestants))


def _commit(key, title, about, sync_ms=0):
    synchronous = ("--synchronous",)
    stock = f"{STOCK} --synchronous"
    return Case(key, "commit", title, about, Accounts(), (
        Contestant(NONE, "none", against=stock), Contestant(STANDBY, "standby", against=stock),
        Contestant(stock, "stock", synchronous, stock), Contestant(f"{OURS} --synchronous", "ours", synchronous, stock),
    ), sync_ms)


def _start():
    cold = f"{STOCK}, cold"
    return Case(
        "start", "start", "Starting in a large archive",
        "From the start of the program until the server gets START_REPLICATION.  The segments are sparse files without "
        "content; in the mixed archive three of four carry the names of compressed ones.", Old(), (
            Contestant(STOCK, "stock"), Contestant(OURS, "ours"), Contestant(f"{OURS}, mixed", "ours", mixed=True),
            Contestant(cold, "stock", against=cold, cold=True),
            Contestant(f"{OURS}, cold", "ours", against=cold, cold=True)))


def all_cases(gigabytes, methods, sync_ms=5):
    """{key: Case}, in the order in which they run."""
    cases = [
        _catchup(gigabytes, methods),
        _commit("commit", "Commits that wait for the sink",
                "Each client commits one row after the other and waits until the sink has it on disk."),
        _commit("slow", f"Commits that wait for a slow sink: {sync_ms} ms more for each sync",
                f"As above, but each fsync and fdatasync of the sink takes {sync_ms} ms longer, as on many clouds' "
                "volumes.  The primary's own disk stays as it is.", sync_ms),
        _start(),
    ]
    return {case.key: case for case in cases}
