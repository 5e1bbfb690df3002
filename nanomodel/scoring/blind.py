"""Blind questions: what a model answers before anybody has shown it what follows.

A question is a window of which only the tokens up to a position are true; random tokens follow, and only the
answer at that position counts. A server of its own is asked before any other process of the trial has seen
the text. A causal model answers exactly as it does in the full window, so the corrected score, full plus
mean(blind - full), costs it nothing. A model that knows the future of a share s of the positions, by
whatever channel, gains nothing at the positions asked, and gets past n questions with probability
(1 - s) ** n.

Invariant: no request shows a token that is still to be asked for, or is asked for by the same request.

Not covered: a server that tells the one which is scored next what it was asked. The mean of the blind answers
alone (`Answers.nats`, `Answers.bytes`) holds against that, too, at the price of its noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanomodel.scoring.client import Failure
from nanomodel.scoring.probes import Tolerance
from nanomodel.scoring.windows import Windows


@dataclass(frozen=True)
class Questions:
    """Positions to ask about, in the order of the text.

    Attributes:
        windows: Number of the window of each, int64 [n].
        positions: Position in it whose prediction is asked for, int64 [n].
        first: Index in the split of the first token that the question shows, int64 [n].
        target: Index in the split of the token that it asks for, int64 [n]; they ascend.
    """

    windows: NDArray[np.int64]
    positions: NDArray[np.int64]
    first: NDArray[np.int64]
    target: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.windows)

    def batches(self, rows: int) -> Iterator[NDArray[np.int64]]:
        """Divide the questions into requests of at most so many, in an order that tells no answer early.

        Each request takes the first questions whose true tokens hold no target that is still to be asked
        for. Two questions about one window therefore go into different requests, the earlier one first.

        Yields:
            Numbers of questions.
        """
        left = np.arange(len(self))
        while len(left):
            targets = self.target[left]
            shown = np.searchsorted(targets, targets) - np.searchsorted(targets, self.first[left])
            chosen = np.flatnonzero(shown == 0)[:rows]
            yield left[chosen]
            left = np.delete(left, chosen)


def choose(windows: Windows, count: int, rng: np.random.Generator) -> Questions:
    """Choose questions uniformly among the targets that count, each at most once.

    Args:
        windows: What will be scored.
        count: How many, if there are so many targets.
        rng: Random generator that the candidate must not know.
    """
    everything = np.arange(len(windows))
    counted = np.flatnonzero(windows.counted(everything))
    picked = np.sort(rng.choice(counted, min(count, len(counted)), replace=False))
    numbers, positions = picked // windows.length, picked % windows.length
    first = windows.starts[numbers]
    return Questions(numbers, positions, first, first + positions + 1)


def hidden(windows: Windows, asked: Questions, rng: np.random.Generator) -> NDArray[np.int64]:
    """What the model reads: true tokens up to each position, random ones after it, int64 [n, length]."""
    inputs = windows.inputs(asked.windows)
    noise = rng.integers(0, windows.vocab, size=inputs.shape)
    return np.where(np.arange(windows.length) <= asked.positions[:, None], inputs, noise)


@dataclass(frozen=True)
class Answers:
    """What a model answered blind.

    Attributes:
        questions: What it was asked.
        nats: Of each target, float32 [n].
        bytes: Of text in each target, int64 [n].
    """

    questions: Questions
    nats: NDArray[np.float32]
    bytes: NDArray[np.int64]

    @property
    def bits_per_byte(self) -> float:
        """The score by these answers alone: unbiased, but noisy."""
        return float(self.nats.sum(dtype=np.float64) / (np.log(2.0) * self.bytes.sum()))

    def correction(self, nats: NDArray[np.float32], tolerance: Tolerance) -> float:
        """What the full pass flattered each target by, in nats: the mean of blind minus full.

        Args:
            nats: Of the full pass, [windows, length].
            tolerance: How far the two may differ.

        Raises:
            Failure: If they differ by more than rounding.
        """
        asked = self.questions
        difference = self.nats - nats[asked.windows, asked.positions]
        if tolerance.exceeded(difference, np.ones(len(asked), bool)):
            worst = int(np.abs(difference).argmax())
            differing = int((np.abs(difference) > tolerance.worst).sum())
            raise Failure(
                "invalid",
                f"the model looks ahead or remembers: asked blind, before anything had shown it what follows,"
                f" it gave other answers at {differing} of {len(asked)} positions (by"
                f" {abs(float(difference[worst])):.3g} nats at position {asked.positions[worst]})",
            )
        return float(difference.mean(dtype=np.float64))
