"""Checks with a second instance of the model, the witness, whether the model earned its score.

A model must predict each token only from the tokens before it: not from the future, not from other rows of
its batch, not from earlier requests. The first instance answers only scoring requests, so it cannot know what
will be checked. Then the witness, a separate process that has not seen those requests, gets windows whose
tokens were replaced from a random cut on, in other batches and in another order. At every position before the
cut it must give the true target the same probability as the first instance did. A model that looks ahead,
remembers or mixes rows cannot know which answers would agree.

The check compares the nats of the true targets, which make the score, so a difference also estimates what the
model gained by it. Half of the cuts are uniform; half fall where the score gained most over token
frequencies, because a peek gains most there. The check misses a model that takes a share g of its gain from
the future with a probability of about (1 - g/2) ** probes.

Not covered: what a model learned in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanomodel.scoring.client import Failure
from nanomodel.scoring.windows import Windows

Nats = NDArray[np.float32]
Measure = Callable[[NDArray[np.int64], NDArray[np.int64]], Nats]
"""Nats of targets given inputs, each [k, length], measured on the witness."""


@dataclass(frozen=True)
class Tolerance:
    """How far two honest instances may differ, in nats.

    Attributes:
        worst: At any one position.
        mean: On average over many positions, in the direction that flatters the score.
        spread: Standard deviation at one position; the average of few positions varies with it.
    """

    worst: float
    mean: float
    spread: float = 0.0

    def exceeded(self, difference: Nats, compared: NDArray[np.bool_]) -> bool:
        """Whether differences (zero where nothing is compared) are larger than rounding."""
        count = int(compared.sum())
        if not count:
            return False
        mean = float(difference.sum(dtype=np.float64) / count)
        most = self.mean + 4 * self.spread / count**0.5
        # Written with `not`, because every comparison with a difference that is not a number is false.
        return not (float(np.abs(difference).max()) <= self.worst and mean <= most)


# Requests always have the same shape, so an honest model differs only by rounding. Trained 3-layer models on
# a CPU, alone or in other batches, showed no difference at all, in float32 and bfloat16. If another kernel
# adds in another order, bfloat16 differs from float32 by 0.04 at worst, 2e-5 on average, 0.005 in standard
# deviation. Nothing was measured on a GPU, whose kernels may add in an order that depends on the place in a
# batch, so the tolerance is larger there.
EXACT = Tolerance(worst=2e-3, mean=1e-4)
HALF = Tolerance(worst=0.1, mean=1e-4, spread=5e-3)
ROUNDED = Tolerance(worst=0.25, mean=2e-4, spread=5e-3)


def tolerance(device: str, *, exact: bool) -> Tolerance:
    """The tolerance on a "cpu" or a GPU, for a model that answers in float32 (`exact`) or bfloat16."""
    if device != "cpu":
        return ROUNDED
    return EXACT if exact else HALF


@dataclass(frozen=True)
class Probe:
    """Windows to ask the witness about.

    Attributes:
        windows: Their numbers, [k].
        cuts: Position from which on each window is replaced, [k]; `length` leaves it as it is.
        inputs: Tokens to send, int64 [k, length].
    """

    windows: NDArray[np.int64]
    cuts: NDArray[np.int64]
    inputs: NDArray[np.int64]


def plan(windows: Windows, nats: Nats, count: int, rng: np.random.Generator) -> Probe:
    """Choose what to ask the witness.

    Args:
        windows: What was scored.
        nats: What it scored, [windows, length].
        count: How many windows to ask about; one in eight stays unchanged.
        rng: Random generator that the candidate must not know.
    """
    length = windows.length
    everything = np.arange(len(windows))
    uniform = rng.integers(0, nats.size, size=count)
    gain = np.maximum(frequency_nats(windows)[windows.targets(everything)] - nats, 0.0)
    gain[:, -1] = 0.0  # nothing to peek at: the last target is not among the inputs
    total = gain.sum(dtype=np.float64)
    rich = rng.choice(gain.size, size=count, p=gain.ravel() / total) if total > 0 else uniform
    chosen = np.where(rng.random(count) < 0.5, uniform, rich)
    rows, cuts = chosen // length, np.minimum(chosen % length + 1, length)
    cuts[: -(-count // 8)] = length
    shuffled = rng.permutation(count)
    rows, cuts = rows[shuffled], cuts[shuffled]
    inputs = windows.inputs(rows)
    other = windows.inputs(rng.integers(0, len(windows), size=count))
    # The first replaced token must differ, or a model that looks one token ahead would pass.
    first = np.minimum(cuts, length - 1)[:, None]
    shift = rng.integers(1, windows.vocab, size=(count, 1))
    np.put_along_axis(other, first, (np.take_along_axis(inputs, first, 1) + shift) % windows.vocab, 1)
    inputs = np.where(np.arange(length) < cuts[:, None], inputs, other)
    return Probe(rows, cuts, inputs)


def check(windows: Windows, nats: Nats, probe: Probe, measure: Measure, tolerance: Tolerance) -> float:
    """Ask the witness, and compare.

    Args:
        windows: What was scored.
        nats: What it scored, [windows, length].
        probe: What to ask.
        measure: How to ask.
        tolerance: How far the answers may differ.

    Returns:
        Largest difference at any compared position, in nats.

    Raises:
        Failure: If the answers differ by more than rounding.
    """
    witnessed = measure(probe.inputs, windows.targets(probe.windows))
    compared = np.arange(windows.length) < probe.cuts[:, None]
    difference = np.where(compared, witnessed - nats[probe.windows], 0.0)
    whole = probe.cuts == windows.length
    if tolerance.exceeded(difference[whole], compared[whole]):
        worst = float(np.abs(difference[whole]).max())
        raise Failure(
            "invalid",
            "the model gives the same tokens other answers in another batch or after other requests"
            f" (by {worst:.3g} nats a token): it keeps state, mixes rows, or draws random numbers",
        )
    last = np.take_along_axis(difference[~whole], probe.cuts[~whole, None] - 1, 1)
    if tolerance.exceeded(difference, compared) or tolerance.exceeded(last, np.ones_like(last, bool)):
        row, position = np.unravel_index(int(np.abs(difference).argmax()), difference.shape)
        moved = abs(float(difference[row, position]))
        raise Failure(
            "invalid",
            f"the model looks ahead: replacing the tokens from position {probe.cuts[row]} on"
            f" changed its prediction at position {position} by {moved:.3g} nats",
        )
    return float(np.abs(difference).max())


def frequency_nats(windows: Windows) -> NDArray[np.float64]:
    """Nats of each token for a model that knows only token frequencies in the split, [vocab]."""
    counts = np.bincount(np.asarray(windows.tokens), minlength=windows.vocab) + 1.0
    result: NDArray[np.float64] = -np.log(counts / counts.sum())
    return result
