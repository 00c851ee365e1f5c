"""docs/BENCHMARKS-WAL.md and its drawings, from the results of one or several runs of the benchmark."""

from . import goal, parts, plot
from .figures import Spread, ratio, spread
from .wal_goals import goals, of_clients, per_wal_byte

MB, GB, MIB = 1e6, 1e9, 1 << 20

INTRODUCTION = """\
# Benchmarks of pgr-receivewal

`pgr-receivewal` beside Debian's `pg_receivewal` and a hot standby: the same server, the same WAL, in turns. `make
bench-wal` runs everything and writes this page; the figures are those of one machine, and the ratios are what may carry
over to another.
"""

METHOD = """\
## How it was measured

- Every round runs each receiver once; every other round runs them in the opposite order. A table shows the median of
  all rounds and in parentheses the smallest and the greatest value. Ratios are taken round by round, and of those again
  median, smallest and greatest.
- Before each run everything is synced, and we wait until the disk has nothing to do.

Catching up:

- The server has kept the WAL for a slot: rows inserted into, changed in and removed from a table with an index. It is
  in the page cache. Each receiver begins with an empty directory and a copy of that slot, and ends behind the last
  segment (`--endpos`); the time is from the start of the program to its end. All connect with TCP, without TLS.
- "Thrown away" is a program that reads the stream and does nothing with it: what server and connection give.
- Processor time of the server is the postmaster's and all its children's. Memory is the peak of the resident size.
- Bytes written for a byte of WAL, in two ways. "By the program" is what it gave the kernel to write (`write_bytes` of
  /proc/PID/io; a page of the cache counts when it becomes dirty, and again if it does so after it was written out). "By
  the device" is what the disk says that it has written from the start to a sync at the end, and so has the file
  system's journal in it, and whatever others wrote meanwhile.
- In the first round the segments are compared with the server's own, byte for byte, outside the time; of compressed
  ones every sixteenth.

Commits:

- `pgbench` commits single-row inserts, prepared, through a Unix socket, with one and with several clients, and logs
  each transaction; the percentiles are computed from these logs (of a run with a few hundred commits p99.9 is the
  slowest). The primary runs as shipped (its own fsync included),
  with segments of 16 MB, and no checkpoint in a run. Primary and standby have segments ready for what comes, as
  checkpoints leave them on a server that has run for a while; the receivers make theirs, as they always have to.
- Beside the clients, one session writes WAL at a steady rate without waiting for it ({beside}), so that
  segments end often enough to be seen in the percentiles, however few commits there are. The tables say how many ended
  in a run.
- The hot standby is seeded by `pgr-basebackup` before each turn, on the same disk, and runs as shipped
  (synchronous_commit=on on the primary: it has to have flushed, not to have replayed).
- The slow disk is made by a preloaded library, in the sink alone: each fsync and fdatasync takes so much longer, one
  at a time. For the standby that goes for the files in its pg_wal, in each of its processes for itself.
- The sink's bytes are what its processes gave the kernel to write (see above); for the standby, whose data files are in
  it as well, that is not its WAL alone.

Starting:

- The time is from the start of the program until the server has got its START_REPLICATION, by the server's log. "Cold":
  the kernel's caches of files, names and inodes were emptied before; the program itself was read again.
  Otherwise all names and inodes were looked at before.
"""

AGAIN = """\
## Once more

    make bench-wal                                            # everything; about three quarters of an hour
    /usr/bin/python3 tests/bench/bench_wal.py --quick         # 0.5 GB, 2 rounds of 5 seconds, 100,000 files
    /usr/bin/python3 tests/bench/bench_wal.py --cases catchup --rounds 7 --gb 8

Results are kept as JSON ({results}), so that cases can be measured one at a time; `--render` only writes the page.
"""

CATCHUP = ("", "time, s", "times as fast", "MB/s", "client CPU, s", "server CPU, s", "memory, MiB",
           "written per byte of WAL, by the program", "by the device")
COMMITS = ("", "commits/s", "by pg_receivewal's", "p50, ms", "p99, ms", "p99 by pg_receivewal's", "p99.9, ms",
           "segments ended", "sink's bytes per byte of WAL", "sink's CPU, s", "server's CPU, s")
STARTS = ("", "time, s", "times as fast", "CPU, s", "memory, MiB")


class WalPage:
    """results: {"machine", "versions", "cases": {key: what a contest returned}}; cases: those of wal_cases."""

    def __init__(self, results, cases, results_name):
        self._results, self._name = results, results_name
        # In the order of the cases, only what was measured.
        self._cases = [(case, results["cases"][key]) for key, case in cases.items() if key in results["cases"]]

    def write(self, directory):
        for case, measured in self._cases:
            for name, drawing in _drawings(case, measured):
                parts.write(directory, name, drawing)
        parts.write(directory, "BENCHMARKS-WAL.md", self.text())

    def text(self):
        pieces = [INTRODUCTION, goal.section(goals(dict(self._results["cases"]))), parts.BOUNDS, self._machine(), METHOD.format(beside=self._beside()), "## Results\n"]
        pieces += ["\n".join(_section(case, measured)) for case, measured in self._cases]
        return "\n".join([*pieces, AGAIN.format(results=self._name)])

    # ---- parts of the page

    def _machine(self):
        lines = parts.machine(self._results, "Clients, server and receivers")
        if self._results["machine"]["hypervisor"]:
            lines += [parts.NOISY, parts.noise([run for case, measured in self._cases if case.kind == "catchup"
                                                for result in measured["contestants"].values()
                                                for run in result["runs"]])]
        return "\n".join([*lines, ""])

    def _beside(self):
        rates = {measured["data"]["beside"] for case, measured in self._cases if case.kind == "commit"}
        return " and ".join(f"{rate:g} MB a second" for rate in sorted(rates)) or "not measured here"


# ---- cases

def _section(case, measured):
    lines, drawings = _TABLES[case.kind](case, measured), _drawings(case, measured)
    return [f"### {case.title}", "", case.about, f"{_data(case, measured)} {parts.rounds(measured)}, begun "
            f"{measured['started']}.", "", *(f"![{case.title}]({name})" for name, _ in drawings), "", *lines, "",
            *parts.errors(case, measured)]


def _data(case, measured):
    data = measured["data"]
    if case.kind == "catchup":
        return (f"{data['bytes'] / GB:.2f} GB in segments of {data['segment_bytes'] >> 20} MB, which zlib's level 1 "
                f"makes {data['compresses']:.1f} times smaller.")
    if case.kind == "commit":
        return f"{data['seconds']} seconds for each number of clients."
    return f"{data['files']:,} segments."


def _against(measured, contestant, value):
    """value(run) by that of whom it is compared with; None for itself."""
    if contestant.name == contestant.against:
        return None
    mine, other = (measured["contestants"].get(name, {"runs": []}) for name in (contestant.name, contestant.against))
    return ratio(mine, other, value)


def _times_as_fast(measured, contestant):
    return _against(measured, contestant, lambda run: 1 / run["seconds"])


def _catchup_table(case, measured):
    rows = []
    for c, result in parts.measured_ones(case, measured):
        rows.append((
            parts.code(c.name) if c.program != "raw" else c.name, spread(result, "seconds").text(2),
            parts.optional(_times_as_fast(measured, c), 2),
            Spread.of([run["copied"] / run["seconds"] for run in result["runs"]]).text(0, MB),
            spread(result, "client_cpu").text(2), spread(result, "server_cpu").text(2),
            spread(result, "memory").text(0, MIB), parts.optional(per_wal_byte("written", result), 2),
            parts.optional(per_wal_byte("device", result), 2)))
    return parts.table(CATCHUP, rows)


def _commit_table(case, measured):
    rows = []
    for clients in map(str, measured["data"]["clients"]):
        for c, whole in parts.measured_ones(case, measured):
            result = of_clients(whole, clients)
            rows.append((
                f"{_clients(clients)}: {_sink(c)}", spread(result, "tps").text(0),
                parts.optional(_against(measured, c, lambda run, n=clients: run["clients"][n]["tps"]), 2),
                spread(result, "p50").text(2), spread(result, "p99").text(1),
                parts.optional(_against(measured, c, lambda run, n=clients: run["clients"][n]["p99"]), 2),
                spread(result, "p999").text(1), spread(result, "switches").text(0),
                *_of_the_sink(c, result), spread(result, "server_cpu").text(2)))
    return parts.table(COMMITS, rows)


def _of_the_sink(contestant, result):
    if contestant.program == "none":
        return "", ""
    written = Spread.of([run["written"] / run["wal"] for run in result["runs"]])
    return written.text(2), spread(result, "sink_cpu").text(2)


def _start_table(case, measured):
    rows = [(parts.code(c.name), spread(result, "seconds").text(2),
             parts.optional(_times_as_fast(measured, c), 2), spread(result, "client_cpu").text(2),
             spread(result, "memory").text(0, MIB)) for c, result in parts.measured_ones(case, measured)]
    return parts.table(STARTS, rows)


_TABLES = {"catchup": _catchup_table, "commit": _commit_table, "start": _start_table}


def _clients(number):
    return f"{number} client{'s' if number != '1' else ''}"


def _sink(contestant):
    """A program's options belong to what one types."""
    return contestant.name if contestant.program in ("none", "standby") else f"`{contestant.name}`"


# ---- drawings

def _drawings(case, measured):
    """[(name of the file, content)]"""
    name = f"bench-wal-{case.key}"
    if case.kind != "commit":
        rows = [(c.name, c.program, spread(result, "seconds")) for c, result in parts.measured_ones(case, measured)]
        return [(f"{name}.svg", plot.bars(case.title, rows))]
    return [(f"{name}.svg", _commit_bars(case, measured, "tps", "commits a second", "")),
            (f"{name}-p99.svg", _commit_bars(case, measured, "p99", "99 of 100 commits took at most so long", " ms"))]


def _commit_bars(case, measured, quantity, what, unit):
    # Beside a slow sink none at all would leave no room for the others.
    shown = [(c, r) for c, r in parts.measured_ones(case, measured) if not (case.sync_ms and c.program == "none")]
    rows = [(f"{_clients(n)}, {c.name.removesuffix(' --synchronous')}", c.program, spread(of_clients(r, n), quantity))
            for n in map(str, measured["data"]["clients"]) for c, r in shown]
    return plot.bars(case.title, rows, f"{what}: median, smallest and greatest of the rounds", 0 if unit == "" else 1,
                     unit)
