"""What is to be reached, and what was."""

from dataclasses import dataclass

from . import parts
from .figures import Spread


@dataclass(frozen=True)
class Goal:
    """`found` is to be at least, or at most, the bound; None: not measured."""

    what: str
    found: Spread
    bound: float
    at_most: bool = False

    @property
    def reached(self):
        return self.found.middle <= self.bound if self.at_most else self.found.middle >= self.bound

    @property
    def wanted(self):
        return f"at {'most' if self.at_most else 'least'} {self.bound:g}"


def section(goals):
    """The page's section on these goals; those that were not measured are left out."""
    rows = [(goal.what, goal.wanted, goal.found.text(2), "yes" if goal.reached else "**no**")
            for goal in goals if goal.found is not None]
    return "\n".join(["## What it is to reach", "", *parts.table(("", "goal", "found", "reached"), rows), ""])
