"""Wraps the judge of a search: the one place that turns the sign of a score.

Judges know no direction: for them lower is better. This module turns a score into such a loss, and the levels
of a verdict back into scores before they are recorded. Effects are gains in both. A judge knows only that a
trial failed; this module adds the kind and the reason of the failure to its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from autoresearch.judge import Judge, Observation, TrialRequest, create_judge
from autoresearch.types import Measurement, Metric, Outcome, Verdict, VerdictKind

Documents = tuple[tuple[float, ...], tuple[float, ...]]
"""What each group of documents contributes to a score, and its share of all."""


class ScoreJudge:
    """Wraps a judge of losses; see `autoresearch.judge.base.Judge` for what it asks and promises."""

    def __init__(self, judge: Judge, metric: Metric) -> None:
        """Wrap a judge.

        Args:
            judge: The judge, which reads losses.
            metric: The metric of the scores.
        """
        self._judge = judge
        self._metric = metric

    @classmethod
    def create(
        cls,
        metric: Metric,
        scores: Mapping[int, float],
        options: Mapping[str, Any],
        documents: Mapping[int, Documents] | None = None,
        *,
        steady: bool = False,
    ) -> ScoreJudge:
        """The judge of a new search.

        Args:
            metric: The metric of the scores.
            scores: Score of each trial of the baseline, by seed.
            options: The configuration group `judge`.
            documents: What documents contribute to these scores; see `document_losses`.
            steady: Whether a faster machine makes no better score.
        """
        judge = create_judge(baseline=[(seed, metric.loss(x)) for seed, x in scores.items()], **options)
        known = {seed: parts for seed, (parts, _) in (documents or {}).items() if parts}
        if known and documents:
            shares = documents[next(iter(known))][1]
            judge.with_items(shares, {seed: _losses(metric, parts) for seed, parts in known.items()})
        if steady:
            judge.use_steady_machine()
        return cls(judge, metric)

    def learn_from(self, earlier: str) -> bool:
        """Take what another judge, as JSON, found of the noise as a prior; returns whether that was done."""
        return self._judge.learn_from(Judge.from_json(earlier))

    @classmethod
    def from_json(cls, text: str, metric: Metric) -> ScoreJudge:
        """The inverse of `to_json`."""
        return cls(Judge.from_json(text), metric)

    def to_json(self) -> str:
        """The whole state, with losses, as JSON text."""
        return self._judge.to_json()

    def use_places(self, places: int) -> None:
        """Say how many trials can run at the same time. A judge that can waits with each keep (`held`)."""
        self._judge.use_places(places)
        self._judge.hold_keeps(True)

    def use_device(self, device: str) -> bool:
        """Say on which kind of device the next trial would run; whether the judge compares within kinds."""
        return self._judge.use_device(device)

    def forget(self, request: TrialRequest) -> None:
        """Take back a request that cannot be run as it was asked for."""
        self._judge.forget(request)

    @property
    def held(self) -> tuple[int, ...]:
        """Candidates that would be kept, and wait to be passed or withdrawn; the best comes first."""
        return self._judge.held

    def checked(
        self,
        number: int,
        seed: int,
        candidate: tuple[Measurement, Documents],
        incumbent: tuple[Measurement, Documents],
    ) -> dict[int, Verdict]:
        """Say what the check of a held candidate has scored, before `passed`; verdicts are as of `digest`.

        Args:
            number: The candidate.
            seed: Of both trainings.
            candidate: Its result, and what documents contribute to it.
            incumbent: The same of the incumbent.
        """
        ran = (self._observation(*side) for side in (candidate, incumbent))
        return {n: self._in_unit(verdict) for n, verdict in self._judge.checked(number, seed, *ran)}

    def passed(self, number: int) -> dict[int, Verdict]:
        """Say that a candidate has passed the last check; gives verdicts as `digest` does."""
        return {n: self._in_unit(verdict) for n, verdict in self._judge.passed(number)}

    def candidate(self, growth: int, kind: str, number: int) -> None:
        """Announce a candidate, which adds so many lines of code, and the kind of its edit."""
        self._judge.candidate(growth, kind, number)

    def rebased(self, number: int, growth: int) -> None:
        """Say that a candidate in flight was merged onto the incumbent, and what it adds now."""
        self._judge.rebased(number, growth)

    def withdraw(self, number: int) -> None:
        """Forget a candidate in flight."""
        self._judge.withdraw(number)

    def next(self) -> TrialRequest | None:
        """The next trial to run; None if answers, or a candidate, must come first."""
        return self._judge.next() if self._judge.in_flight else None

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Numbers of the candidates without a verdict."""
        return self._judge.in_flight

    @property
    def wants_candidate(self) -> bool:
        """Whether another candidate should be announced."""
        return self._judge.wants_candidate

    @property
    def behind(self) -> tuple[int, ...]:
        """Candidates that need another trial, but were made for an incumbent before."""
        return self._judge.behind

    def step_back(self, keeps: int, scores: Mapping[int, float]) -> None:
        """Take back the last `keeps` accepted changes; `scores`: of the incumbent before them, by seed."""
        self._judge.step_back(keeps, {seed: self._metric.loss(score) for seed, score in scores.items()})

    @property
    def unanswered(self) -> tuple[TrialRequest, ...]:
        """Requests that still count, to be run again after an interruption."""
        return self._judge.unanswered

    def digest(
        self,
        request: TrialRequest,
        result: Measurement,
        results: Callable[[int], Iterable[Measurement]],
        documents: Documents = ((), ()),
    ) -> dict[int, Verdict]:
        """Take the answer to a request.

        Args:
            request: The request.
            result: The result of its trial.
            results: Gives the results of all trials of a candidate, by its number.
            documents: What documents contribute to the score; see `document_losses`.

        Returns:
            Number of a candidate -> its verdict, for those that are decided now.
        """
        failures = self._judge.failed
        decided = dict(self._judge.digest(request, self._observation(result, documents)))
        if self._judge.failed > failures:
            for number, verdict in decided.items():
                failed = next((r for r in results(number) if r.outcome is not Outcome.OK), None)
                if failed is not None:
                    kind = VerdictKind(failed.outcome.value)
                    decided[number] = replace(verdict, kind=kind, reason=failed.reason)
        return {number: self._in_unit(verdict) for number, verdict in decided.items()}

    def needs(self, request: TrialRequest) -> bool:
        """Whether the answer to a request under way still counts; if not, none is awaited any more."""
        if request in self._judge.unanswered:
            return True
        self._judge.digest(request, Observation.failed())
        return False

    def _observation(self, result: Measurement, documents: Documents) -> Observation:
        loss = None if result.score is None else self._metric.loss(result.score)
        return Observation.of(replace(result, score=loss), _losses(self._metric, documents[0]))

    def _in_unit(self, verdict: Verdict) -> Verdict:
        levels = verdict.levels.in_unit(self._metric) if verdict.levels else None
        turn = self._metric.loss
        pairs = tuple((seed, turn(before), turn(after)) for seed, before, after in verdict.pairs)
        return replace(verdict, levels=levels, pairs=pairs)


def _losses(metric: Metric, parts: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(map(metric.loss, parts))
