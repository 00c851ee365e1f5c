"""What all benchmarks begin and end with: results that are kept, versions, rooms to work in, cases to choose."""

import json
import os
import shutil
import signal
import subprocess
import sys

from . import machine
from pgrtest.installs import TREE
from pgrtest.place import Place


def tell(line):
    print(line, file=sys.stderr, flush=True)


def arguments(parser, results):
    """The options that all have.  `results`: the name of the file for raw figures."""
    parser.add_argument("--cases", help="only these, separated by commas (default: all)")
    parser.add_argument("--list", action="store_true", help="print the cases and what they compare, then exit")
    parser.add_argument("--keep", metavar="DIR", help="keep the servers' data there, or use it if it is there")
    parser.add_argument("--results", metavar="FILE", default=os.path.join(TREE, "build", "bench", results),
                        help="raw figures; cases that are measured now replace what it has of them")
    parser.add_argument("--docs", metavar="DIR", default=os.path.join(TREE, "docs"), help="where the page goes")
    parser.add_argument("--render", action="store_true",
                        help="measure nothing, only write the page from the results")


def usual_or_quick(args, *choices):
    """choices: (name, value, value with --quick) of what was not said."""
    for name, usual, quick in choices:
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else usual)


def prepare(args):
    """Signals, and a network of our own (args.own_network) where something is to be measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are stopped, the directories removed
    if not args.list and not args.render:
        args.own_network = machine.isolate_network([sys.executable, *sys.argv])


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


def describe(results, args, place, install, stock, ours):
    """The machine and the versions, for the page."""
    results["machine"] = machine.facts(place.base)
    results["versions"] = {"server": install.version, "stock": version_of(stock), "ours": version_of(ours)}
    results["own_network"] = args.own_network


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
        sys.exit(f"{keep} must belong to the user {place.user.pw_name}, as whom the servers run")
    return keep


def need_room(path, gigabytes):
    free = shutil.disk_usage(path).free / 1e9
    if free < gigabytes:
        sys.exit(f"{path} has {free:.0f} GB free, {gigabytes:.0f} GB are needed (TMPDIR leads elsewhere)")


def choose(args, cases):
    """The keys of the cases that are asked for, in the order in which they run."""
    if not args.cases:
        return list(cases)
    chosen = args.cases.split(",")
    unknown = [key for key in chosen if key not in cases]
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)} (there are: {', '.join(cases)})")
    return [key for key in cases if key in chosen]


def list_cases(cases):
    for key, case in cases.items():
        print(f"{key:8} {case.title}: {'; '.join(c.name for c in case.contestants)}")


def errors_of(results):
    return [r["error"] for case in results["cases"].values() for r in case["contestants"].values() if "error" in r]


def run_cases(args, cases, results, run, servers):
    """Runs those that are asked for, `run` each; the results are saved after each."""
    try:
        for key in choose(args, cases):
            results["cases"][key] = {"commit": commit(), **run(cases[key])}
            save(args.results, results)
    finally:
        servers.stop()


def main(args, scale_of, all_cases, measure, page):
    """A benchmark from its options to its page; the exit status.

    scale_of   (args, place): what the cases depend on; kept with the results, and theirs for --render
    all_cases  (scale, place): the cases by their keys
    measure    (args, cases, place, results): runs them
    page       (results, cases, name of the file with the results): has write(directory)
    """
    prepare(args)
    results = load(args.results)
    place = Place()
    try:
        results["scale"] = args.render and results.get("scale") or scale_of(args, place)
        cases = all_cases(results["scale"], place)
        if args.list:
            list_cases(cases)
            return 0
        if not args.render:
            measure(args, cases, place, results)
    finally:
        place.remove()
    page(results, cases, os.path.basename(args.results)).write(args.docs)
    return 1 if any(errors_of(results)) else 0
