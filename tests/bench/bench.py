"""Compares pgr-basebackup with pg_basebackup and writes docs/BENCHMARKS.md.

/usr/bin/python3 tests/bench/bench.py [--cases tcp,tls] [--pairs N] [--gb N] [--quick] [--keep DIR] ...

PGR_BIN_DIR  where pgr-basebackup and tests/bench/relay are, relative to the tree (default build/plain)
TMPDIR       on the disk that is to be measured (default /tmp)
"""

import argparse
import sys

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
from pgrbench import harness
from pgrbench.cases import Features, Scale, all_cases
from pgrbench.contest import Contest
from pgrbench.data import Servers
from pgrbench.page import Page
from pgrtest import installs
from pgrtest.programs import Programs
from pgrtest.server import Clusters
from pgrtest.tls import Certificates


def parse(argv):
    p = argparse.ArgumentParser(description="pgr-basebackup and pg_basebackup, in turns, on the same server and data")
    harness.arguments(p, "results.json")
    p.add_argument("--pairs", type=int, help="rounds (default 5)")
    p.add_argument("--gb", type=float, help="size of the data (default 4)")
    p.add_argument("--capped-gb", type=float, help="size of the data for the capped connections (default 0.6)")
    p.add_argument("--tables", type=int, help="number of small tables (default 50000)")
    p.add_argument("--quick", action="store_true",
                   help="2 rounds, 1 GB, 0.3 GB capped, 5000 tables, where not said otherwise")
    p.add_argument("--no-checksums", action="store_true", help="servers without data checksums")
    args = p.parse_args(argv)
    harness.usual_or_quick(args, ("pairs", 5, 2), ("gb", 4.0, 1.0), ("capped_gb", 0.6, 0.3), ("tables", 50000, 5000))
    return args


def measure(args, cases, place, results):
    # The data, one copy, and what the server and the raw write need.
    harness.need_room(place.base, 2.2 * (args.gb + args.capped_gb) + 3)
    install = installs.find("debian")
    ours = Programs(place).basebackup_path
    servers = Servers(Clusters(place), install, harness.directory_for_data(place, args.keep), Certificates(place),
                      harness.tell)
    contest = Contest(place, install, ours, servers, harness.tell)
    harness.describe(results, args, place, install, install.program("pg_basebackup"), ours)
    harness.run_cases(args, cases, results, lambda case: contest.run(case, args.pairs), servers)


def scale_of(args, _):
    return {"gigabytes": args.gb, "capped_gigabytes": args.capped_gb, "tables": args.tables,
            "checksums": not args.no_checksums}


def cases_of(scale, place):
    return all_cases(Features.of(harness.help_of(Programs(place).basebackup_path)), Scale(**scale))


if __name__ == "__main__":
    sys.exit(harness.main(parse(sys.argv[1:]), scale_of, cases_of, measure, Page))
