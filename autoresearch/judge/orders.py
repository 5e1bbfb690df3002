"""Which trials were asked for, and their answers in the order of asking.

Invariant: a judge sees answers in the order in which it asked, whatever the order of their arrival, so
that its decisions are the same on one device and on eight. Nothing here knows what a score means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

from autoresearch.types import Arm


@dataclass(frozen=True)
class TrialRequest:
    """A trial the judge asks for.

    Attributes:
        arm: "screen" (first run of a candidate), "confirm" (a further run of it), or "incumbent".
        seed: The random seed to train with.
        number: Counts the wants of one judge from 1; tells apart two wants with equal arm and seed.
        probe: Whether what is trained is suspected to cheat: look at it more closely than usual.
    """

    arm: Arm
    seed: int
    number: int = 0
    probe: bool = False


Plan = tuple[Arm, int] | tuple[Arm, int, bool]
"""A trial to ask for: arm, seed, and whether to look closely."""


class Orders:
    """A queue of planned trials, those under way, and the answers that came too early."""

    def __init__(self) -> None:
        self._planned: list[Plan] = []
        self._open: list[TrialRequest] = []
        self._answers: dict[int, float | None] = {}
        self._late: list[TrialRequest] = []
        self._issued = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is planned and nothing is under way that still counts."""
        return not self._planned and not self._open

    @property
    def unanswered(self) -> tuple[TrialRequest, ...]:
        """Trials that were asked for and still count, in order; to be run again after a crash."""
        return tuple(want for want in self._open if want.number not in self._answers)

    def plan(self, trials: Iterable[Plan]) -> None:
        """Queue trials."""
        self._planned.extend(trials)

    def issue(self) -> TrialRequest | None:
        """The next planned trial, or None if there is none."""
        if not self._planned:
            return None
        self._issued += 1
        arm, seed, *probe = self._planned.pop(0)
        want = TrialRequest(arm, seed, self._issued, *probe)
        self._open.append(want)
        return want

    def answer(self, want: TrialRequest, score: float | None) -> None:
        """Note an answer. One to a want that no longer counts is dropped.

        Raises:
            ValueError: If `want` was never issued, or is answered already.
        """
        if want in self._late:
            self._late.remove(want)
        elif want in self._open and want.number not in self._answers:
            self._answers[want.number] = score
        else:
            raise ValueError(f"{want} was not asked for, or is answered already")

    def take(self) -> tuple[TrialRequest, float | None] | None:
        """The answer to the oldest open want, or None if that has not come yet."""
        if not self._open or self._open[0].number not in self._answers:
            return None
        want = self._open.pop(0)
        return want, self._answers.pop(want.number)

    def clear(self) -> None:
        """Forget what is planned, and let whatever is still under way no longer count."""
        self._late.extend(self.unanswered)
        self._planned, self._open, self._answers = [], [], {}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "planned": self._planned,
            "open": [astuple(want) for want in self._open],
            "answers": list(self._answers.items()),
            "late": [astuple(want) for want in self._late],
            "issued": self._issued,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Orders:
        """The inverse of `to_dict`."""
        orders = cls()
        orders._planned = [tuple(trial) for trial in data["planned"]]
        orders._open = [_request(values) for values in data["open"]]
        orders._answers = dict(data["answers"])
        orders._late = [_request(values) for values in data["late"]]
        orders._issued = data["issued"]
        return orders


def _request(values: list[Any]) -> TrialRequest:
    arm, *rest = values
    return TrialRequest(Arm(arm), *rest)
