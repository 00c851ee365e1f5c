"""Compares pgr-basebackup with pg_basebackup and writes docs/BENCHMARKS.md.

/usr/bin/python3 tests/bench/bench.py [--cases tcp,tls] [--pairs N] [--gb N] [--quick] [--keep DIR] ...

PGR_BIN_DIR  where pgr-basebackup and tests/bench/relay are, relative to the tree (default build/plain)
TMPDIR       on the disk that is to be measured (default /tmp)
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path[:0] = [HERE, os.path.join(TREE, "tests", "integration")]
# Nothing here has to be quick; this only ends what hangs.
os.environ.setdefault("PGR_PATIENCE", "3600")
# Every copy is removed: the disk would not hold them all.
os.environ.pop("PGR_KEEP", None)

# pylint: disable=wrong-import-position
from pgrbench import machine
from pgrbench.cases import Features, Scale, all_cases
from pgrbench.contest import Contest
from pgrbench.data import Servers
from pgrbench.page import Page
from pgrtest import installs
from pgrtest.place import Place
from pgrtest.programs import Programs
from pgrtest.server import Clusters
from pgrtest.tls import Certificates


def parse(argv):
    p = argparse.ArgumentParser(description="pgr-basebackup and pg_basebackup, in turns, on the same server and data")
    p.add_argument("--cases", help="only these, separated by commas (default: all)")
    p.add_argument("--list", action="store_true", help="print the cases and what they compare, then exit")
    p.add_argument("--pairs", type=int, help="rounds (default 5)")
    p.add_argument("--gb", type=float, help="size of the data (default 4)")
    p.add_argument("--capped-gb", type=float, help="size of the data for the capped connections (default 0.6)")
    p.add_argument("--tables", type=int, help="number of small tables (default 50000)")
    p.add_argument("--quick", action="store_true",
                   help="2 rounds, 1 GB, 0.3 GB capped, 5000 tables, where not said otherwise")
    p.add_argument("--no-checksums", action="store_true", help="servers without data checksums")
    p.add_argument("--keep", metavar="DIR", help="keep the servers' data there, or use it if it is there")
    p.add_argument("--results", metavar="FILE", default=os.path.join(TREE, "build", "bench", "results.json"),
                   help="raw figures; cases that are measured now replace what it has of them")
    p.add_argument("--docs", metavar="DIR", default=os.path.join(TREE, "docs"), help="where the page goes")
    p.add_argument("--render", action="store_true", help="measure nothing, only write the page from the results")
    args = p.parse_args(argv)
    for name, usual, quick in (("pairs", 5, 2), ("gb", 4.0, 1.0), ("capped_gb", 0.6, 0.3), ("tables", 50000, 5000)):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else usual)
    return args


def tell(line):
    print(line, file=sys.stderr, flush=True)


def load(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        return {"cases": {}}


def save(path, results):
    """Renamed into place: an interrupted run loses no earlier case."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
    os.replace(f"{path}.new", path)


def version_of(program):
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def commit():
    argv = ["git", "-C", TREE, "describe", "--always", "--dirty"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def help_of(program):
    return subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout


def directory_for_data(place, keep):
    if keep is None:
        return place.directory("data")
    keep = os.path.abspath(keep)
    if not os.path.isdir(keep):
        os.makedirs(keep)
        place.give(keep)
    elif os.stat(keep).st_uid != place.user.pw_uid:
        sys.exit(f"bench.py: {keep} must belong to the user {place.user.pw_name}, as whom the servers run")
    return keep


def need_room(path, gigabytes):
    """The data, one copy, and what the server and the raw write need."""
    need, free = 2.2 * gigabytes + 3, shutil.disk_usage(path).free / 1e9
    if free < need:
        sys.exit(f"bench.py: {path} has {free:.0f} GB free, {need:.0f} GB are needed (TMPDIR leads elsewhere)")


def measure(args, chosen, cases, place, results):
    """Runs the chosen cases; `results` is saved after each."""
    need_room(place.base, args.gb + args.capped_gb)
    install = installs.find("debian")
    ours = Programs(place).basebackup_path
    servers = Servers(Clusters(place), install, directory_for_data(place, args.keep), Certificates(place), tell)
    contest = Contest(place, install, ours, servers, tell)
    results["machine"] = machine.facts(place.base)
    results["versions"] = {"server": install.version, "stock": version_of(install.program("pg_basebackup")),
                           "ours": version_of(ours), "commit": commit()}
    results["own_network"] = args.own_network
    try:
        for key in chosen:
            results["cases"][key] = contest.run(cases[key], args.pairs)
            save(args.results, results)
    finally:
        servers.stop()


def choose(args, cases):
    if not args.cases:
        return list(cases)
    chosen = args.cases.split(",")
    unknown = [key for key in chosen if key not in cases]
    if unknown:
        sys.exit(f"bench.py: no such case: {', '.join(unknown)} (there are: {', '.join(cases)})")
    return [key for key in cases if key in chosen]


def list_cases(cases):
    for key, case in cases.items():
        print(f"{key:8} {case.title}: {'; '.join(c.name for c in case.contestants)}")


def in_a_place(args, results):
    place = Place()
    try:
        features = Features.of(help_of(Programs(place).basebackup_path))
        scale = {"gigabytes": args.gb, "capped_gigabytes": args.capped_gb, "tables": args.tables,
                 "checksums": not args.no_checksums}
        if args.render:
            scale = results.get("scale", scale)
        results["scale"] = scale
        cases = all_cases(features, Scale(**scale))
        if args.list:
            list_cases(cases)
        elif not args.render:
            measure(args, choose(args, cases), cases, place, results)
        return cases
    finally:
        place.remove()


def errors_of(results):
    return [r["error"] for case in results["cases"].values() for r in case["contestants"].values() if "error" in r]


def main():
    args = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are stopped, the directories removed
    if not args.list and not args.render:
        args.own_network = machine.isolate_network([sys.executable, *sys.argv])
    results = load(args.results)
    cases = in_a_place(args, results)
    if args.list:
        return 0
    Page(results, cases, os.path.basename(args.results)).write(args.docs)
    return 1 if any(errors_of(results)) else 0


if __name__ == "__main__":
    sys.exit(main())
