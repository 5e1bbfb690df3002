"""A small Gaussian process for few, noisy observations (Rasmussen & Williams 2006, chapters 2 and 5).

It differs from a library's in what it takes as known: the noise, which a search has measured, and how scores
usually behave (priors on the length scales and on the amplitude). With a dozen observations of a dozen knobs
that knowledge decides whether the model is of any use. Squared-exponential kernel, one length scale an input,
hyperparameters at the mode of their posterior.

Not covered: more than a few hundred observations (the cost grows with their cube).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LENGTH, LENGTH_SPREAD = 0.6, 0.8
"""Log-normal prior of the length scales, where inputs go from 0 to 1."""

AMPLITUDE, AMPLITUDE_SPREAD = 12.0, 0.7
"""Log-normal prior of the amplitude, in standard deviations of the noise."""

FARTHEST = 4.0
"""Hyperparameters stay within this distance of their prior, in logarithms, so that nothing overflows."""

STEPS = 30
JITTER = 1e-10


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
