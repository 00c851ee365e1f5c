"""What pgr-receivewal is to reach, and what it has reached."""

from .figures import Spread, ratio, spread, times_as_fast
from .goal import Goal
from .wal_cases import OURS, STANDBY, STOCK

SYNC_OURS, SYNC_STOCK = f"{OURS} --synchronous", f"{STOCK} --synchronous"


def goals(cases):
    """cases: {key: what a contest returned}."""
    found = _catchup(cases.get("catchup"))
    for key, disk in (("commit", "this disk"), ("slow", "a slow disk")):
        found += _commits(cases.get(key), disk, key == "slow")
    return found + _start(cases.get("start"))


def per_wal_byte(quantity, result):
    return Spread.of([run[quantity] / run["copied"] for run in result["runs"] if run[quantity] is not None])


def of_clients(result, clients):
    """The same result, with what was measured with so many clients in the place of its runs."""
    return {"runs": [{"round": run["round"], **run["clients"][clients]} for run in result["runs"]]}


def _pair(case, mine, other):
    results = case["contestants"] if case else {}
    return [results.get(name, {"runs": []}) for name in (mine, other)]


def _catchup(case):
    mine, stock = _pair(case, OURS, STOCK)
    return [Goal(f"Catching up: times as fast as `{STOCK}`", times_as_fast(mine, stock), 2),
            Goal("Catching up: bytes that the device writes for a byte of WAL", per_wal_byte("device", mine), 1.05,
                 True)]


def _commits(case, disk, slow):
    found = []
    for clients in map(str, case["data"]["clients"] if case else []):
        who = f"{clients} client{'s' if clients != '1' else ''} on {disk}"
        mine, stock = (of_clients(r, clients) for r in _pair(case, SYNC_OURS, SYNC_STOCK))
        standby = of_clients(_pair(case, STANDBY, STOCK)[0], clients)
        found.append(Goal(f"{who}: commits a second by those of `{SYNC_STOCK}`", ratio(mine, stock, _tps), 1))
        found.append(Goal(f"{who}: commits a second by those of a hot standby", ratio(mine, standby, _tps), 0.95))
        if slow:
            found.append(Goal(f"{who}: p99 by that of `{SYNC_STOCK}`", ratio(mine, stock, lambda run: run["p99"]), 0.7,
                              True))
    return found


def _tps(run):
    return run["tps"]


def _start(case):
    found = []
    for name in (OURS, f"{OURS}, mixed"):
        mine, _ = _pair(case, name, STOCK)
        number = f"{case['data']['files']:,}" if case else ""
        what = "compressed and uncompressed segments" if name.endswith("mixed") else "segments"
        found.append(Goal(f"Start in an archive of {number} {what}, s", spread(mine, "seconds"), 1, True))
    return found
