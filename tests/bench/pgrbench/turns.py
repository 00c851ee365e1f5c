"""Contestants take turns: each once a round, in the opposite order in every other round."""

import time

from . import meter


def now():
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def take_turns(case, rounds, turn, tell):
    """{contestant: {"runs": [{"round": n, ...}], "error": text}}; whoever fails once has no more turns.

    turn(contestant, number of the round, what there is so far) measures one; what it returns has "seconds".
    """
    results = {c.name: {"runs": []} for c in case.contestants}
    for number in range(1, rounds + 1):
        for contestant in case.contestants if number % 2 else case.contestants[::-1]:
            result, head = results[contestant.name], f"{case.key} {number}/{rounds}  {contestant.name}"
            if "error" in result:
                continue
            try:
                measured = turn(contestant, number, results)
            except (meter.Failed, AssertionError) as e:
                result["error"] = str(e)
                tell(f"{head}: {e}")
                continue
            result["runs"].append({"round": number, **measured})
            tell(f"{head:48} {measured['seconds']:8.2f} s")
    return results
