"""Decides from the history which model is asked first, and what it is asked for.

It asks the model that seems to gain most per dollar, by budgeted Thompson sampling (Xia, Li, Qin, Yu, Liu:
"Thompson Sampling for Budgeted Multi-armed Bandits", IJCAI 2015): it draws a reward and a cost for each model
from Beta posteriors, and asks the model with the largest ratio. The reward of an experiment is its confirmed
gain (0 unless kept) as a share of the largest gain so far; its cost is the dollars of its proposal as a share
of the most expensive one. If all proposals are free, only the gain counts. A proposal that was given up, and
every call since a model's last proposal, counts as a proposal without gain. A model whose last calls led to
no proposal waits: after n such calls it is asked before the others for every 2^n-th experiment only (32nd at
most).

On a plateau it asks for something else. The length of a plateau depends on the keep rate before it: a plateau
is a row of experiments without a keep that has a chance below one in ten at that rate. Then the request
changes with every experiment, in a fixed order, until a change is kept; and the model that was asked last
moves to the end, because another model may have other ideas.

Invariant: the decisions depend only on the history, the seed and the record of calls, so that a restarted
search decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random

from autoresearch.propose.base import Context
from autoresearch.propose.llm.outcomes import Outcomes
from autoresearch.types import Category, Cost, Experiment

MAX_UNBILLED = 50
"""Calls without a proposal that are counted of a model."""

MAX_WAIT = 5
"""Binary logarithm of the longest wait of a model in vain, in experiments."""

RARE = 0.1
"""A row of experiments without a keep is a plateau if its chance at the keep rate so far is below this."""

USUAL = 0.2
"""The keep rate assumed at first, with the weight of one keep; long searches keep about this share."""

SHORTEST, LONGEST = 6, 24
"""Least and largest number of experiments without a keep that make a plateau."""


GainAndCost = tuple[float, float]
"""The gain of a proposal in the metric's unit, and its cost in dollars."""


def ranked(
    models: Sequence[str], context: Context, proposer: str, unbilled: Mapping[str, Cost] | None = None
) -> list[str]:
    """The models in the order in which they should be asked; as listed where there is only one.

    Args:
        models: Names, as configured.
        context: Its history gives the gain and cost of each model; its seed fixes the draws.
        proposer: The part of `Proposal.proposer` before the colon and the model.
        unbilled: Cost of calls that led to no proposal so far, by proposer and model.
    """
    if len(models) < 2:
        return list(models)
    arms = {
        model: _outcomes(context.history, who) + _without_proposal((unbilled or {}).get(who, Cost()))
        for model in models
        for who in [f"{proposer}:{model}"]
    }
    every = [outcome for outcomes in arms.values() for outcome in outcomes]
    in_vain = {model: waits(model, context, proposer, unbilled) for model in models}
    if not every:
        return list(models)
    most = max(gain for gain, _ in every) or 1.0
    dearest = max(dollars for _, dollars in every)
    draw = Random(f"{context.seed} {len(context.history)} models")

    def ratio(model: str) -> float:
        reward = _beta(draw, [gain / most for gain, _ in arms[model]])
        if not dearest:
            return reward
        return reward / max(_beta(draw, [dollars / dearest for _, dollars in arms[model]]), 1e-6)

    ratios = {model: ratio(model) for model in models}
    plateau = on_plateau(Outcomes.of(context.history))
    latest = _latest(context.history, proposer) if plateau else ""
    return sorted(models, key=lambda model: (in_vain[model], model == latest, -ratios[model]))


def waits(model: str, context: Context, proposer: str, unbilled: Mapping[str, Cost] | None = None) -> bool:
    """Whether others are asked before a model now, because its last calls led to no proposal.

    Args:
        model: Its name.
        context: Says how many experiments there are.
        proposer: See `ranked`.
        unbilled: See `ranked`.
    """
    calls = (unbilled or {}).get(f"{proposer}:{model}", Cost()).calls
    return bool(calls) and len(context.history) % 2 ** min(calls, MAX_WAIT) != 0


def _latest(history: Sequence[Experiment], proposer: str) -> str:
    """The model that was asked last; empty if none was."""
    makers = [e.proposal.proposer for e in history if e.proposal]
    ours = [maker for maker in makers if maker.startswith(f"{proposer}:")]
    return ours[-1].partition(":")[2] if ours else ""


def _outcomes(history: Sequence[Experiment], who: str) -> list[GainAndCost]:
    """Gain and cost of each proposal of a model, given up ones included."""
    tried = [e for e in history if e.verdict and e.proposal and e.proposal.proposer == who]
    dropped = [p for e in history for p in e.dropped if p.proposer == who]
    return [(max(e.gain, 0.0), e.proposal.cost.dollars) for e in tried if e.proposal] + [
        (0.0, p.cost.dollars) for p in dropped
    ]


def _without_proposal(cost: Cost) -> list[GainAndCost]:
    """Calls without a proposal, as proposals without gain."""
    return [(0.0, cost.dollars / cost.calls)] * min(cost.calls, MAX_UNBILLED) if cost.calls else []


def _beta(draw: Random, shares: Sequence[float]) -> float:
    """A draw from the posterior of a mean of values in [0, 1], from a uniform prior."""
    total = sum(shares)
    return draw.betavariate(1 + total, 1 + len(shares) - total)


def plateau_length(past: Outcomes) -> int:
    """Length of a plateau in experiments, from the keep rate before it."""
    rate = (past.kept + 1) / (past.tried - past.since_keep + 1 / USUAL)
    return min(max(math.ceil(math.log(RARE) / math.log1p(-rate)), SHORTEST), LONGEST)


def on_plateau(past: Outcomes) -> bool:
    """Whether the search is on a plateau, so that something else should be tried."""
    return past.since_keep >= plateau_length(past)


def request_on_plateau(past: Outcomes) -> str:
    """What to ask for on a plateau, as a section of the prompt; empty if there is none."""
    if not on_plateau(past):
        return ""
    count, limit = past.since_keep, plateau_length(past)
    wishes = [wish for wish in (_elsewhere(past), _combine(past), SIMPLIFY, RADICAL) if wish]
    return (
        f"# The search is stuck\nNothing was kept in the last {count} experiments; more of the same will not "
        f"help. This time: {wishes[(count - limit) % len(wishes)]}"
    )


SIMPLIFY = (
    "simplify. Find what the script does not need, and take it out or replace it by something plainer that "
    "is at least as good; time it frees is time gained."
)

RADICAL = (
    "a radical idea. Change something that every experiment so far took for granted, even if it is likely to "
    "fail; the expected gain should be several times the noise."
)


def _elsewhere(past: Outcomes) -> str:
    """Ask for another category: first the untried ones, then those tried least."""
    recent = set(past.recent)
    others = [c for c in Category if c not in recent and c is not Category.OTHER]
    if not others:
        return ""
    best = sorted(others, key=lambda c: past.kinds[c].tried if c in past.kinds else 0)[:3]
    return (
        "another kind of change. The latest were all about "
        f"{', '.join(sorted(recent))}; choose one of: {', '.join(best)}."
    )


def _combine(past: Outcomes) -> str:
    """Ask to combine near misses, which may gain together."""
    if past.near < 2:
        return ""
    numbers = " and ".join(str(e.number) for e in sorted(past.nearest, key=lambda e: e.number))
    return (
        f"combine near misses. Each of the experiments {numbers} looked a little better than the script of "
        "its time, and none enough to be sure; put together what still applies."
    )
