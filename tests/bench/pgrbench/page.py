"""docs/BENCHMARKS.md and its drawings, from the results of one or several runs of the benchmark."""

from . import goal, parts, plot
from .figures import speed, spread, times_as_fast
from .seed_goals import goals

MB, GB, MIB = 1e6, 1e9, 1 << 20

INTRODUCTION = """\
# Benchmarks

`pgr-basebackup` beside Debian's `pg_basebackup`: the same server, the same data, in turns. `make bench` runs everything
and writes this page; the figures are those of one machine, and the ratios are what may carry over to another.
"""

METHOD = """\
## How it was measured

- Every round runs each program once; every other round runs them in the opposite order. A table shows the median of
  all rounds and in parentheses the smallest and the greatest value. "Times as fast" is the other program's time divided
  by this one's, round by round, and of those ratios again median, smallest and greatest.
- The programs run as shipped: WAL streamed along (`-X stream`), a manifest with CRC-32C, page checksums verified, and
  **everything synced to disk at the end**. The only options are the connection, the directory, `--checkpoint=fast` and
  what the first column says. `-j1` connects as a role that has REPLICATION and nothing else; the others as a superuser.
- The time is from the start of the program to its end. Processor time of the client is its own and its children's, of
  the server the postmaster's and all its children's. Memory is the peak of the resident size, summed over the program's
  processes. Bytes on the wire are counted at the loopback ({network}), headers included; a Unix
  socket has none.
- Before each run: the previous copy is removed, the server makes a checkpoint, its data directory is read once so that
  it is in the page cache, everything is synced, and we wait until the disk has nothing to do.
- In the first round each copy of `pgr-basebackup` is checked by `pg_verifybackup`, outside the time.
- The relay reads from the server through a Unix socket and is one process; its processor time is not counted anywhere.
- `cp -r, sync` copies the running server's directory with its WAL: no backup, but what one would compare a backup's
  speed with. `raw O_DIRECT write` writes as many bytes as the backup has into one file, in blocks of 1 MiB past the
  page cache, and syncs it: what the disk takes from one writer who has nothing else to do.
"""

AGAIN = """\
## Once more

    make bench                                            # everything; about an hour
    /usr/bin/python3 tests/bench/bench.py --quick         # 1 GB, 2 rounds
    /usr/bin/python3 tests/bench/bench.py --cases tcp,tls --pairs 7 --gb 8 --keep /var/tmp/pgr-bench

Results are kept as JSON ({results}), so that cases can be measured one at a time; `--render` only writes the page.
"""

WORSE = """\
## Where it is worse

Medians of `pgr-basebackup` that are worse than those of `pg_basebackup` by more than 2 %, and by more than chance:
0.05 s, 1 MiB of memory, on the wire one segment of WAL.
"""

# name, title, unit, its size, and the difference that means nothing
QUANTITIES = (
    ("seconds", "time", "s", 1, 0.05),
    ("client_cpu", "client CPU", "s", 1, 0.05),
    ("server_cpu", "server CPU", "s", 1, 0.05),
    ("memory", "memory", "MiB", MIB, MIB),
    ("wire", "bytes on the wire", "MB", MB, 17 * MB),
)

COLUMNS = ("", "time, s", "times as fast", "MB/s", "client CPU, s", "server CPU, s", "memory, MiB", "wire, MB")


class Page:
    """results: {"machine", "versions", "network", "cases": {key: what Contest.run returns, with title, about, ...}}."""

    def __init__(self, results, cases, results_name):
        self._results, self._name = results, results_name
        # In the order of the cases, only what was measured.
        self._cases = [(case, results["cases"][key]) for key, case in cases.items() if key in results["cases"]]

    def write(self, directory):
        for case, measured in self._cases:
            parts.write(directory, f"bench-{case.key}.svg", self._plot(case, measured))
        parts.write(directory, "BENCHMARKS.md", self.text())

    def text(self):
        network = "in a network namespace of its own" if self._results["own_network"] else "shared with other programs"
        pieces = [INTRODUCTION, self._summary(), goal.section(goals(self._results["cases"])), parts.BOUNDS, self._machine(), METHOD.format(network=network), "## Results\n"]
        pieces += [self._case(case, measured) for case, measured in self._cases]
        pieces += [self._worse(), AGAIN.format(results=self._name)]
        return "\n".join(piece for piece in pieces if piece)

    # ---- parts of the page

    def _summary(self):
        lines = ["Where there are several ways, the quickest one of `pgr-basebackup`:", "",
                 "| | `pg_basebackup`, s | `pgr-basebackup`, s | times as fast |", "|---|--:|--:|--:|"]
        for case, measured in self._cases:
            for name, ratio in self._best(case, measured):
                seconds, base = (spread(measured["contestants"][n], "seconds")
                                 for n in (name, case.contestant(name).against))
                cells = (f"{case.title}: {parts.code(name)}", base.text(2), seconds.text(2), f"**{ratio.text(2)}**")
                lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, ""])

    @staticmethod
    def _best(case, measured):
        """Of those with the same opponent, our quickest way."""
        best = {}
        for c in case.contestants:
            ratio = _ratio(case, measured, c)
            if c.program == "ours" and ratio and (c.against not in best or ratio.middle > best[c.against][1].middle):
                best[c.against] = (c.name, ratio)
        return best.values()

    def _machine(self):
        return "\n".join([*parts.machine(self._results, "Client, server and relay"), *self._caveats(), ""])

    def _caveats(self):
        caveats = []
        if self._results["machine"]["hypervisor"]:
            results = [r for _, measured in self._cases for r in measured["contestants"].values()]
            caveats += [parts.NOISY, parts.noise([run for result in results for run in result["runs"]])]
        caveats += self._slow_page_cache()
        return caveats

    def _slow_page_cache(self):
        found = {c.program: speed(measured["contestants"].get(c.name, {"runs": []}))
                 for case, measured in self._cases if case.key == "tcp"
                 for c in case.contestants if c.program in ("cp", "raw")}
        if not found.get("cp") or not found.get("raw"):
            return []
        cp, raw = found["cp"].middle / MB, found["raw"].middle / MB
        if raw < 1.5 * cp:
            return []
        return [f"- **Its page cache is slow.** Files copied through it and synced get {cp:.0f} MB/s, where a write",
                f"  past it gets {raw:.0f} MB/s. `pg_basebackup` writes through the page cache, `pgr-basebackup`",
                "  past it where it can; with a fast page cache and a slow disk the difference is smaller."]

    def _case(self, case, measured):
        data = measured["data"]
        lines = [
            f"### {case.title}", "",
            f"{case.about}",
            f"{data['bytes'] / GB:.2f} GB in {data['files']:,} files, which zlib's level 1 makes "
            f"{data['compresses']:.1f} times smaller. {parts.rounds(measured)}, begun {measured['started']}.", "",
            f"![{case.title}](bench-{case.key}.svg)", "",
            *parts.table(COLUMNS, [self._row(case, measured, c, r) for c, r in parts.measured_ones(case, measured)]),
        ]
        return "\n".join([*lines, "", *self._beside(case, measured), *parts.errors(case, measured)])

    @staticmethod
    def _beside(case, measured):
        lines = []
        for name, other in case.beside:
            mine, its = (measured["contestants"].get(n, {"runs": []}) for n in (name, other))
            longer = times_as_fast(its, mine)
            if longer:
                lines.append(f"- {parts.code(name)} takes {longer.text(2)} times as long as {parts.code(other)}.")
        return [*lines, ""] if lines else []

    @staticmethod
    def _row(case, measured, c, result):
        ratio = _ratio(case, measured, c)
        return [
            parts.code(c.name), spread(result, "seconds").text(2), ratio.text(2) if ratio else "",
            speed(result).text(0, MB), spread(result, "client_cpu").text(2),
            spread(result, "server_cpu").text(2) if c.program in ("stock", "ours") else "",
            parts.optional(spread(result, "memory"), 0, MIB), parts.optional(spread(result, "wire"), 0, MB),
        ]

    def _worse(self):
        """Everything in which a way of ours is behind what it is compared with."""
        lines = []
        for case, measured in self._cases:
            for c in (c for c in case.contestants if c.program == "ours"):
                mine, other = (measured["contestants"].get(name, {"runs": []}) for name in (c.name, c.against))
                behind = [text for text in (_behind(q, mine, other) for q in QUANTITIES) if text]
                if behind:
                    lines.append(f"- {case.title}, {parts.code(c.name)}: {'; '.join(behind)}.")
        return "\n".join([WORSE, *(lines or ["- nothing"]), ""])

    @staticmethod
    def _plot(case, measured):
        rows = [(c.name, c.program, spread(result, "seconds")) for c, result in parts.measured_ones(case, measured)]
        return plot.bars(case.title, rows)


def _behind(quantity, mine, other):
    name, title, unit, size, chance = quantity
    mine, other = spread(mine, name), spread(other, name)
    if not mine or not other or mine.middle <= max(1.02 * other.middle, other.middle + chance):
        return None
    return f"{title} {mine.middle / size:.2f} {unit} against {other.middle / size:.2f}"


def _ratio(case, measured, c):
    if c.name == c.against:
        return None
    mine, other = (measured["contestants"].get(name) for name in (c.name, c.against))
    return times_as_fast(mine, other) if mine and other else None
