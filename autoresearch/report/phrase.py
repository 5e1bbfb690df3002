"""A verdict in a few words, the same wherever it is told: "keep: −0.0042 ± 0.0011 over 4 paired seeds".

Owns the sign: what is shown is the change of the score, of which less is better, so a gain is negative.
"""

from __future__ import annotations

import math

from autoresearch.types import Verdict

PLACES = 4
"""Least decimal places; there are more where the uncertainty would be 0 with so many."""


def phrase(verdict: Verdict) -> str:
    """The decision, and what was measured, if anything was."""
    measured = change(verdict)
    return f"{verdict.kind.value}: {measured}" if measured else verdict.kind.value


def change(verdict: Verdict) -> str:
    """The change of the score: "−0.0042 ± 0.0011 over 4 paired seeds"; empty if it was not measured.

    After ± stands half of the 95% interval, and not the standard error. A seed is paired if the incumbent
    was run on it, too.
    """
    if verdict.effect is None:
        return ""
    reach = (verdict.interval[1] - verdict.interval[0]) / 2 if verdict.interval else None
    places = PLACES
    if reach is not None and 0 < reach < math.inf:
        places = min(9, max(PLACES, 1 - math.floor(math.log10(reach))))
    text = f"{-verdict.effect:+.{places}f}".replace("-", "−")
    text += "" if reach is None else f" ± {reach:.{places}f}"
    return text + (f" over {_seeds(verdict)}" if verdict.trials else "")


def evidence(verdict: Verdict) -> str:
    """The judge's test statistic: a z value unless the judge says otherwise; empty if there is none."""
    return "" if verdict.evidence is None else f"{verdict.evidence:.2f}"


def _seeds(verdict: Verdict) -> str:
    word = "seed" if verdict.trials == 1 else "seeds"
    if 0 < verdict.paired < verdict.trials:
        return f"{verdict.trials} {word}, {verdict.paired} of them paired"
    return f"{verdict.trials} {'paired ' if verdict.paired else ''}{word}"
