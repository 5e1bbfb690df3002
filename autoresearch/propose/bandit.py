"""Which of several models to ask first: the one that seems to gain most per dollar, explored honestly.

Budgeted Thompson sampling (Xia, Li, Qin, Yu, Liu: "Thompson Sampling for Budgeted Multi-armed Bandits", IJCAI
2015): for each model draw a reward and a cost from Beta posteriors, and ask the one with the largest ratio.
The reward of an experiment is its confirmed gain (0 unless kept) as a share of the largest one so far, its
cost the dollars of its proposal as a share of the dearest one. Where nothing costs anything, gain alone
counts. A proposal that was given up, and every call since a model's last proposal, counts as one that gained
nothing: a model that only declines is not asked first for ever.

On a plateau whoever was asked last goes to the back: another model may see what this one does not.

Invariant: a function of the history, the seed and the record of calls, so that a restarted search asks the
same model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from autoresearch.propose.base import Context
from autoresearch.propose.llm.plateau import drought, patience
from autoresearch.types import Cost, Experiment

MAX_VAIN = 50
"""Calls in vain that are counted of a model."""

Pull = tuple[float, float]
"""What a proposal gained and what it cost, in bits per byte and dollars."""


def ranked(
    models: Sequence[str], context: Context, proposer: str, owed: Mapping[str, Cost] | None = None
) -> list[str]:
    """The models in the order in which they should be asked; as listed where there is only one.

    Args:
        models: Names, as configured.
        context: Its history tells what each one gained and cost; its seed decides the draws.
        proposer: What `Proposal.proposer` begins with, before the colon and the model.
        owed: What calls cost that have led to no proposal so far, by who was asked.
    """
    if len(models) < 2:
        return list(models)
    arms = {
        model: _pulls(context.history, who) + _vain((owed or {}).get(who, Cost()))
        for model in models
        for who in [f"{proposer}:{model}"]
    }
    every = [pull for pulls in arms.values() for pull in pulls]
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
    stuck = drought(context.history) >= patience(context.history)
    latest = _latest(context.history, proposer) if stuck else ""
    return sorted(models, key=lambda model: (model == latest, -ratios[model]))


def _latest(history: Sequence[Experiment], proposer: str) -> str:
    """The model that was asked last; empty if none was."""
    makers = [e.proposal.proposer for e in history if e.proposal]
    ours = [maker for maker in makers if maker.startswith(f"{proposer}:")]
    return ours[-1].partition(":")[2] if ours else ""


def _pulls(history: Sequence[Experiment], who: str) -> list[Pull]:
    """What each proposal of a model came to, the given up ones included."""
    tried = [e for e in history if e.verdict and e.proposal and e.proposal.proposer == who]
    dropped = [p for e in history for p in e.dropped if p.proposer == who]
    return [(_gain(e), e.proposal.cost.dollars) for e in tried if e.proposal] + [
        (0.0, p.cost.dollars) for p in dropped
    ]


def _vain(cost: Cost) -> list[Pull]:
    """Calls that have led to nothing."""
    return [(0.0, cost.dollars / cost.calls)] * min(cost.calls, MAX_VAIN) if cost.calls else []


def _gain(experiment: Experiment) -> float:
    effect = experiment.verdict.effect if experiment.verdict and experiment.kept else None
    return max(effect or 0.0, 0.0)


def _beta(draw: Random, shares: Sequence[float]) -> float:
    """A draw from the posterior of a mean of values in [0, 1], from a uniform prior."""
    total = sum(shares)
    return draw.betavariate(1 + total, 1 + len(shares) - total)
