"""What pgr-basebackup is to reach."""

from .cases import OURS, STOCK
from .figures import Spread, ratio, times_as_fast
from .goal import Goal

MIB = 1 << 20


def goals(cases):
    """cases: {key: what a contest returned}."""
    tcp, tls, capped, small, delay = (_Case(cases.get(key)) for key in ("tcp", "tls", "capped", "small", "delay"))
    near, far = ", near", ", 40 ms"
    return [
        *(Goal(f"Everything synced, {ours}: times as fast as `{STOCK}`", tcp.faster(name), 4)
          for name, ours in ((OURS, f"`{OURS}`"), (f"{OURS} -j8", f"`{OURS} -j8`"))),
        Goal(f"Everything synced, `{OURS}`: times as long as a raw write of the same bytes",
             tcp.faster("raw O_DIRECT write", OURS), 1.5, True),
        Goal(f"Everything synced, `{OURS} -j1` with REPLICATION only: times as fast", tcp.faster(f"{OURS} -j1"), 2.3),
        Goal(f"Client's processor time for a byte by that of `{STOCK}`, `{OURS}`",
             tcp.by(OURS, lambda run: run["client_cpu"] / run["copied"]), 0.5, True),
        Goal(f"TLS, `{OURS} -j4`: times as fast", tls.faster(f"{OURS} -j4"), 3),
        Goal("Each connection limited to 30 MB/s, `-j4`: times as fast", capped.faster(f"{OURS} -j4"), 3.6),
        Goal("Each connection limited to 30 MB/s, `-j8`: times as fast", capped.faster(f"{OURS} -j8"), 7),
        *(Goal(f"50,000 small tables, `{name}`: times as fast", small.faster(name), 3)
          for name in (f"{OURS} -j1", f"{OURS} -j4")),
        *(Goal(f"40 ms of delay, `{OURS} {j}`: times as long as without", delay.faster(f"{OURS} {j}{near}",
               f"{OURS} {j}{far}"), 1.05, True) for j in ("-j1", "-j4")),
        Goal("Peak memory of any of them, MiB", _memory(cases), 150, True),
    ]


class _Case:
    def __init__(self, measured):
        self._results = measured["contestants"] if measured else {}

    def _of(self, name):
        return self._results.get(name, {"runs": []})

    def faster(self, name, other=STOCK):
        return times_as_fast(self._of(name), self._of(other))

    def by(self, name, value):
        return ratio(self._of(name), self._of(STOCK), value)


def _memory(cases):
    peaks = [run["memory"] / MIB for measured in cases.values() for name, result in measured["contestants"].items()
             if name.startswith(OURS) for run in result["runs"] if run["memory"] is not None]
    return Spread(max(peaks), max(peaks), max(peaks)) if peaks else None
