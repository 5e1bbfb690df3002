"""What came of the experiments so far, summed up: what the prompt says about a history as a whole.

The sums are kept while a history grows, so that the prompt of the ten-thousandth experiment takes no longer
than that of the tenth. Invariant: they depend on the history alone, however it was read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.propose.llm.history import is_near_miss
from autoresearch.types import Category, Experiment, Tuning, starts_with

CONFIDENCES = ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.01))
"""Classes of stated confidence that are compared with the outcomes."""

BEST, RECENT = 3, 5
"""Near misses that are named, and experiments whose categories count as recent."""


@dataclass
class Kind:
    """What came of one kind of change."""

    tried: int = 0
    kept: int = 0
    gain: float = 0.0
    failed: int = 0


class Outcomes:
    """The sums of one history.

    Attributes:
        baseline: The first experiment without a proposal, if there is one.
        incumbent: The latest that was kept, or the baseline.
        kinds: By category, of those that were tried.
        recent: Categories of the latest experiments, oldest first.
        tried: Number of experiments without the baseline.
        kept: Number of those that were kept.
        since_keep: Number of those after the last one that was kept.
        confident: For each class of `CONFIDENCES`: number of proposals, and of those that were kept.
        effects: Number of experiments with an expected and a measured effect, and the sums of both.
        near: Number of near misses.
        nearest: The best of them, the best first.
        points: Points of tunings and sweeps by name, in the order of the verdicts.
    """

    def __init__(self) -> None:
        self._read: Sequence[Experiment] = ()
        self.baseline: Experiment | None = None
        self.incumbent: Experiment | None = None
        self.kinds: dict[Category, Kind] = defaultdict(Kind)
        self.recent: list[Category] = []
        self.tried = self.kept = self.since_keep = 0
        self.confident = [[0, 0] for _ in CONFIDENCES]
        self.effects = 0, 0.0, 0.0
        self.near = 0
        self.nearest: list[Experiment] = []
        self.points: dict[str, list[tuple[Experiment, Tuning]]] = {}

    @classmethod
    def of(cls, history: Sequence[Experiment]) -> Outcomes:
        """The sums of a history."""
        found = cls()
        found.read(history)
        return found

    def read(self, history: Sequence[Experiment]) -> None:
        """Take what a history has more than the last one; another history is read from its beginning.

        Args:
            history: Judged experiments, oldest first.
        """
        if not starts_with(history, self._read):
            vars(self).update(vars(Outcomes()))
        for experiment in history[len(self._read) :]:
            self._add(experiment)
        self._read = history

    def _add(self, e: Experiment) -> None:
        proposal, verdict = e.proposal, e.verdict
        self.incumbent = e if e.kept or proposal is None else self.incumbent
        if proposal is None:
            self.baseline = self.baseline or e
            self.since_keep = 0
            return
        self.tried += 1
        self.kept += e.kept
        self.since_keep = 0 if e.kept else self.since_keep + 1
        self.recent = [*self.recent, proposal.category][-RECENT:]
        if is_near_miss(e):
            self.near += 1
            self.nearest = sorted([*self.nearest, e], key=_effect, reverse=True)[:BEST]
        if proposal.tuning:
            self.points.setdefault(proposal.tuning.name, []).append((e, proposal.tuning))
        if verdict is None:
            return
        kind = self.kinds[proposal.category]
        kind.tried += 1
        kind.kept += e.kept
        kind.gain += e.gain
        kind.failed += e.failed
        for (low, high), counts in zip(CONFIDENCES, self.confident, strict=True):
            if proposal.confidence is not None and low <= proposal.confidence < high:
                counts[0], counts[1] = counts[0] + 1, counts[1] + e.kept
        if proposal.expected_effect is not None and verdict.effect is not None:
            n, expected, found = self.effects
            self.effects = n + 1, expected + proposal.expected_effect, found + verdict.effect


def _effect(experiment: Experiment) -> float:
    return (experiment.verdict.effect or 0.0) if experiment.verdict else 0.0
