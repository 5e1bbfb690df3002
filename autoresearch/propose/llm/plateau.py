"""When nothing has been kept for too long: noticed by code, and answered by asking for something else.

Invariant: a function of the history alone. How long is too long depends on how often changes were kept so
far: a drought that would be rarer than one in ten at that rate. Then the wish changes with every experiment,
in a fixed order, until something is kept.

Not covered: asking another model (`bandit`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoresearch.propose.llm.ledger import is_near_miss
from autoresearch.types import Category, Experiment

RARE = 0.1
"""A drought this unlikely at the keep rate so far is a plateau."""

USUAL = 0.2
"""The keep rate that is assumed at first, with the weight of one keep; long searches keep about so many."""

SHORTEST, LONGEST = 6, 24
"""Bounds of how many experiments without a keep are a plateau."""

RECENT = 5
"""Experiments whose categories count as recent."""


def drought(history: Sequence[Experiment]) -> int:
    """Judged experiments since the last one that was kept."""
    count = 0
    for experiment in reversed(history):
        if experiment.kept or experiment.proposal is None:
            break
        count += 1
    return count


def patience(history: Sequence[Experiment]) -> int:
    """How many experiments without a keep are a plateau, by the keep rate before they began."""
    judged = [e for e in history if e.proposal is not None]
    before = judged[: len(judged) - drought(history)]
    rate = (sum(e.kept for e in before) + 1) / (len(before) + 1 / USUAL)
    return min(max(math.ceil(math.log(RARE) / math.log1p(-rate)), SHORTEST), LONGEST)


def direction(history: Sequence[Experiment]) -> str:
    """What to ask for on a plateau, as a section of the prompt; empty if the search is not stuck."""
    dry, limit = drought(history), patience(history)
    if dry < limit:
        return ""
    wishes = [wish for wish in (_elsewhere(history), _combine(history), SIMPLIFY, RADICAL) if wish]
    return (
        f"# The search is stuck\nNothing was kept in the last {dry} experiments; more of the same will not "
        f"help. This time: {wishes[(dry - limit) % len(wishes)]}"
    )


SIMPLIFY = (
    "simplify. Find what the script does not need, and take it out or replace it by something plainer that "
    "is "
    "at least as good; time it frees is time to train."
)

RADICAL = (
    "a radical idea. Change something that every experiment so far took for granted, even if it is likely to "
    "fail; the expected gain should be several times the noise."
)


def _elsewhere(history: Sequence[Experiment]) -> str:
    """Another category: never tried first, then those tried least."""
    tried = [e.proposal.category for e in history if e.proposal]
    recent = set(tried[-RECENT:])
    others = [c for c in Category if c not in recent and c is not Category.OTHER]
    if not others:
        return ""
    best = sorted(others, key=tried.count)[:3]
    return (
        "another kind of change. The latest were all about "
        f"{', '.join(sorted(recent))}; choose one of: {', '.join(best)}."
    )


def _combine(history: Sequence[Experiment]) -> str:
    """Two or more near misses together may be what each alone was not."""
    near = [e for e in history if is_near_miss(e)]
    if len(near) < 2:
        return ""
    best = sorted(near, key=lambda e: -(e.verdict.effect or 0.0) if e.verdict else 0.0)[:3]
    numbers = " and ".join(str(e.number) for e in sorted(best, key=lambda e: e.number))
    return (
        f"combine near misses. Each of the experiments {numbers} looked a little better than the script of "
        f"its "
        "time, and none enough to be sure; put together what still applies."
    )
