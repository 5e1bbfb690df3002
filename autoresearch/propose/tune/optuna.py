"""Tuning the knobs of the script without an LLM, by Optuna.

Each proposal makes a study from the history, whose scores are brought to the level of the incumbent, and asks
a sampler for a point, which becomes an ordinary edit of the script. What was tried is also recorded in one
study on disk for each search (`study`), for people and for Optuna's dashboard. The default sampler stays near
the incumbent (`local`); Optuna's own Gaussian process and TPE search the whole space, for comparison and for
scripts that nobody has tuned.

Invariants: no point is proposed twice; the work for one proposal is bounded, however long the history;
nothing is remembered that the history does not tell, except points that were proposed and are not judged yet,
so a killed search continues exactly.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, InstanceOf, validate_call

from autoresearch.edit.knob_lines import values_in
from autoresearch.edit.knobs import Choice, same
from autoresearch.propose.base import Context, SearchServices
from autoresearch.propose.tune.knobs import KnobProposer, Point, Tunable, knob_changes, point_of
from autoresearch.propose.tune.study import FAILED, STUDY, Observation, record
from autoresearch.types import Knob

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

MAX_SEEN = 150
"""Observations given to a sampler, the latest: the cost of a Gaussian process grows with their cube."""

WORST = 12.0
"""A score counts as at most this many standard deviations of the noise worse than the incumbent's."""

STARTUP = 10
"""Random points before Optuna's own samplers start to model."""


class OptunaProposer(KnobProposer):
    """Tunes the knobs of the script.

    Args:
        column: Which argument of `at(cpu, gpu)` is set: 0 for CPU, 1 for GPU.
        sampler: "local", or "gp" or "tpe" over the whole space.
        services: What the search lends: its folder, where the study is recorded.
    """

    name = "optuna"

    @validate_call(config=ConfigDict(arbitrary_types_allowed=True))
    def __init__(
        self,
        *,
        column: int,
        sampler: Literal["local", "gp", "tpe"],
        services: InstanceOf[SearchServices] | None = None,
    ) -> None:
        super().__init__(column, tries=40)
        self._sampler = sampler
        self._proposed: list[Point] = []
        self._study = services.folder.parent / STUDY if services else None

    def _point(self, context: Context, knobs: Mapping[str, Tunable], attempt: int) -> Point | None:
        seen = observations(context, knobs, self._column)
        if self._study is not None and self._study.parent.is_dir() and not attempt:
            record(self._study, context.search, knobs, seen)
        assumed = _assumed(context, knobs, seen)
        tried = [*(one.point for one in (*seen, *assumed)), *self._proposed]
        known = len(context.history) + len(context.under_way)
        seed = Random(f"{context.seed} {known} {attempt}").randrange(2**31)
        sampler = self._make(context, knobs, distributions(knobs), seed)
        point = sampled(sampler, knobs, [*assumed, *seen[-MAX_SEEN:]])
        return None if any(equal(point, other) for other in tried) else point

    def _accepted(self, point: Point) -> None:
        self._proposed.append(point)

    def _make(
        self, context: Context, knobs: Mapping[str, Tunable], space: dict[str, BaseDistribution], seed: int
    ) -> BaseSampler:
        from optuna.samplers import GPSampler, TPESampler

        from autoresearch.propose.tune.local_sampler import LocalSampler

        if self._sampler == "gp":
            return GPSampler(seed=seed, n_startup_trials=STARTUP)
        if self._sampler == "tpe":
            return TPESampler(seed=seed, n_startup_trials=STARTUP)
        incumbent = context.metric.loss(context.incumbent_score)
        return LocalSampler(space, knobs, incumbent, noise_of(context), seed)


def sampled(sampler: BaseSampler, knobs: Mapping[str, Tunable], seen: Sequence[Observation]) -> Point:
    """The point that a sampler asks for in a study that knows everything in `seen`."""
    import optuna

    from autoresearch.propose.tune.local_sampler import positions

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(knobs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental features
        study = optuna.create_study(sampler=sampler)
        for one in seen:
            study.add_trial(
                optuna.trial.create_trial(
                    params=positions(knobs, one.point),
                    distributions=space,
                    value=one.score,
                    constraints={FAILED: 1.0 if one.failed else -1.0},
                )
            )
        asked = study.ask(space).params
    return {name: _value(knob, asked[name]) for name, knob in knobs.items()}


def observations(context: Context, knobs: Mapping[str, Tunable], column: int) -> list[Observation]:
    """What the history says about the knobs, oldest first; the incumbent comes last.

    What crashed or was stopped early is marked, so that its neighbourhood is avoided; its score and other bad
    ones are cut off, so that none of them can bend a model of the good ones. What a kept change of code
    gained is taken off the scores from before it, so that they stay comparable. A knob that did not exist yet
    counts as it is now, and one that was renamed under its new name.
    """
    loss = context.metric.loss
    incumbent = loss(context.incumbent_score)
    worst = incumbent + WORST * noise_of(context)
    here = {name: knob.value for name, knob in knobs.items()}
    found = [Observation(here, incumbent)]
    gained, names = 0.0, dict[str, str]()
    renamed = {change.number: change.renamed for change in knob_changes(context.history, column)}
    for experiment in reversed(context.history):
        proposal = experiment.proposal
        params = point_of(proposal) if proposal else _start(context, knobs, column)
        old = {names.get(name, name): value for name, value in params.items()}
        point = {name: old.get(name, value) for name, value in here.items()}
        if old.keys() & knobs.keys() and all(knob.holds(point[name]) for name, knob in knobs.items()):
            failed = experiment.score is None
            score = worst if experiment.score is None else min(loss(experiment.score) - gained, worst)
            found.append(Observation(point, score, failed, experiment.number))
        else:
            gained += experiment.gain
        for before, after in renamed.get(experiment.number, {}).items():
            names[before] = names.get(after, after)
    return found[::-1]


def _assumed(
    context: Context, knobs: Mapping[str, Tunable], seen: Sequence[Observation]
) -> list[Observation]:
    """Points under way, as if each came out like the average one, so that the next is not its twin."""
    # The constant liar of Ginsbourger, Le Riche & Carraro (2010).
    lie = sum(one.score for one in seen) / len(seen)
    points = (e.proposal.params for e in context.under_way if e.proposal)
    return [
        Observation({name: point[name] for name in knobs}, lie)
        for point in points
        if all(knob.holds(point.get(name)) for name, knob in knobs.items())
    ]


def _start(context: Context, knobs: Mapping[str, Tunable], column: int) -> Point:
    """The values in the files that the search began with."""
    files = {
        path: values_in(path, source, column)
        for path, source in context.baseline_sources.items()
        if any(knob.path == path for knob in knobs.values())
    }
    return {k: files[t.path][t.name] for k, t in knobs.items() if t.name in files.get(t.path, {})}


def noise_of(context: Context) -> float:
    """The measured noise; never 0, since scores are told in its units."""
    return max(context.noise, 1e-5 * abs(context.incumbent_score), 1e-9)


def distributions(knobs: Mapping[str, Tunable]) -> dict[str, BaseDistribution]:
    """The space for Optuna: positions in [0, 1] for numbers, indices for choices."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: CategoricalDistribution(range(len(knob.space.options)))
        if isinstance(knob.space, Choice)
        else FloatDistribution(0.0, 1.0)
        for name, knob in knobs.items()
    }


def _value(knob: Tunable, position: float) -> Knob:
    """The value at a position; where the incumbent stands, exactly its value, however many digits it has."""
    if isinstance(knob.space, Choice):
        return knob.space.options[int(position)]
    if abs(position - knob.space.unit(float(knob.value))) < 1e-9:
        return knob.value
    return knob.space.value(position)


def equal(a: Point, b: Point) -> bool:
    """Whether two points are the same, as far as the first one goes."""
    return all(name in b and same(a[name], b[name]) for name in a)  # a knob may come and go
