"""Pieces of a page that both benchmarks have."""

import os
import re
import textwrap

from .figures import Spread

BOUNDS = """\
What bounds the figures, and why a goal may be missed on a machine, is in [BENCHMARKS-BOUNDS.md](BENCHMARKS-BOUNDS.md).
"""

NOISY = """\
- **The host is shared and noisy.** Others use the same disk and processors, one does not see when.
  That is why the programs take turns, why the spread is shown, and why single figures mean little."""


def machine(results, shared):
    """The lines about machine and versions.  `shared`: who shares it."""
    m, v = results["machine"], results["versions"]
    kind = "Virtual machine" if m["hypervisor"] else "Machine"
    return [
        "## The machine", "",
        f"- {kind}, {m['processors']} processors ({m['processor']}),",
        f"  {m['memory_bytes'] / (1 << 30):.0f} GiB of memory; {m['system']}, kernel {m['kernel']}.",
        f"  {shared} share it.",
        f"- Server's data and what the programs write on one disk, {m['file_system']}.",
        f"- Server: PostgreSQL {v['server']}; {v['stock']};",
        f"  {v['ours']}; {m['openssl']}.",
    ]


def noise(runs):
    """What disturbed these measurements of meter.run."""
    elsewhere = Spread.of([run["elsewhere_cpu"] / run["seconds"] for run in runs])
    stolen = Spread.of([run["stolen_cpu"] / run["seconds"] for run in runs])
    if elsewhere is None:
        return ""
    return ("  During a run, processes other than those measured, and the kernel's own threads, used\n"
            f"  {elsewhere.text(2)} processors, and the hypervisor withheld {stolen.text(2)}.")


def table(columns, rows):
    return ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|",
            *("| " + " | ".join(row) + " |" for row in rows)]


def rounds(measured):
    most = max(len(result["runs"]) for result in measured["contestants"].values())
    commit = f" with commit {measured['commit']}" if "commit" in measured else ""
    return f"{most} round{'s' if most != 1 else ''}{commit}"


def errors(case, measured):
    found = ((c.name, measured["contestants"].get(c.name, {})) for c in case.contestants)
    return [f"{code(name)} failed: {without_paths(result['error'])}\n" for name, result in found if "error" in result]


def measured_ones(case, measured):
    """[(contestant, its result)] of those who came to an end at least once."""
    found = ((c, measured["contestants"].get(c.name)) for c in case.contestants)
    return [(c, result) for c, result in found if result and result["runs"]]


def code(name):
    program, comma, rest = name.partition(",")
    return f"`{program}`{comma}{rest}"


def optional(value, digits, scale=1.0):
    return value.text(digits, scale) if value else ""


def without_paths(text):
    """The first words of an error; where things lay on this machine is nobody's concern."""
    return textwrap.shorten(re.sub(r"/[\w./+-]+", "...", text), 300)


def write(directory, name, text):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
        f.write(text)
