"""The points of a search as an Optuna study: recorded on disk, and asked which knobs matter.

Invariant: the journal stays the one source of truth. The study on disk is made from it, has the scores as
they were measured, and may be deleted at any time; no proposal is read from it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from autoresearch.edit.knobs import Choice
from autoresearch.propose.tune.knobs import Point, Tunable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

STUDY = "study.log"
"""Name of the study in the folder of a search; a file for `optuna.storages.JournalStorage`."""

NUMBER = "experiment"
"""Attribute of a trial: the number of its experiment."""

FAILED = "failed"
"""Name of the constraint that failed trials violate."""

ENOUGH = 8
"""With fewer scored points nothing is said of what matters."""


class Observation(NamedTuple):
    """A point that was tried.

    Attributes:
        point: Knob -> value.
        score: So that lower is better (`Metric.loss`).
        failed: Whether it has no score of its own.
        experiment: Its number; None for the incumbent as it stands, and for what is assumed.
    """

    point: Point
    score: float
    failed: bool = False
    experiment: int | None = None


def record(path: Path, name: str, knobs: Mapping[str, Tunable], seen: Sequence[Observation]) -> None:
    """Add what was tried to the study of a search, if it is not there yet.

    Args:
        path: Of the study.
        name: Of the search.
        knobs: The knobs of now; a point of the study has their ranges.
        seen: What was tried.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    known = {trial.user_attrs.get(NUMBER) for trial in study.get_trials(deepcopy=False)}
    for one in seen:
        if one.experiment is not None and one.experiment not in known:
            _add(study, _trial(knobs, one))


def importances(knobs: Mapping[str, Tunable], seen: Sequence[Observation]) -> dict[str, float]:
    """How much each knob matters near the best points, as shares of 1, the largest first.

    By PED-ANOVA (Watanabe, Bansal & Hutter 2023), Optuna's default.

    Args:
        knobs: The knobs of now.
        seen: What was tried, with scores on one level.

    Returns:
        Knob -> share; empty if too little was tried.
    """
    import optuna
    import optuna.importance

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scored = [one for one in seen if not one.failed]
    moved = [k for k in knobs if len({str(one.point[k]) for one in scored}) > 1]
    if len(scored) < ENOUGH or not moved:
        return {}
    study = optuna.create_study()
    for one in scored:
        _add(study, _trial({k: knobs[k] for k in moved}, one))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental features
        return dict(optuna.importance.get_param_importances(study))


def _add(study: Study, trial: FrozenTrial) -> None:
    """Add a trial; without knobs whose options have changed, which a study cannot hold."""
    try:
        study.add_trial(trial)
    except ValueError:
        kept = {k: d for k, d in trial.distributions.items() if hasattr(d, "low")}
        trial.params = {k: v for k, v in trial.params.items() if k in kept}
        trial.distributions = kept
        study.add_trial(trial)


def _trial(knobs: Mapping[str, Tunable], one: Observation) -> FrozenTrial:
    """A point as a finished trial, with the knobs' own names, ranges and values."""
    from optuna.trial import TrialState, create_trial

    spaces = {name: _distribution(knob, one.point) for name, knob in knobs.items()}
    return create_trial(
        state=TrialState.FAIL if one.failed else TrialState.COMPLETE,
        value=None if one.failed else one.score,
        params={name: one.point[name] for name in knobs},
        distributions=spaces,
        user_attrs={NUMBER: one.experiment},
        constraints={FAILED: 1.0 if one.failed else -1.0},
    )


def _distribution(knob: Tunable, point: Point) -> BaseDistribution:
    """The range of a knob, widened to the value that was tried."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    space, value = knob.space, point[knob.name]
    if isinstance(space, Choice):
        return CategoricalDistribution(space.options)
    number = float(value)
    low, high = min(space.low, number), max(space.high, number)
    return FloatDistribution(low, high, log=space.log and low > 0)
