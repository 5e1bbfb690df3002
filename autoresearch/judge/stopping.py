"""When a candidate is given up: it is not promising, has faded, or stays unclear.

Invariant: the reason is a sentence that a person understands, and says so when the price of size decided.
"""

from __future__ import annotations

from autoresearch.judge.complexity import Worth
from autoresearch.judge.noise import Comparison

BARS = (0.9, 1.1, 1.27, 1.4, 1.5, 1.6)
"""Least z, screening run included, to go on after 1, 2, ... runs. Like the optimal stopping bounds for a
known prior, they ask for a roughly constant worthwhile effect rather than for a constant z."""

BAR_STEP = 0.08
"""What each run after those adds to the bar."""


def bar(runs: int) -> float:
    """Least z to go on after so many runs."""
    return BARS[runs - 1] if runs <= len(BARS) else BARS[-1] + BAR_STEP * (runs - len(BARS))


def hopeless(view: Comparison, runs: int, limit: float, worth: Worth, added: float) -> str:
    """Why a candidate is not run again; empty if it is.

    Args:
        view: All its runs against the incumbent.
        runs: How many.
        limit: Most runs of one candidate.
        worth: What its size is worth.
        added: The size it adds.
    """
    bonus = worth.bonus if runs == 1 else worth.margin
    z, least = view.plus(bonus - worth.price).z, bar(runs)
    if z < least:
        what = "the first run is not promising" if runs == 1 else f"the gain faded over {runs} runs"
        why = f"{what} (z = {z:.2f}, {least:.2f} needed)"
        return why + (f"; the price of {added:+g} lines decided" if worth.price and view.z >= least else "")
    return f"still unclear after {runs} runs (z = {z:.2f})" if runs >= limit else ""
