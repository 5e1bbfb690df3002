"""What a judge asks for and what it is told: trial requests, observations, and the queue between them.

The queue gives a judge the answers in the order in which it asked, whatever the order of their arrival. So
its decisions are the same on one device and on eight. With many candidates in flight the order holds for the
answers to each of them. Nothing here knows what a score means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

from autoresearch.types import Arm, Measurement, Outcome


@dataclass(frozen=True)
class TrialRequest:
    """A trial that the judge asks for.

    Attributes:
        arm: SCREEN (first run of a candidate), CONFIRM (a further run of it), or INCUMBENT.
        seed: The random seed to use.
        number: Counts the requests of one judge from 1; the queue sets it.
        thorough: Whether to look for cheating more closely than usual.
        candidate: Number under which the candidate was announced; 0 if it has none, and for the incumbent.
        device: Kind of device that it must run on, as `Judge.use_device` named it; empty: the first.
    """

    arm: Arm
    seed: int
    number: int = 0
    thorough: bool = False
    candidate: int = 0
    device: str = ""


@dataclass(frozen=True)
class Observation:
    """How a requested trial ended. Make one with `finished`, `failed`, `stopped` or `of`.

    Attributes:
        score: Lower is better; a finite number if the trial finished, else None.
        outcome: OK if it finished, PRUNE if it was stopped early as hopeless, otherwise it failed.
        fraction: Share of the budget that was used when the trial ended, in [0, 1].
        loss: The last training loss that was seen, if any. Candidates report it, so it proves nothing.
        items: The part of the score that each document, or group of documents, contributes; the parts sum
            to the score, and a document has the same place in every run. Empty if they are not known.
    """

    score: float | None
    outcome: Outcome
    fraction: float = 1.0
    loss: float | None = None
    items: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.OK) != (self.score is not None and math.isfinite(self.score)):
            raise ValueError("an observation has a finite score if the trial finished, and only then")

    @classmethod
    def finished(cls, score: float, items: Sequence[float] = ()) -> Observation:
        """The trial finished with this score; one that is not finite counts as a failure."""
        return cls(score, Outcome.OK, items=tuple(items)) if math.isfinite(score) else cls.failed()

    @classmethod
    def failed(cls, outcome: Outcome = Outcome.CRASH, fraction: float = 1.0) -> Observation:
        """The trial crashed, or broke a rule."""
        return cls(None, outcome, fraction)

    @classmethod
    def stopped(cls, fraction: float, loss: float | None = None) -> Observation:
        """The trial was stopped early, after this share of its budget, because it looked hopeless."""
        return cls(None, Outcome.PRUNE, fraction, loss)

    @classmethod
    def of(cls, measurement: Measurement, items: Sequence[float] = ()) -> Observation:
        """What a measurement tells a judge; `items` is what its documents contribute to the score."""
        if measurement.outcome is Outcome.OK and measurement.score is not None:
            return cls.finished(measurement.score, items)
        fraction = measurement.provenance.fraction
        if measurement.outcome is Outcome.PRUNE:
            return cls.stopped(fraction, measurement.curve[-1][1] if measurement.curve else None)
        return cls.failed(
            Outcome.CRASH if measurement.outcome is Outcome.OK else measurement.outcome, fraction
        )


class RequestQueue:
    """Requests that are planned, requests under way, and answers that came before older ones."""

    def __init__(self) -> None:
        self._planned: list[TrialRequest] = []
        self._open: list[TrialRequest] = []
        self._answers: dict[int, Observation] = {}
        self._late: list[TrialRequest] = []
        self._issued = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is planned, and nothing that still counts is under way."""
        return not self._planned and not self._open

    @property
    def unanswered(self) -> tuple[TrialRequest, ...]:
        """Requests under way that still count, in order; to be run again after an interruption."""
        return tuple(request for request in self._open if request.number not in self._answers)

    @property
    def planned(self) -> bool:
        """Whether a request can be issued."""
        return bool(self._planned)

    @property
    def under_way(self) -> tuple[TrialRequest, ...]:
        """Requests that still count and that the judge has not read an answer to, in order."""
        return tuple(self._open)

    def plan(self, requests: Iterable[TrialRequest]) -> None:
        """Queue requests; their numbers are set when they are issued."""
        self._planned.extend(requests)

    def issue(self) -> TrialRequest | None:
        """The next planned request, or None if there is none."""
        if not self._planned:
            return None
        self._issued += 1
        request = replace(self._planned.pop(0), number=self._issued)
        self._open.append(request)
        return request

    def answer(self, request: TrialRequest, observation: Observation) -> None:
        """Store an answer. An answer to a request that no longer counts is dropped.

        Raises:
            ValueError: If `request` was never issued, or is answered already.
        """
        if request in self._late:
            self._late.remove(request)
        elif request in self._open and request.number not in self._answers:
            self._answers[request.number] = observation
        else:
            raise ValueError(f"{request} was not asked for, or is answered already")

    def take(self, *, many: bool = False) -> tuple[TrialRequest, Observation] | None:
        """The oldest open request with its answer, or None if that has not come yet.

        Args:
            many: Each candidate's answers, and the incumbent's, in an order of their own: a trial that hangs
                holds up no others. But a run waits for that of the incumbent on the same seed, if that was
                asked before: the two are compared.
        """
        awaited, beside = set[int](), set[int]()
        for request in self._open if many else self._open[:1]:
            free = request.candidate not in awaited and request.seed not in beside
            if free and request.number in self._answers:
                self._open.remove(request)
                return request, self._answers.pop(request.number)
            awaited.add(request.candidate)
            if request.arm is Arm.INCUMBENT:
                beside.add(request.seed)
        return None

    def clear(self) -> None:
        """Drop what is planned; answers to what is under way no longer count."""
        self.drop(lambda request: True)

    def drop(self, needless: Callable[[TrialRequest], bool]) -> None:
        """Drop requests, planned or under way; answers to those no longer count."""
        self._late.extend(request for request in self.unanswered if needless(request))
        self._planned = [request for request in self._planned if not needless(request)]
        for request in filter(needless, self._open):
            self._answers.pop(request.number, None)
        self._open = [request for request in self._open if not needless(request)]

    def forget(self, request: TrialRequest) -> None:
        """Take a request back that cannot be run; no answer is awaited."""
        if request in self._open:
            self.drop(lambda other: other.number == request.number)
            self._late.remove(request)

    def rename(self, old: int, new: int) -> None:
        """Give a candidate another number."""
        for requests in (self._planned, self._open):
            requests[:] = [
                replace(r, candidate=new) if r.candidate == old and r.arm is not Arm.INCUMBENT else r
                for r in requests
            ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "planned": [(r.arm, r.seed, r.thorough, r.candidate, r.device) for r in self._planned],
            "open": [astuple(request) for request in self._open],
            "answers": [(number, asdict(answer)) for number, answer in self._answers.items()],
            "late": [astuple(request) for request in self._late],
            "issued": self._issued,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RequestQueue:
        """The inverse of `to_dict`; reads what older versions wrote, too."""
        queue = cls()
        queue._planned = [_request(arm, seed, 0, *rest) for arm, seed, *rest in data["planned"]]
        queue._open = [_request(*values) for values in data["open"]]
        queue._answers = {number: _observation(answer) for number, answer in data["answers"]}
        queue._late = [_request(*values) for values in data["late"]]
        queue._issued = data["issued"]
        return queue


def _request(arm: str, *rest: Any) -> TrialRequest:
    return TrialRequest(Arm(arm), *rest)


def _observation(answer: dict[str, Any] | float | None) -> Observation:
    """From JSON. Older versions wrote the score, or null for a trial that failed or was stopped."""
    if isinstance(answer, dict):
        items = tuple(answer.get("items", ()))
        return Observation(**(answer | {"outcome": Outcome(answer["outcome"]), "items": items}))
    return Observation.failed() if answer is None else Observation.finished(answer)
