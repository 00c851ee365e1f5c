"""What --delta is to reach, and what it has reached."""

from .delta_cases import OURS, STOCK, killed, ways
from .figures import Spread, times_as_fast
from .goal import Goal


def of_database(result, database_bytes):
    """Bytes on the wire, in percent of the database."""
    return Spread.of([100 * run["wire"] / database_bytes for run in result["runs"] if run["wire"] is not None])


def _result(case, name):
    return case["contestants"].get(name, {"runs": []}) if case else {"runs": []}


def _size(case):
    return f"{case['data']['bytes'] / 1e9:.1f} GB"


def goals(cases, summaries):
    """cases: {key: what a contest returned}.  Only what was measured."""
    near, line, resume, large = (cases.get(key) for key in ("delta", "delta-line", "delta-resume", "delta-size"))
    found = []
    for way, program, _ in ways(summaries):
        if program != "delta":
            continue
        for full in (STOCK, OURS):
            found.append(Goal(f"Nothing changed: `{way}`, times as fast as a full `{full}`",
                              times_as_fast(_result(near, f"{way}, 0 %"), _result(near, full)), 1))
        found += [Goal(f"1 % of the pages changed: bytes on the wire of `{way}`, in percent of {_size(case)}",
                       of_database(_result(case, f"{way}, 1 %"), case["data"]["bytes"]),
                       2 if "summary" in way else 5, True) for case in (near, large) if case]
        for full in (STOCK, OURS):
            found.append(Goal(f"1 % of the pages changed, a line of 100 MB/s: `{way}`, times as fast as a full `{full}`",
                              times_as_fast(_result(line, f"{way}, 1 %"), _result(line, full)), 8))
        found.append(Goal(f"Killed at 50 %: bytes on the wire of the next `{way}`, in percent of the database",
                          of_database(_result(resume, killed(way)), resume["data"]["bytes"]) if resume else None,
                          55, True))
    return [goal for goal in found if goal.found is not None]
