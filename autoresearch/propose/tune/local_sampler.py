"""An Optuna sampler for scripts that are nearly right: few knobs at a time, close to the incumbent.

A point drawn from the whole space of a script that somebody wrote with care nearly always loses, and so does
one that moves every knob a little: most knobs stand well, and each wrong move costs. So the candidates are
sparse: the incumbent with one to four knobs moved within a trust region (as in TuRBO, Eriksson et al. 2019,
whose candidates are sparse for the same reason). A Gaussian process fitted to everything tried so far chooses
the candidate that most probably beats the incumbent by enough to pass the judge's first look.

The Gaussian process (Rasmussen & Williams 2006, chapters 2 and 5) differs from a library's in what it takes
as known: the noise, which a search has measured, and how scores usually behave (priors on the length scales
and on the amplitude). With a dozen observations of a dozen knobs that knowledge decides whether the model is
of any use. Squared-exponential kernel, one length scale an input, hyperparameters at the mode of their
posterior.

The region moves with the incumbent and keeps its size: letting it grow with success and shrink with failure
made no difference in `benchmarks/proposers.py`, because the candidates differ in size already and the
Gaussian process chooses among them.

Not covered: the history and the edits (`optuna`, `knobs`); more than a few hundred observations (the cost
grows with their cube).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autoresearch.edit.knobs import Choice, Range, same
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

REACH = 0.15
"""How far a failure tells of its neighbourhood, where a number's whole space has length 1."""

LENGTH, LENGTH_SPREAD = 0.6, 0.8
"""Log-normal prior of the length scales, where inputs go from 0 to 1."""

AMPLITUDE, AMPLITUDE_SPREAD = 12.0, 0.7
"""Log-normal prior of the amplitude, in standard deviations of the noise."""

FARTHEST = 4.0
"""Hyperparameters stay within this distance of their prior, in logarithms, so that nothing overflows."""

STEPS = 30
JITTER = 1e-10

Array = NDArray[np.float64]


class LocalSampler(BaseSampler):
    """Chooses one point near the incumbent from all trials of a study. Made anew for each point.

    Parameters are positions in [0, 1] for numbers and indices for choices.

    Args:
        space: Distributions of all knobs, by name.
        knobs: The same knobs with the incumbent's values.
        score: The incumbent's score.
        noise: Standard deviation of a score.
        seed: Of the random candidates.
        draw: Makes a random candidate.
    """

    def __init__(
        self,
        space: dict[str, BaseDistribution],
        knobs: Mapping[str, Tunable],
        score: float,
        noise: float,
        seed: int,
        draw: Callable[[Mapping[str, Tunable], Random], Point] | None = None,
    ) -> None:
        self._space = space
        self._knobs = knobs
        self._score = score
        self._noise = noise
        self._random = Random(seed)
        self._draw = draw or a_few_moved

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
        """The candidate with the best chance to be better and not to fail."""
        from scipy.special import log_ndtr

        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        failed = np.array([any(value > 0 for value in t.constraints.values()) for t in trials])
        scores = np.array([(t.value or 0.0) - self._score for t in trials]) / self._noise
        tried = self._encode([t.params for t in trials])
        process = fit(tried, scores)
        points = [self._draw(self._knobs, self._random) for _ in range(CANDIDATES)]
        candidates = [positions(self._knobs, point) for point in points]
        here = positions(self._knobs, {name: knob.value for name, knob in self._knobs.items()})
        there = self._encode([here, *candidates])
        mean, deviation = process.predict(there)
        chance = log_ndtr((mean[0] - MARGIN - mean[1:]) / np.sqrt(deviation[1:] ** 2 + 1))
        return candidates[int(np.argmax(chance + np.log(feasible(there[1:], tried, failed))))]

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


def feasible(z: Array, x: Array, failed: NDArray[np.bool_]) -> Array:
    """Probability [m] that a trial at inputs [m, d] does not fail, from trials at inputs [n, d].

    A kernel estimate with the weight of one trial that went well, so that it is 1 far from every failure.
    """
    near = np.exp(-0.5 * _squares(z, x).sum(-1) / REACH**2)
    return np.asarray((1 + near[:, ~failed].sum(1)) / (1 + near.sum(1)))


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process; make one with `fit`.

    Attributes:
        x: Inputs [n, d].
        log_hyper: Logarithms of d length scales and the amplitude.
        factor: Cholesky factor [n, n] of the covariance of the observations.
        weights: Covariance^-1 y [n].
    """

    x: Array
    log_hyper: Array
    factor: Array
    weights: Array

    def predict(self, z: Array) -> tuple[Array, Array]:
        """Mean and standard deviation [m] of the noiseless function at inputs [m, d]."""
        from scipy.linalg import solve_triangular

        cross = _kernel(_squares(z, self.x), self.log_hyper)
        explained = solve_triangular(self.factor, cross.T, lower=True)
        variance = np.exp(2 * self.log_hyper[-1]) - (explained**2).sum(0)
        return cross @ self.weights, np.sqrt(np.maximum(variance, JITTER))


def fit(x: Array, y: Array) -> GaussianProcess:
    """Fit to observations.

    Args:
        x: Inputs [n, d], about 0 to 1.
        y: Observations [n] in standard deviations of the noise, about 0 on average.
    """
    from scipy.optimize import minimize

    squares = _squares(x, x)
    prior = np.log(np.r_[np.full(x.shape[1], LENGTH), AMPLITUDE])
    bounds = [(middle - FARTHEST, middle + FARTHEST) for middle in prior]
    found = minimize(
        _loss, prior, (squares, y, prior), "L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": STEPS}
    )
    best = np.asarray(found.x)
    factor, weights, _ = _solve(best, squares, y)
    return GaussianProcess(x, best, factor, weights)


def _loss(log_hyper: Array, squares: Array, y: Array, prior: Array) -> tuple[float, Array]:
    """Negative log posterior of the hyperparameters, and its gradient."""
    factor, weights, kernel = _solve(log_hyper, squares, y)
    spread = np.r_[np.full(len(prior) - 1, LENGTH_SPREAD), AMPLITUDE_SPREAD]
    off = (log_hyper - prior) / spread
    loss = 0.5 * y @ weights + np.log(np.diag(factor)).sum() + 0.5 * off @ off
    inverse = np.linalg.inv(factor)
    slope = 0.5 * (inverse.T @ inverse - np.outer(weights, weights)) * kernel
    by_length = np.einsum("nm,nmd->d", slope, squares) * np.exp(-2 * log_hyper[:-1])
    return float(loss), np.r_[by_length, 2 * slope.sum()] + off / spread


def _solve(log_hyper: Array, squares: Array, y: Array) -> tuple[Array, Array, Array]:
    """Cholesky factor of the covariance with unit noise, covariance^-1 y, and the kernel alone."""
    from scipy.linalg import cho_solve

    kernel = _kernel(squares, log_hyper)
    factor = np.asarray(np.linalg.cholesky(kernel + (1 + JITTER) * np.eye(len(y))), dtype=np.float64)
    return factor, np.asarray(cho_solve((factor, True), y)), kernel


def _kernel(squares: Array, log_hyper: Array) -> Array:
    return np.asarray(np.exp(2 * log_hyper[-1] - 0.5 * squares @ np.exp(-2 * log_hyper[:-1])))


def _squares(a: Array, b: Array) -> Array:
    """Squared differences [n, m, d]."""
    return np.asarray((a[:, None] - b[None]) ** 2)
