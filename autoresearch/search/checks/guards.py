"""Looks, before a keep, at the guards: further metrics on which a gain may not lose (Goodhart's law).

Guards are measured in the trials that the judge asks for anyway, so this costs no training. Only where a
guard is new, because a person has just accepted it, candidate and incumbent are trained on a few common fresh
seeds. A loss beyond the noise is said, or the change is held until a person releases it, or refused, as
`guards.action` has it. Not covered: the statistics (`judge.guards`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from autoresearch.clock import now
from autoresearch.judge.guards import LEAST_RUNS, GuardRun, weigh
from autoresearch.search.scheduler import Scheduler
from autoresearch.search.state import SearchState
from autoresearch.search.steps import Steps
from autoresearch.store.files import losses_folder, read_losses
from autoresearch.store.inbox import Inbox
from autoresearch.tasks.base import requested
from autoresearch.types import (
    Arm,
    Experiment,
    GuardGain,
    GuardMetric,
    Measurement,
    Metric,
    Outcome,
    Trial,
)

FIRST_SEED = 600_000_000
"""Seed index of the first training for a new guard; no judge asks for so many."""

NEW_SEEDS = 3
"""Seeds on which candidate and incumbent are trained for a guard that their trials have not measured."""

HELD = "held"
"""How the reason of a held change begins."""


def weigh_guards(
    state: SearchState, scheduler: Scheduler, experiment: Experiment
) -> Steps[tuple[GuardGain, ...]]:
    """Compare a candidate with the incumbent on each guard.

    Args:
        state: Of the search.
        scheduler: Starts trainings, if a guard is new.
        experiment: The candidate, which is to be kept.
    """
    guards = state.guards()
    if not guards:
        return ()
    before, after = (
        _incumbent_runs(state),
        runs_of(state, [t for t in experiment.own if t.arm is not Arm.SCREEN]),
    )
    if any(_unknown(guard, before) or _unknown(guard, after) for guard in guards):
        before, after = yield from _train(state, scheduler, experiment)
    return weigh(guards, before, after)


def _unknown(guard: GuardMetric, runs: Sequence[GuardRun]) -> bool:
    """Whether a guard that must be asked for was measured in too few runs."""
    return bool(guard.definition) and sum(guard.metric in run.values for run in runs) < LEAST_RUNS


def losers(gains: Sequence[GuardGain]) -> list[GuardGain]:
    """Those on which the change loses."""
    return [gain for gain in gains if gain.lost]


def sentence(gains: Sequence[GuardGain], guards: Sequence[GuardMetric]) -> str:
    """On which guards a change loses, in words; empty if on none."""
    words = {guard.name: guard.text for guard in guards}
    parts = []
    for gain in losers(gains):
        assert gain.gain is not None and gain.interval is not None
        low, high = gain.interval
        about = f"{gain.gain:+.4g}, {low:+.4g} to {high:+.4g}"
        parts.append(f"{gain.guard} ({words.get(gain.guard, gain.guard)}: {about})")
    return f"it loses on a guard: {'; '.join(parts)}" if parts else ""


def is_released(state: SearchState, experiment: Experiment) -> bool:
    """Whether a person has released the change after it was held."""
    idea = experiment.proposal.idea if experiment.proposal else None
    return idea is not None and idea in Inbox(state.journal.path.parent).released().values()


def runs_of(state: SearchState, trials: Sequence[Trial]) -> list[GuardRun]:
    """What trials say of the guards; a seed counts once."""
    folder, guards = state.journal.path.parent, state.guards()
    found = {}
    for trial in trials:
        if trial.result is not None and trial.score is not None:
            place = losses_folder(folder, trial.id)
            found[trial.seed] = run_of(trial.seed, trial.result, place, guards, state.task.metric)
    return list(found.values())


def run_of(
    seed: int, result: Measurement, place: Path, guards: Sequence[GuardMetric], metric: Metric
) -> GuardRun:
    """What one measurement with a score says of the guards.

    Args:
        seed: Its seed.
        result: The measurement.
        place: Folder of its losses of single items.
        guards: The guards.
        metric: The deciding one.
    """
    assert result.score is not None
    tables = {g.name: read_losses(place, g.items) for g in guards if g.items and g.metric in result.metrics}
    known = {name: table for name, table in tables.items() if table is not None}
    return GuardRun(seed, metric.loss(result.score), result.metrics, known)


def _incumbent_runs(state: SearchState) -> list[GuardRun]:
    tip = state.incumbent
    again = [t for e in state.journal.experiments() for t in e.trials if t.arm is Arm.INCUMBENT]
    own = [t for t in tip.own if t.arm is not Arm.SCREEN]
    return runs_of(state, [*own, *(t for t in again if t.commit == tip.commit)])


def _train(
    state: SearchState, scheduler: Scheduler, experiment: Experiment
) -> Steps[tuple[list[GuardRun], list[GuardRun]]]:
    """Train candidate and incumbent on common fresh seeds; what fails is left out."""
    sides: tuple[list[GuardRun], list[GuardRun]] = ([], [])
    guards, folder = state.guards(), state.journal.path.parent
    for index in range(NEW_SEEDS):
        for side, commit in enumerate((experiment.parent, experiment.commit)):
            seed = FIRST_SEED + NEW_SEEDS * experiment.number + index
            label = f"guards, {('incumbent', 'candidate')[side]}"
            trial = Trial(0, experiment.number, Arm.AUDIT, seed, commit, now(), label=label)
            items = f"losses/guards-{experiment.number}-{index}-{side}"
            start = partial(
                scheduler.start_unrecorded,
                trial,
                state.scored_splits,
                items,
                blind=True,
                guards=requested(guards),
            )
            ended = yield start
            if ended.result.outcome is Outcome.OK and ended.result.score is not None:
                sides[side].append(run_of(seed, ended.result, folder / items, guards, state.task.metric))
    return sides
