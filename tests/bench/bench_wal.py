"""Compares pgr-receivewal with pg_receivewal and a hot standby, and writes docs/BENCHMARKS-WAL.md.

/usr/bin/python3 tests/bench/bench_wal.py [--cases catchup,commit] [--rounds N] [--gb N] [--quick] [--keep DIR] ...

PGR_BIN_DIR  where the programs, powercut.so and tests/bench/rawrecv are, relative to the tree (default build/plain)
TMPDIR       on the disk that is to be measured (default /tmp)
"""

import argparse
import os
import subprocess
import sys

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
from pgrbench import harness
from pgrbench.data import Servers
from pgrbench.wal_cases import all_cases
from pgrbench.wal_commit import Commit
from pgrbench.wal_contest import Bench, CatchUp, Start
from pgrbench.wal_page import WalPage
from pgrtest import installs
from pgrtest.programs import Programs
from pgrtest.server import Clusters

METHODS = ("lz4", "zstd")


def parse(argv):
    p = argparse.ArgumentParser(description="pgr-receivewal, pg_receivewal and a hot standby, in turns, on one server")
    harness.arguments(p, "results-wal.json")
    p.add_argument("--rounds", type=int, help="(default 5)")
    p.add_argument("--gb", type=float, help="WAL to catch up with (default 2)")
    p.add_argument("--seconds", type=int, help="of commits, for each number of clients (default 8)")
    p.add_argument("--clients", default="1,8,64", help="numbers of clients (default 1,8,64)")
    p.add_argument("--beside", type=float, metavar="MB", default=24,
                   help="WAL that is written beside the commits, MB a second (default 24)")
    p.add_argument("--sync-ms", type=int, default=5, help="so much longer a slow disk's syncs take (default 5)")
    p.add_argument("--files", type=int, help="segments in the large archive (default 1000000)")
    p.add_argument("--quick", action="store_true",
                   help="2 rounds, 0.5 GB, 5 seconds, 100000 files, where not said otherwise")
    args = p.parse_args(argv)
    args.clients = [int(n) for n in args.clients.split(",")]
    harness.usual_or_quick(args, ("rounds", 5, 2), ("gb", 2.0, 0.5), ("seconds", 8, 5),
                           ("files", 1_000_000, 100_000))
    return args


def accepted_methods(place, program):
    """Of compression: those with which the program goes as far as to look for the server."""
    def takes(method):
        argv = [program, "-Z", method, "-n", "-w", "-D", place.home, "-d", f"host={place.sockets} port=1"]
        done = subprocess.run(place.command(argv), env=place.environment(), capture_output=True, text=True, check=False)
        return "connection to server" in done.stderr

    return [method for method in METHODS if takes(method)]


def measure(args, cases, place, results):
    # Kept WAL and its server, what a receiver makes of it; what is written beside the commits; inodes.
    harness.need_room(place.base, 3 * args.gb + 15)
    install, programs, clusters = installs.find("debian"), Programs(place), Clusters(place)
    servers = Servers(clusters, install, harness.directory_for_data(place, args.keep), None, harness.tell)
    built = os.path.join(installs.TREE, os.environ.get("PGR_BIN_DIR") or os.path.join("build", "plain"))
    rawrecv = place.within_reach(os.path.join(built, "tests/bench/rawrecv"))
    bench = Bench(place, install, programs, clusters, servers, rawrecv, harness.tell)
    kinds = {"catchup": CatchUp(bench), "commit": Commit(bench, args.seconds, args.clients, args.beside),
             "start": Start(bench, args.files)}
    harness.describe(results, args, place, install, install.program("pg_receivewal"), programs.receivewal_path)
    harness.run_cases(args, cases, results, lambda case: kinds[case.kind].run(case, args.rounds), servers)


def scale_of(args, place):
    return {"gigabytes": args.gb, "methods": accepted_methods(place, Programs(place).receivewal_path),
            "sync_ms": args.sync_ms}


if __name__ == "__main__":
    sys.exit(harness.main(parse(sys.argv[1:]), scale_of, lambda scale, _: all_cases(**scale), measure, WalPage))
