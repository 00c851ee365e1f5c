"""Medians and their spread from the measurements of a case."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    middle: float
    low: float
    high: float

    @staticmethod
    def of(values):
        """None when there is nothing to sum up."""
        known = [v for v in values if v is not None]
        return Spread(median(known), min(known), max(known)) if known else None

    def text(self, digits, scale=1.0):
        if self.low == self.high:
            return f"{self.middle / scale:.{digits}f}"
        return f"{self.middle / scale:.{digits}f} ({self.low / scale:.{digits}f}..{self.high / scale:.{digits}f})"


def spread(result, quantity):
    return Spread.of([run[quantity] for run in result["runs"]])


def speed(result):
    """Bytes a second."""
    return Spread.of([run["copied"] / run["seconds"] for run in result["runs"]])


def ratio(result, other, value):
    """value(run) of this one by the other's, round by round, for they share the hour's disturbances."""
    theirs = {run["round"]: value(run) for run in other["runs"]}
    return Spread.of([value(run) / theirs[run["round"]] for run in result["runs"] if theirs.get(run["round"])])


def times_as_fast(result, other):
    """The other's time by this one's."""
    return ratio(result, other, lambda run: 1 / run["seconds"])
