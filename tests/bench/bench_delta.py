"""Compares pgr-basebackup --delta with full copies and with rsync, and writes docs/BENCHMARKS-DELTA.md.

/usr/bin/python3 tests/bench/bench_delta.py [--cases delta,delta-line] [--rounds N] [--gb N] [--server MAJOR] [--quick] ...

PGR_BIN_DIR  where pgr-basebackup and tests/bench/relay are, relative to the tree (default build/plain)
TMPDIR       on the disk that is to be measured (default /tmp)
"""

import argparse
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path[:0] = [HERE, os.path.join(TREE, "tests", "integration")]
# Nothing here has to be quick; this only ends what hangs.
os.environ.setdefault("PGR_PATIENCE", "3600")
os.environ.pop("PGR_KEEP", None)

# pylint: disable=wrong-import-position
from pgrbench import harness
from pgrbench.data import Servers
from pgrbench.delta_cases import all_cases
from pgrbench.delta_contest import Bench, DeltaContest
from pgrbench.delta_page import DeltaPage
from pgrtest import installs
from pgrtest.place import Place
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


def measure(args, install, chosen, cases, place, results):
    """Runs the chosen cases; `results` is saved after each."""
    if shutil.which("rsync") is None:
        sys.exit("rsync is not installed: tests/support/install-deps.sh bench")
    # The server, four old copies, the one at work, and WAL.
    harness.need_room(place.base, 7 * args.gb + 4)
    clusters, ours = Clusters(place), Programs(place).basebackup_path
    stock, _ = installs.reader_of("pg_basebackup", install.major)
    servers = Servers(clusters, install, harness.directory_for_data(place, args.keep), None, harness.tell)
    contest = DeltaContest(Bench(place, stock, ours, reader("pg_verifybackup", install.major), clusters, servers,
                                 harness.tell))
    harness.describe(results, args, place, install, stock, ours)
    try:
        for key in chosen:
            results["cases"][key] = contest.run(cases[key], args.rounds)
            harness.save(args.results, results)
    finally:
        servers.stop()


def in_a_place(args, results):
    place = Place()
    try:
        install = installs.find(args.server)
        scale = {"gigabytes": args.gb, "summaries": install.major >= 17}
        if args.render:
            scale = results.get("scale", scale)
        results["scale"] = scale
        cases = all_cases(**scale)
        if args.list:
            harness.list_cases(cases)
        elif not args.render:
            measure(args, install, harness.choose(args, cases), cases, place, results)
        return cases
    finally:
        place.remove()


def main():
    args = parse(sys.argv[1:])
    harness.prepare(args)
    results = harness.load(args.results)
    cases = in_a_place(args, results)
    if args.list:
        return 0
    DeltaPage(results, cases, os.path.basename(args.results)).write(args.docs)
    return 1 if any(harness.errors_of(results)) else 0


if __name__ == "__main__":
    sys.exit(main())
