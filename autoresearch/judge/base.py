"""The judge's interface, and what all judges share: order of answers, counts, JSON.

A judge decides what becomes a commit. It is pure (no input or output, clock, or chance of its own) and
lower scores are better. Invariant: its wants and verdicts are a function of the answers alone, not of
when they arrive, and a judge restored from JSON goes on exactly as the one that wrote it.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from autoresearch.judge.noise import Runs
from autoresearch.judge.orders import Orders, Plan, TrialRequest
from autoresearch.judge.report import Report
from autoresearch.types import Arm, Levels, Verdict, VerdictKind

Baseline = Sequence[tuple[int, float]]
"""Replicates of the starting point: (seed, score)."""


class Judge(ABC):
    """Asks for trials of one candidate after another, and decides.

    A judge is used as follows, until the budget is spent::

        judge.candidate(complexity=lines_added - lines_removed)     # optional
        while verdict is None:
            want = judge.next()
            verdict = judge.observe(want, score)
    """

    name: ClassVar[str]
    least: ClassVar[int] = 1
    """Baselines without which this judge cannot begin."""

    _kinds: ClassVar[dict[str, type[Judge]]] = {}

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            Judge._kinds[cls.name] = cls

    def __init__(self, baseline: Baseline, tau: float, options: dict[str, float]) -> None:
        runs = dict(baseline)
        if len(runs) < len(baseline):
            raise ValueError("two baselines have the same seed; a replicate needs a seed of its own")
        if not all(math.isfinite(score) for score in runs.values()):
            raise ValueError("a baseline has no finite score; a search cannot start from a failing script")
        if len(runs) < self.least:
            raise ValueError(
                f"the {self.name} judge needs at least {self.least} baseline runs with different seeds to "
                f"measure the noise, and got {len(runs)}"
            )
        if not (math.isfinite(tau) and tau >= 0):
            raise ValueError(f"tau must be a finite standard error >= 0, not {tau}")
        self.options = options
        self.tau = tau
        self.baseline: Runs = runs
        self.fresh = max(runs) + 1
        self.complexity = 0.0
        self.candidates = 0
        self.confirmed = 0
        self.failed = 0
        self._orders = Orders()

    def candidate(self, complexity: float = 0.0) -> None:
        """Announce the next candidate. Not needed if its complexity does not matter.

        Args:
            complexity: Net change of size, e.g. lines added minus lines removed.
        """
        self.complexity = float(complexity)

    def next(self) -> TrialRequest | None:
        """The next trial to run, or None if answers must come first.

        May be called again before an answer arrives, to use several devices.
        """
        if self._orders.idle:
            self._orders.plan(self._plan())
        return self._orders.issue()

    def observe(self, want: TrialRequest, score: float | None) -> Verdict | None:
        """Take an answer, in any order.

        Args:
            want: As `next` gave it.
            score: Lower is better; None, nan or infinite if the trial failed.

        Returns:
            The verdict on the current candidate once there is one. Answers to its remaining wants no
            longer matter then; they may still be observed, or be dropped.

        Raises:
            ValueError: If the want was not asked for, or is answered already.
        """
        self._orders.answer(want, score if score is not None and math.isfinite(score) else None)
        while (answer := self._orders.take()) is not None:
            verdict = self._take(answer[0], answer[1])
            if verdict is not None:
                self._orders.clear()
                self.complexity = 0.0
                return replace(verdict, levels=self._levels())
        return None

    def upcoming(self, count: int) -> list[TrialRequest]:
        """The screening runs of the next candidates, should this one and they be discarded; nothing changes.

        They can be begun early, where a device would stand idle.

        Args:
            count: Of how many candidates.

        Returns:
            As many, or fewer: what comes after another kind of run cannot be known.
        """
        future, found = Judge.from_json(self.to_json()), list[TrialRequest]()
        current = list(future.unanswered)
        while current and len(found) < count:
            if all(future.observe(want, None) is None for want in current):
                break  # it would go on with this candidate
            want = future.next()
            if want is None or want.arm != Arm.SCREEN:
                break
            found.append(want)
            current = [want]
        return found

    @property
    def unanswered(self) -> tuple[TrialRequest, ...]:
        """Wants under way that still count; run them again if they died with the process."""
        return self._orders.unanswered

    def to_json(self) -> str:
        """The whole state, as JSON text."""
        return json.dumps({"judge": self.name, "state": self._dump()})

    @staticmethod
    def from_json(text: str) -> Judge:
        """The inverse of `to_json`."""
        data = json.loads(text)
        kind = Judge._kinds[data["judge"]]
        judge = kind.__new__(kind)
        judge._load(data["state"])
        return judge

    @abstractmethod
    def report(self) -> Report:
        """Estimates and counts after the answers so far."""

    @abstractmethod
    def _plan(self) -> list[Plan]:
        """Trials to ask for next; called when nothing is open."""

    @abstractmethod
    def _take(self, want: TrialRequest, score: float | None) -> Verdict | None:
        """Take one answer, in order of asking."""

    def _levels(self) -> Levels | None:
        """Where the search stands; None if this judge believes a score that won a selection."""
        return None

    def _seed(self) -> int:
        """A seed that this search has not used."""
        self.fresh += 1
        return self.fresh - 1

    def _dump(self) -> dict[str, Any]:
        """All attributes as plain values; runs become lists of pairs, to keep their order and seeds."""
        state = {key: list(v.items()) if key in RUNS else v for key, v in vars(self).items()}
        return state | {"_orders": self._orders.to_dict()}

    def _load(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            setattr(self, key, dict(map(tuple, value)) if key in RUNS else value)
        self._orders = Orders.from_dict(state["_orders"])

    def _crash(self) -> Verdict:
        """The verdict on a candidate of which a trial failed."""
        self.failed += 1
        return Verdict(VerdictKind.DISCARD, reason="a trial of it failed, so it has no score")


RUNS = ("baseline", "runs")
"""Attributes that hold scores by seed."""
