"""Checks, before a keep, that the gain is there on text that no program of the search was shown before.

Candidate and incumbent are trained once more, with the same new seed, and scored on a slice of held-out text
beside the validation data. These are trials of the journal like others, and a judge that waits with its keeps
counts them. A program that knows the validation text, from notes of earlier programs or by whatever channel,
gains nothing there. Both are first asked the same blind questions, whose answers must show the gain as well.
Each slice is used once, whatever comes of it: it is written down before it is opened. When none is left, that
is said, and the verdict rests on the validation data.

Not covered: what is done about a gain that is missing (`loop`).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.clock import now
from autoresearch.judge import TrialRequest
from autoresearch.judge.noise.documents import Items, document_variance
from autoresearch.search.observers import View
from autoresearch.search.scheduler import Scheduler
from autoresearch.search.state import SearchState
from autoresearch.search.steps import Steps
from autoresearch.store.files import losses_folder, read_losses
from autoresearch.store.records.notes import SliceUse, read_slices, write_slice
from autoresearch.tasks.base import requested
from autoresearch.types import Arm, Experiment, Measurement, Outcome, Split, Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIRST_SEED = 1_000_000
"""Seed index of the check on the first slice, beyond the first of the search; no judge asks for so many."""

LARGEST_Z = 4.0
"""Standard errors by which the gain on validation data may exceed that on the slice."""

LEAST_SHARE = 0.5
"""Of the gain on validation data: more than this is never called missing."""


@dataclass(frozen=True)
class Found:
    """What unseen text has shown.

    Attributes:
        reason: What is said of it.
        outcome: OK if the gain was there, or could not be checked; PRUNE if it was not there.
        failed: The trial whose result is the reason, if one did not end well.
        trials: The trainings of candidate and incumbent; empty if there were none, or one failed.
    """

    reason: str
    outcome: Outcome = Outcome.OK
    failed: tuple[Trial, Measurement] | None = None
    trials: tuple[Trial, ...] = ()


def check_unseen(
    state: SearchState, scheduler: Scheduler, view: View, experiment: Experiment
) -> Steps[Found]:
    """Compare a candidate with the incumbent on the next slice, in two trainings, one after the other.

    If it is cut off, the next slice is used when it begins again.

    Args:
        state: Of the search.
        scheduler: Starts the trainings.
        view: Shows their results.
        experiment: The candidate, which is to be kept.
    """
    journal, count = state.journal, slices(state)
    uses = read_slices(journal)
    mine = [use for use in uses if use.experiment == experiment.number and use.outcome]
    if done := [use for use in mine if use.commit in ("", experiment.commit)]:
        known = {trial.id: trial for trial in experiment.trials}
        ran = tuple(known[number] for number in done[-1].trials)
        return Found(done[-1].reason, Outcome(done[-1].outcome), trials=ran)
    used = {use.share for use in uses}
    share = next((i for i in range(count) if i not in used), None)
    if share is None:
        return Found("no unseen text was left to check it on" if count else "")
    use = SliceUse(experiment.number, share, count, now(), secrets.randbits(32), commit=experiment.commit)
    write_slice(journal, use)
    results, trials = list[Measurement](), list[Trial]()
    # The candidate comes first: nothing that was shown to the incumbent can reach it.
    for arm, commit in ((Arm.CONFIRM, experiment.commit), (Arm.INCUMBENT, experiment.parent)):
        ended = yield partial(
            scheduler.start,
            experiment.number,
            TrialRequest(arm, state.first_seed + FIRST_SEED + share, thorough=True),
            commit,
            splits=(Split.HELD, *state.scored_splits),
            guards=tuple(g for g in requested(state.guards()) if g.definition.get("split") != Split.HELD),
            gauge=False,
            blind=True,
            blind_seed=use.questions,
            share=(share, count),
        )
        trial = journal.finish_trial(ended.trial, _on_validation(state, ended.result))
        view.trial(trial)
        if ended.result.score is None:
            outcome = ended.result.outcome if arm is Arm.CONFIRM else Outcome.OK
            side = "candidate" if arm is Arm.CONFIRM else "incumbent"
            why = f"the training of the {side} for unseen text failed: {ended.result.reason}"
            found = Found(why, outcome, (trial, ended.result))
            if arm is Arm.INCUMBENT and ended.result.outcome is Outcome.INVALID:
                return found  # nothing is found of the candidate, which is to be proposed again
            return _noted(state, use, found)
        results.append(ended.result)
        trials.append(trial)
    if len({state.devices.name(result.provenance.device) for result in results}) > 1:  # a place was lost
        return (yield from check_unseen(state, scheduler, view, experiment))
    return _noted(state, use, replace(_compare(state, trials, *results), trials=tuple(trials)))


def _on_validation(state: SearchState, result: Measurement) -> Measurement:
    """The result as other trials have it, with the score on validation data. Each slice is another text."""
    metric, metrics = state.task.metric, dict(result.metrics)
    if result.score is None:
        return result
    score = metrics.pop(metric.on(Split.VALIDATION))
    return state.devices.levelled(replace(result, score=score, metrics=metrics))


def _noted(state: SearchState, use: SliceUse, found: Found) -> Found:
    trials = tuple(trial.id for trial in found.trials)
    ended = replace(use, outcome=found.outcome.value, reason=found.reason, ended=now(), trials=trials)
    write_slice(state.journal, ended)
    return found


def slices(state: SearchState) -> int:
    """How many slices of unseen text there are, used ones included.

    None in a search whose programs were scored on the whole split, as those of older versions were.
    """
    info, name = state.journal.info(), state.task.metric.on(Split.HELD)
    seen = any(
        t.result and name in t.result.metrics
        for e in state.journal.experiments()[1:]
        for t in e.trials
        if t.commit != info.base_commit
    )
    return 0 if seen else max(0, state.task.shares(Split.HELD, info.data))


def blind_gain(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[float, float]:
    """The gain by blind answers alone, and its standard error.

    Args:
        pairs: Loss and weight of the same questions, asked of two programs, the better one last.
    """
    import numpy as np

    gains = np.concatenate([before[:, 0] - after[:, 0] for before, after in pairs])
    weights = np.concatenate([after[:, 1] for _, after in pairs])
    gain = float(gains.sum() / weights.sum())
    return gain, float(np.sqrt(((gains - gain * weights) ** 2).sum()) / weights.sum())


def _compare(
    state: SearchState, trials: Sequence[Trial], candidate: Measurement, incumbent: Measurement
) -> Found:
    metric, folder = state.task.metric, state.journal.path.parent
    places = [losses_folder(folder, trial.id) for trial in reversed(trials)]
    assert candidate.score is not None and incumbent.score is not None
    name = metric.on(Split.VALIDATION)
    seen = metric.gain(incumbent.metrics[name], candidate.metrics[name])
    gain = metric.gain(incumbent.score, candidate.score)
    error = math.hypot(*(_error(places, split) for split in (Split.HELD, Split.VALIDATION)))
    tables = [read_losses(place, "blind") for place in places]
    blind, unsure = gain, 0.0
    if tables[0] is not None and tables[1] is not None:
        blind, unsure = blind_gain([(tables[0], tables[1])])
    shown = f"{gain:+.{metric.digits}f} on unseen text, {seen:+.{metric.digits}f} on validation data"
    if _missing(seen, gain, error):
        return Found(f"its gain is missing on text that no program had seen: {shown}", Outcome.PRUNE)
    if _missing(gain, blind, unsure):
        answers = f"{blind:+.{metric.digits}f} by answers given blind"
        return Found(f"its gain is missing where nothing was to be seen: {answers}, {shown}", Outcome.INVALID)
    return Found(f"it gains {shown}")


def _missing(gain: float, other: float, error: float) -> bool:
    return gain - other > LARGEST_Z * error and other < LEAST_SHARE * gain


def _error(places: Sequence[Path], split: Split) -> float:
    """Standard error that the choice of text gives the gain on a split; 0 without losses of items."""
    import numpy as np

    before, after = (read_losses(place, split) for place in places)
    if before is None or after is None:
        return 0.0
    items = Items(after[:, 1], after[:, 2].astype(np.int64))
    return document_variance({0: before[:, 0]}, {0: after[:, 0]}, items).error
