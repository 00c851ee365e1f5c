"""Compares pgr-basebackup --delta with full copies and with rsync, and writes docs/BENCHMARKS-DELTA.md.

/usr/bin/python3 tests/bench/bench_delta.py [--cases delta,delta-line] [--rounds N] [--gb N] [--server MAJOR] [--quick] ...

PGR_BIN_DIR  where pgr-basebackup and tests/bench/relay are, relative to the tree (default build/plain)
TMPDIR       on the disk that is to be measured (default /tmp)
"""

import argparse
import shutil
import sys

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
from pgrbench import harness
from pgrbench.data import Servers
from pgrbench.delta_cases import all_cases
from pgrbench.delta_contest import Bench, DeltaContest
from pgrbench.delta_page import DeltaPage
from pgrtest import installs
from pgrtest.programs import Programs
from pgrtest.server import Clusters


def parse(argv):
    p = argparse.ArgumentParser(description="pgr-basebackup --delta, full copies and rsync, in turns, on one server")
    harness.arguments(p, "results-delta.json")
    p.add_argument("--rounds", type=int, help="(default 5)")
    p.add_argument("--gb", type=float, help="size of the data (default 4)")
    p.add_argument("--server", default="debian", metavar="MAJOR",
                   help="a server of tests/support/fetch-servers.sh (default: Debian's); from 17 on with WAL summaries")
    p.add_argument("--quick", action="store_true", help="2 rounds, 1 GB, where not said otherwise")
    args = p.parse_args(argv)
    harness.usual_or_quick(args, ("rounds", 5, 2), ("gb", 4.0, 1.0))
    return args


def reader(name, major):
    """The path of a program for this version's files, or None."""
    try:
        return installs.reader_of(name, major)[0]
    except installs.Missing:
        return None


def measure(args, cases, place, results):
    if shutil.which("rsync") is None:
        sys.exit("rsync is not installed: tests/support/install-deps.sh bench")
    # A server, four old copies, the one at work, and WAL; databases of another size lie beside it with their old copies.
    sizes = sorted({cases[key].data.gigabytes for key in harness.choose(args, cases)})
    harness.need_room(place.base, 7 * sizes[-1] + 6 * sum(sizes[:-1]) + 4)
    install = installs.find(args.server)
    clusters, ours = Clusters(place), Programs(place).basebackup_path
    stock, _ = installs.reader_of("pg_basebackup", install.major)
    servers = Servers(clusters, install, harness.directory_for_data(place, args.keep), None, harness.tell)
    contest = DeltaContest(Bench(place, stock, ours, reader("pg_verifybackup", install.major), clusters, servers,
                                 harness.tell))
    harness.describe(results, args, place, install, stock, ours)
    harness.run_cases(args, cases, results, lambda case: contest.run(case, args.rounds), servers)


def scale_of(args, _):
    return {"gigabytes": args.gb, "summaries": installs.find(args.server).major >= 17}


if __name__ == "__main__":
    sys.exit(harness.main(parse(sys.argv[1:]), scale_of, lambda scale, _: all_cases(**scale), measure, DeltaPage))
