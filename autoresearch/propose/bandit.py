"""Which of several models to ask first: the one that seems to gain most per dollar, explored honestly.

Budgeted Thompson sampling (Xia, Li, Qin, Yu, Liu: "Thompson Sampling for Budgeted Multi-armed Bandits", IJCAI
2015): for each model draw a reward and a cost from Beta posteriors, and ask the one with the largest ratio.
The reward of an experiment is its confirmed gain (0 unless kept) as a share of the largest one so far, its
cost the dollars of its proposal as a share of the dearest one. Where nothing costs anything, gain alone
counts.

On a plateau whoever was asked last goes to the back: another model may see what this one does not.

Invariant: a function of the history and the seed alone, so that a restarted search asks the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from autoresearch.propose.stuck import drought, patience
from autoresearch.types import Context, Experiment


def ranked(models: Sequence[str], context: Context, proposer: str) -> list[str]:
    """The models in the order in which they should be asked; as listed where there is only one.

    Args:
        models: Names, as configured.
        context: Its history tells what each one gained and cost; its seed decides the draws.
        proposer: What `Proposal.proposer` begins with, before the colon and the model.
    """
    if len(models) < 2:
        return list(models)
    arms = {model: _of(context.history, f"{proposer}:{model}") for model in models}
    every = [e for experiments in arms.values() for e in experiments]
    if not every:
        return list(models)
    most = max(map(_gain, every)) or 1.0
    dearest = max(map(_dollars, every))
    draw = Random(f"{context.seed} {len(context.history)} models")

    def ratio(model: str) -> float:
        rewards = [_gain(e) / most for e in arms[model]]
        gain = _beta(draw, rewards)
        if not dearest:
            return gain
        return gain / max(_beta(draw, [_dollars(e) / dearest for e in arms[model]]), 1e-6)

    ratios = {model: ratio(model) for model in models}
    stuck = drought(context.history) >= patience(context.history)
    latest = _latest(context.history, proposer) if stuck else ""
    return sorted(models, key=lambda model: (model == latest, -ratios[model]))


def _latest(history: Sequence[Experiment], proposer: str) -> str:
    """The model that was asked last; empty if none was."""
    makers = [e.proposal.proposer for e in history if e.proposal]
    ours = [maker for maker in makers if maker.startswith(f"{proposer}:")]
    return ours[-1].partition(":")[2] if ours else ""


def _of(history: Sequence[Experiment], proposer: str) -> list[Experiment]:
    return [e for e in history if e.verdict and e.proposal and e.proposal.proposer == proposer]


def _gain(experiment: Experiment) -> float:
    effect = experiment.verdict.effect if experiment.verdict and experiment.kept else None
    return max(effect or 0.0, 0.0)


def _dollars(experiment: Experiment) -> float:
    return experiment.proposal.cost.dollars if experiment.proposal else 0.0


def _beta(draw: Random, shares: Sequence[float]) -> float:
    """A draw from the posterior of a mean of values in [0, 1], from a uniform prior."""
    total = sum(shares)
    return draw.betavariate(1 + total, 1 + len(shares) - total)
