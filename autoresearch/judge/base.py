"""The judge seam: what a judge is asked and told, and what it reports.

A judge decides which candidates become commits. It asks for trials of candidates (and of the incumbent), is
told how each ended, and says verdicts. It has one candidate in flight, or with several places many, if it can
(`wants_candidate`). What every judge promises, and `autoresearch.testing.judges.JudgeContract` checks:

- It is pure: no input or output, no clock, no chance of its own. Lower scores are better.
- It reads answers in the order of asking, so its verdicts do not depend on the order of their arrival. With
  many candidates in flight the order holds for the answers to each; a trial that hangs holds up no others.
- A judge restored from JSON at any moment goes on exactly as the one that wrote it.
- It is free of units: multiplying all scores by a constant changes no decision.
- It never keeps a candidate of which no trial finished, and a failed trial never ends the search.
- A change that it kept can be taken back (`step_back`): it goes on from the incumbent before.

To add a judge, subclass `Judge`, implement `_plan`, `_take`, `_restore` and `report`, keep all state in
attributes that JSON can hold, and register the class under the entry point group "autoresearch.judges".
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from autoresearch.judge.requests import Observation, RequestQueue, TrialRequest
from autoresearch.registry import Registry
from autoresearch.types import Arm, Estimate, Levels, Verdict, VerdictKind

JUDGES = Registry(
    "judge",
    {
        "default": "autoresearch.judge.default:Default",
        "strict": "autoresearch.judge.strict:Strict",
        "threshold": "autoresearch.judge.simple:Threshold",
        "greedy": "autoresearch.judge.simple:Greedy",
    },
)

Baseline = Sequence[tuple[int, float]]
"""Replicates of the starting point: (seed, score)."""

BY_SEED = ("baseline", "runs", "items")
"""Attributes of judges that hold values by seed. JSON has them as lists of pairs, to keep order and seeds."""

RENAMED = {
    "_orders": "_requests",
    "fresh": "next_seed",
    "looked": "inspected",
    "turn": "screens",
    "ratio": "gain_ratio",
    "wish": "waits_for",
    "beside": "controls",
    "misses": "failures",
}
"""Attribute in the JSON of older versions -> attribute of today."""


@dataclass(frozen=True)
class Kept:
    """One accepted change.

    Attributes:
        effect: Gain as measured when it was kept; positive is better.
        error: Its standard error, already widened where the noise was estimated from few runs.
        shrunk: The gain without its expected selection bias; None if the judge does not estimate that.
        interval: 95% interval of the gain, selection taken into account; None if not estimated.
        trials: Runs of the candidate that the decision rests on.
        doubt: The judge's own probability that there is no gain; None if not estimated.
        simplification: Kept because it removes code and does no harm, not because it gains.
        suspicious: Much larger than earlier gains; it was confirmed by one more thorough trial.
        margin: What a simplification was shown not to lose.
    """

    effect: float
    error: float | None
    shrunk: float | None
    interval: tuple[float, float] | None
    trials: int
    doubt: float | None = None
    simplification: bool = False
    suspicious: bool = False
    margin: float = 0.0


@dataclass(frozen=True)
class Report:
    """What is known after the answers so far.

    Attributes:
        judge: Name of the judge.
        noise: Standard deviation of a score from seed to seed; None without a replicate.
        baseline: Score of the starting point.
        incumbent: Score of the incumbent, without its selection bias where the judge estimates that.
        keeps: Every accepted change, in order.
        candidates: Candidates that were screened.
        confirmed: Those that were promising enough for a second run.
        failed: Those of which a trial failed or was stopped early.
        expected_false_keeps: Expected number of `keeps` that gain nothing; None if not estimated.
        common_luck: Share of a seed's luck that candidate and incumbent have in common, in [0, 1].
        drifts: How often re-runs of the incumbent showed that the machine had changed.
        tau: Standard error that the validation set adds to any difference.
    """

    judge: str
    noise: float | None
    baseline: Estimate
    incumbent: Estimate
    keeps: tuple[Kept, ...]
    candidates: int
    confirmed: int
    failed: int
    expected_false_keeps: float | None = None
    common_luck: float = 0.0
    drifts: int = 0
    tau: float = 0.0

    @property
    def kept(self) -> int:
        """Number of accepted changes."""
        return len(self.keeps)


class Judge(ABC):
    """Asks for trials of candidates, and decides.

    With one place, a judge is used like this until the budget is spent::

        judge.candidate(complexity=lines_added - lines_removed)     # optional
        while verdict is None:
            request = judge.next()
            verdict = judge.observe(request, Observation.finished(run(request)))

    With several, whenever one is free::

        judge.use_places(4)                                         # once
        for number in judge.behind:
            judge.rebased(number)                                   # or withdraw it, if it conflicts
        if judge.wants_candidate:
            judge.candidate(growth, kind, number)                   # the next proposal, under a number > 0
        request = judge.next()                                      # while any is in flight

    and whenever a trial has ended::

        for number, verdict in judge.digest(request, observation):
            ...                                                     # then end the trials that need no answer

    Before a keep the caller may check the candidate in its own way, while the others go on::

        judge.hold_keeps(True)                                      # once
        for number in judge.held:
            verdicts = judge.checked(number, seed, *runs)           # if the check ran both on a new seed
            verdicts += judge.passed(number)                        # or withdraw it, if the check fails
    """

    name: ClassVar[str]
    """The name under which the class is registered."""

    min_baselines: ClassVar[int] = 1
    """Baseline runs without which this judge cannot begin."""

    kind: str = ""
    """Kind of the current candidate's edit; older states lack it."""

    places: int = 1
    """Trials that can run at the same time, as far as this judge makes use of it."""

    number: int | None = None
    """Number of the current candidate; None if none was announced."""

    _classes: ClassVar[dict[str, type[Judge]]] = {}

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            Judge._classes[cls.name] = cls

    def __init__(self, baseline: Baseline, tau: float, options: dict[str, float]) -> None:
        runs = dict(baseline)
        if len(runs) < len(baseline):
            raise ValueError("two baseline runs have the same seed; each replicate needs a seed of its own")
        if not all(math.isfinite(score) for score in runs.values()):
            raise ValueError(
                "a baseline run has no finite score; a search cannot start from a failing script"
            )
        if len(runs) < self.min_baselines:
            raise ValueError(
                f"the {self.name} judge needs at least {self.min_baselines} baseline runs with different "
                f"seeds to measure the noise, and got {len(runs)}"
            )
        if not (math.isfinite(tau) and tau >= 0):
            raise ValueError(f"tau must be a finite standard error >= 0, not {tau}")
        self.options = options
        self.tau = tau
        self.baseline: dict[int, float] = runs
        self.next_seed = max(runs) + 1
        self.complexity = 0.0
        self.kind = ""
        self.candidates = 0
        self.confirmed = 0
        self.failed = 0
        self._requests = RequestQueue()

    def with_items(self, weights: Sequence[float], runs: Mapping[int, Sequence[float]]) -> None:
        """Say what the scores are made of; before the first request. A judge may ignore it.

        Args:
            weights: Share of each document, or group of documents, in the weight of all; they sum to 1.
            runs: What these contribute to the scores of the baseline, by seed; see `Observation.items`.
        """
        return None

    def learn_from(self, earlier: Judge) -> bool:
        """Take what an earlier search of the same task on the same device found of the noise as a prior.

        Before the first request, and after `with_items`. Returns whether it was taken; a judge may ignore it.
        """
        return False

    def use_steady_machine(self) -> None:
        """Say that a faster machine makes no better score. A judge may ignore it."""
        return None

    def use_places(self, places: int) -> None:
        """Say how many trials can run at the same time. A judge may ignore it."""
        return None

    def use_device(self, device: str) -> bool:
        """Say on which kind of device the next trial would run, where scores of two kinds do not compare.

        Called before `wants_candidate` and `next` once there are several kinds; the kind of the baseline is
        called "". A judge that compares within a kind only says so; else only the first kind is used.
        """
        return not device

    def forget(self, request: TrialRequest) -> None:
        """Take back a request that cannot be run as it was asked for; it is asked for anew if it matters."""
        self._requests.forget(request)

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Numbers of the candidates that were announced and have no verdict."""
        return () if self.number is None else (self.number,)

    @property
    def wants_candidate(self) -> bool:
        """Whether a new candidate should be announced before the next request."""
        return self.number is None

    @property
    def behind(self) -> tuple[int, ...]:
        """Candidates in flight that need another trial, but were made for an incumbent before.

        The judge asks for none until it is told that they were merged onto the present one (`rebased`), or
        that they cannot be (`withdraw`).
        """
        return ()

    def candidate(self, complexity: float = 0.0, kind: str = "", number: int = 0) -> None:
        """Announce the next candidate. With one in flight it is not needed if nothing of this matters.

        Args:
            complexity: Net growth in size, such as lines added minus lines removed.
            kind: Kind of its edit.
            number: Its name in requests and verdicts. Announcing the same number again is no new candidate.
        """
        self.complexity = float(complexity)
        self.kind = kind
        self.number = number

    @property
    def many(self) -> bool:
        """Whether candidates are in flight beside each other."""
        return False

    def hold_keeps(self, hold: bool) -> None:
        """Say whether a candidate that would be kept waits until it is `passed`. A judge may ignore it."""
        return None

    @property
    def held(self) -> tuple[int, ...]:
        """Candidates that would be kept, and wait to be `passed` or withdrawn; the best comes first."""
        return ()

    def checked(
        self, number: int, seed: int, candidate: Observation, incumbent: Observation
    ) -> list[tuple[int, Verdict]]:
        """Say what the caller's check has scored, as further runs; before `passed`. A judge may ignore it.

        Args:
            number: A candidate that is held.
            seed: On which it and the incumbent were run; a new one.
            candidate: Its run, in which the caller looked for cheating more closely than usual.
            incumbent: That of the incumbent.

        Returns:
            Verdicts on others that waited for a run of the incumbent; as `digest`.
        """
        return []

    def passed(self, number: int) -> list[tuple[int, Verdict]]:
        """Say that a candidate has passed the caller's check, on top of the present incumbent; as `digest`.

        There is no verdict if its runs that ended meanwhile speak against it, or if more are needed now.
        """
        return []

    def rebased(self, number: int, complexity: float | None = None) -> None:
        """Say that a candidate in flight was merged onto the present incumbent, and its net growth now."""
        return None

    def withdraw(self, number: int) -> None:
        """Forget a candidate in flight; there will be no verdict."""
        if number == self.number:
            self._requests.clear()
            self.complexity, self.kind, self.number = 0.0, "", None

    def next(self) -> TrialRequest | None:
        """The next trial to run, or None if the judge must see answers, or a new candidate, first.

        May be called again before an answer arrives, to use several devices.
        """
        if self._requests.idle:
            wanted = self._plan()
            number = self.number or 0
            self._requests.plan(r if r.arm is Arm.INCUMBENT else replace(r, candidate=number) for r in wanted)
        return self._requests.issue()

    def observe(self, request: TrialRequest, observation: Observation) -> Verdict | None:
        """`digest` for callers with one candidate in flight, which has one verdict at most."""
        decided = self.digest(request, observation)
        return decided[0][1] if decided else None

    def digest(self, request: TrialRequest, observation: Observation) -> list[tuple[int, Verdict]]:
        """Take an answer, in any order.

        Args:
            request: As `next` returned it.
            observation: How the trial ended.

        Returns:
            Verdicts as they fall due, each with the number of its candidate; at most one keeps. Answers to
            other requests of these candidates no longer matter; they may still be observed, or be dropped.

        Raises:
            ValueError: If the request was never issued, or is answered already.
        """
        self._requests.answer(request, observation)
        decided: list[tuple[int, Verdict]] = []
        while (answered := self._requests.take(many=self.many)) is not None:
            decided += self._with_levels(self._read(*answered))
        return decided

    def _with_levels(self, decided: list[tuple[int, Verdict]]) -> list[tuple[int, Verdict]]:
        return [(number, replace(verdict, levels=self._levels())) for number, verdict in decided]

    def step_back(self, keeps: int, runs: Mapping[int, float]) -> None:
        """Take back accepted changes that turned out to be void, and drop all candidates in flight.

        Args:
            keeps: How many, the latest first.
            runs: Scores of the incumbent before them, by seed; at least one.
        """
        self._requests.clear()
        self.complexity, self.number = 0.0, None
        self._restore(keeps, dict(runs))

    def expected(self, seed: int) -> tuple[float, float] | None:
        """What the incumbent scores on a seed, and how far a candidate scatters around its gain over that.

        None if this judge does not say.
        """
        return None

    @property
    def unanswered(self) -> tuple[TrialRequest, ...]:
        """Requests under way that still count; run them again if the process died."""
        return self._requests.unanswered

    def to_json(self) -> str:
        """The whole state, as JSON text."""
        return json.dumps({"judge": self.name, "state": self._dump()})

    @staticmethod
    def from_json(text: str) -> Judge:
        """The inverse of `to_json`; reads what older versions wrote, too."""
        data = json.loads(text)
        kind: type[Judge] = Judge._classes.get(data["judge"]) or JUDGES.load(data["judge"])
        judge = kind.__new__(kind)
        judge._load({RENAMED.get(key, key): value for key, value in data["state"].items()})
        return judge

    @abstractmethod
    def report(self) -> Report:
        """Estimates and counts after the answers so far."""

    @abstractmethod
    def _restore(self, keeps: int, runs: dict[int, float]) -> None:
        """Forget the current candidate and the last `keeps` accepted ones; see `step_back`."""

    @abstractmethod
    def _plan(self) -> list[TrialRequest]:
        """The trials to ask for next; called when nothing is planned or under way."""

    def _read(self, request: TrialRequest, observation: Observation) -> list[tuple[int, Verdict]]:
        """Take one answer, and say verdicts; here that of the only candidate in flight."""
        verdict, number = self._take(request, observation), self.number or 0
        if verdict is None:
            return []
        self._requests.clear()
        self.complexity, self.kind, self.number = 0.0, "", None
        return [(number, verdict)]

    @abstractmethod
    def _take(self, request: TrialRequest, observation: Observation) -> Verdict | None:
        """Take one answer. Called in the order of asking."""

    def _levels(self) -> Levels | None:
        """Estimated scores of baseline and incumbent; None if this judge does not correct for selection."""
        return None

    def _new_seed(self) -> int:
        """A seed that this search has not used."""
        self.next_seed += 1
        return self.next_seed - 1

    def _dump(self) -> dict[str, Any]:
        """All attributes as plain values."""
        state = {key: list(v.items()) if key in BY_SEED else v for key, v in vars(self).items()}
        return state | {"_requests": self._requests.to_dict()}

    def _load(self, state: dict[str, Any]) -> None:
        """The inverse of `_dump`."""
        for key, value in state.items():
            setattr(self, key, dict(map(tuple, value)) if key in BY_SEED else value)
        self._requests = RequestQueue.from_dict(state["_requests"])

    def _failed_candidate(self) -> Verdict:
        """The verdict on a candidate of which a trial failed or was stopped early."""
        self.failed += 1
        return Verdict(VerdictKind.DISCARD, reason="a trial of the candidate failed, so it has no score")
