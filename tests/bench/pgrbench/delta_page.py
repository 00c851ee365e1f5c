"""docs/BENCHMARKS-DELTA.md and its drawings, from the results of one or several runs of the benchmark."""

from . import parts, plot
from .delta_goals import goals, of_database
from .figures import spread, times_as_fast

MB, GB, MIB = 1e6, 1e9, 1 << 20

INTRODUCTION = """\
# Benchmarks of pgr-basebackup --delta

An old copy of a cluster is made over: `pgr-basebackup --delta` beside full copies by `pg_basebackup` and `pgr-basebackup`,
and beside rsync: the same server, the same old copies, in turns. `make bench-delta` runs everything and writes this page;
the figures are those of one machine, and the ratios are what may carry over to another.
"""

METHOD = """\
## How it was measured

- Every round runs each way once; every other round runs them in the opposite order. A table shows the median of all
  rounds and in parentheses the smallest and the greatest value. "Times as fast" is the time of a full `pg_basebackup`
  divided by this one's, round by round, and of those ratios again median, smallest and greatest.
- The old copies are standbys that had run and were stopped; then the primary changed one row on so many pages of its
  largest table, which is half of the database, picked by a hash of their numbers. The new versions of the rows go to the
  end of the table. What differs was counted page by page when all was done:
{levels}
- Before each run the old copy is put back and synced, and what it holds leaves the page cache; the server makes a
  checkpoint, and its data is read once, so that it is in the page cache. Then we wait until the disk has nothing to do.
  A full copy begins with an empty directory.
- Where a run is killed halfway, the kill comes when as many bytes as half of the database has were seen at the loopback.
- Where the memory is held short, server, rsync daemon and client are one control group with a limit of memory, and of
  the server's data nothing is in the page cache at the beginning.
- `pg_basebackup` and `pgr-basebackup` run as shipped: WAL streamed along, a manifest with CRC-32C, page checksums
  verified, everything synced at the end.
- rsync runs against a daemon of its own on the server's directory, between backup start and stop over SQL, with
  `-a --delete --inplace`, and a sync at the end. It copies no WAL, writes no manifest and looks at no checksum of a page.
  Without `--checksum` it skips files of the same size and time; the old copies' files have the server's times where
  they were the same, as if rsync had made them. That is not safe: a page that is changed within the granularity of
  the times, or that was damaged here, stays as it is.
- The time is from the start of the program to its end. Processor time of the server is the postmaster's, of the rsync
  daemon, and of all their children. Bytes on the wire are counted at the loopback ({network}), headers
  included; with a line, by the relay, in both directions, without headers. Percentages are of the server's directory
  without its WAL.
- In the first round what `pgr-basebackup` made is checked by `pg_verifybackup`, outside the time.
"""

AGAIN = """\
## Once more

    make bench-delta                                          # everything; about an hour
    /usr/bin/python3 tests/bench/bench_delta.py --quick       # 1 GB, 2 rounds
    /usr/bin/python3 tests/bench/bench_delta.py --cases delta --rounds 7 --gb 8 --keep /var/tmp/pgr-bench
    /usr/bin/python3 tests/bench/bench_delta.py --server 18   # and with WAL summaries

Results are kept as JSON ({results}), so that cases can be measured one at a time; `--render` only writes the page.
"""

COLUMNS = ("", "time, s", "times as fast", "wire, MB", "wire, % of the database", "client CPU, s", "server CPU, s",
           "memory, MiB")


class DeltaPage:
    """results: {"machine", "versions", "scale", "cases": {key: what a contest returned}}; cases: those of delta_cases."""

    def __init__(self, results, cases, results_name):
        self._results, self._name = results, results_name
        # In the order of the cases, only what was measured.
        self._cases = [(case, results["cases"][key]) for key, case in cases.items() if key in results["cases"]]

    def write(self, directory):
        for case, measured in self._cases:
            parts.write(directory, f"bench-{case.key}.svg", _plot(case, measured))
        parts.write(directory, "BENCHMARKS-DELTA.md", self.text())

    def text(self):
        network = "in a network namespace of its own" if self._results["own_network"] else "shared with other programs"
        pieces = [INTRODUCTION, self._goals(), parts.BOUNDS, self._machine(),
                  METHOD.format(network=network, levels=self._levels()), "## Results\n"]
        pieces += ["\n".join(_section(case, measured)) for case, measured in self._cases]
        return "\n".join([*pieces, AGAIN.format(results=self._name)])

    # ---- parts of the page

    def _goals(self):
        rows = [(goal.what, goal.wanted, goal.found.text(2), "yes" if goal.reached else "**no**")
                for goal in goals(dict(self._results["cases"]), self._results["scale"]["summaries"])]
        return "\n".join(["## What it is to reach", "", *parts.table(("", "goal", "found", "reached"), rows), ""])

    def _machine(self):
        lines = parts.machine(self._results, "Client, server, rsync and relay")
        if self._results["machine"]["hypervisor"]:
            lines += [parts.NOISY, parts.noise([run for _, measured in self._cases
                                                for result in measured["contestants"].values()
                                                for run in result["runs"]])]
        return "\n".join([*lines, ""])

    def _levels(self):
        lines = []
        for _, measured in self._cases[:1]:
            for percent, level in measured["data"]["levels"].items():
                share = 100 * level["differ"] / level["pages"]
                lines.append(f"  - \"{percent} %\": {level['differ']:,} of {level['pages']:,} pages, {share:.2f} %")
        return "\n".join(lines)


def _section(case, measured):
    data = measured["data"]
    return [f"### {case.title}", "", case.about,
            f"{data['bytes'] / GB:.2f} GB in {data['files']:,} files. {parts.rounds(measured)}, begun "
            f"{measured['started']}.", "", f"![{case.title}](bench-{case.key}.svg)", "",
            *parts.table(COLUMNS, [_row(measured, c, r) for c, r in parts.measured_ones(case, measured)]), "",
            *parts.errors(case, measured)]


def _row(measured, c, result):
    other = measured["contestants"].get(c.against)
    ratio = times_as_fast(result, other) if other and c.name != c.against else None
    return [parts.code(c.name) if c.percent is not None else f"full: `{c.name}`", spread(result, "seconds").text(2),
            parts.optional(ratio, 2), parts.optional(spread(result, "wire"), 1, MB),
            parts.optional(of_database(result, measured["data"]["bytes"]), 2), spread(result, "client_cpu").text(2),
            spread(result, "server_cpu").text(2), parts.optional(spread(result, "memory"), 0, MIB)]


def _plot(case, measured):
    rows = [(c.name if c.percent is not None else f"full {c.name}", c.program, spread(result, "seconds"))
            for c, result in parts.measured_ones(case, measured)]
    return plot.bars(case.title, rows)
