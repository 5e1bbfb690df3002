"""An Optuna sampler for scripts that are nearly right: few knobs at a time, close to the incumbent.

A point drawn from the whole space of a script that somebody wrote with care nearly always loses, and so does
one that moves every knob a little: most knobs stand well, and each wrong move costs. So the candidates are
sparse: the incumbent with one to four knobs moved within a trust region (as in TuRBO, Eriksson et al. 2019,
whose candidates are sparse for the same reason). A Gaussian process fitted to everything tried so far chooses
the candidate that most probably beats the incumbent by enough to pass the judge's first look.

The region moves with the incumbent and keeps its size: letting it grow with success and shrink with failure
made no difference in `benchmarks/proposers.py`, because the candidates differ in size already and the
Gaussian process chooses among them.

Not covered: the history and the edits (`optuna`, `space`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autoresearch.edit.knobs import Choice, Range, same
from autoresearch.propose.tune.gaussian_process import Array, fit
from autoresearch.propose.tune.knobs import Point, Tunable
from autoresearch.types import Knob

SHORTEST, LONGEST = 0.06, 0.21
"""How far a knob is moved, as a share of its space. Shorter moves are lost in the noise."""

MAX_MOVED = 4
CANDIDATES = 400

MARGIN = 1.5
"""What "beats the incumbent" means, in standard deviations of the noise: about what a first look can see."""

CATEGORY = 0.35
"""Distance between two categories along each of their axes, where a number's whole space has length 1."""


class LocalSampler(BaseSampler):
    """Chooses one point near the incumbent from all trials of a study. Made anew for each point.

    Parameters are positions in [0, 1] for numbers and indices for choices.

    Args:
        space: Distributions of all knobs, by name.
        knobs: The same knobs with the incumbent's values.
        score: The incumbent's score.
        noise: Standard deviation of a score.
        seed: Of the random candidates.
    """

    def __init__(
        self,
        space: dict[str, BaseDistribution],
        knobs: Mapping[str, Tunable],
        score: float,
        noise: float,
        seed: int,
    ) -> None:
        self._space = space
        self._knobs = knobs
        self._score = score
        self._noise = noise
        self._random = Random(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All knobs are chosen together."""
        return self._space

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed: every knob is in the relative search space."""
        raise NotImplementedError

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The candidate with the best chance."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        scores = np.array([(t.value or 0.0) - self._score for t in trials]) / self._noise
        process = fit(self._encode([t.params for t in trials]), scores)
        points = [a_few_moved(self._knobs, self._random) for _ in range(CANDIDATES)]
        candidates = [positions(self._knobs, point) for point in points]
        here = positions(self._knobs, {name: knob.value for name, knob in self._knobs.items()})
        mean, deviation = process.predict(self._encode([here, *candidates]))
        chance = (mean[0] - MARGIN - mean[1:]) / np.sqrt(deviation[1:] ** 2 + 1)
        return candidates[int(np.argmax(chance))]

    def _encode(self, params: Sequence[Mapping[str, float]]) -> Array:
        """Inputs of the Gaussian process [n, d]: positions as they are, choices one-hot."""
        columns = []
        for name, knob in self._knobs.items():
            values = np.array([p[name] for p in params])
            if isinstance(knob.space, Choice):
                options = np.arange(len(knob.space.options))
                columns.append(CATEGORY * (values[:, None] == options))
            else:
                columns.append(values[:, None])
        return np.concatenate(columns, axis=1).astype(np.float64)


def a_few_moved(knobs: Mapping[str, Tunable], random: Random) -> Point:
    """The incumbent with one to four knobs moved a little, a whole number by one at least."""
    point: dict[str, Knob] = {name: knob.value for name, knob in knobs.items()}
    for name in random.sample(sorted(knobs), min(random.randint(1, MAX_MOVED), len(knobs))):
        space = knobs[name].space
        if isinstance(space, Choice):
            point[name] = random.choice([option for option in space.options if not same(option, point[name])])
            continue
        at = space.unit(float(point[name]))
        move = max(random.uniform(SHORTEST, LONGEST), _step(space, point[name]))
        room = [sign for sign in (-1, 1) if 0.0 <= at + sign * move <= 1.0] or [1 if at < 0.5 else -1]
        point[name] = space.value(at + random.choice(room) * move)
    return point


def positions(knobs: Mapping[str, Tunable], point: Point) -> dict[str, float]:
    """A point in the coordinates of the study."""
    found: dict[str, float] = {}
    for name, knob in knobs.items():
        if isinstance(knob.space, Choice):
            found[name] = next(i for i, option in enumerate(knob.space.options) if same(option, point[name]))
        else:
            found[name] = knob.space.unit(float(point[name]))
    return found


def _step(space: Range, value: Knob) -> float:
    """How far the next whole number is, in [0, 1]; 0 for real numbers."""
    if not space.integer or not isinstance(value, int):
        return 0.0
    at = space.unit(value)
    return max(space.unit(value + 1) - at, at - space.unit(value - 1))
