"""Wraps the judge of a search: the one place that turns the sign of a score.

Judges know no direction: for them lower is better. This module turns a score into such a loss, and the levels
of a verdict back into scores before they are recorded. Effects are gains in both. A judge knows only that a
trial failed; this module adds the kind and the reason of the failure to its verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoresearch.judge import Judge, Observation, TrialRequest, create_judge
from autoresearch.types import Measurement, Metric, Outcome, Verdict, VerdictKind


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
        cls, metric: Metric, scores: Sequence[tuple[int, float]], error: float, options: Mapping[str, Any]
    ) -> ScoreJudge:
        """The judge of a new search.

        Args:
            metric: The metric of the scores.
            scores: (seed, score) of each trial of the baseline.
            error: Standard error that the choice of validation items adds to any difference.
            options: The configuration group `judge`.
        """
        losses = [(seed, metric.loss(score)) for seed, score in scores]
        return cls(create_judge(baseline=losses, tau=error, **options), metric)

    @classmethod
    def from_json(cls, text: str, metric: Metric) -> ScoreJudge:
        """The inverse of `to_json`."""
        return cls(Judge.from_json(text), metric)

    def to_json(self) -> str:
        """The whole state, with losses, as JSON text."""
        return self._judge.to_json()

    def candidate(self, growth: int) -> None:
        """Announce the next candidate, which adds so many lines of code."""
        self._judge.candidate(complexity=growth)

    def next(self) -> TrialRequest | None:
        """The next trial to run; None if answers must come first."""
        return self._judge.next()

    def step_back(self, keeps: int, scores: Mapping[int, float]) -> None:
        """Take back the last `keeps` accepted changes; `scores`: of the incumbent before them, by seed."""
        self._judge.step_back(keeps, {seed: self._metric.loss(score) for seed, score in scores.items()})

    @property
    def unanswered(self) -> tuple[TrialRequest, ...]:
        """Requests that still count, to be run again after an interruption."""
        return self._judge.unanswered

    def observe(
        self,
        request: TrialRequest,
        result: Measurement,
        others: Iterable[TrialRequest],
        earlier: Iterable[Measurement],
    ) -> Verdict | None:
        """Take the answer to a request.

        Args:
            request: The request.
            result: The result of its trial.
            others: Requests under way. A verdict ends them: the judge gets a failure as their answer.
            earlier: Results of the candidate's earlier trials.

        Returns:
            The verdict on the current candidate once there is one.
        """
        failures, score = self._judge.failed, result.score
        loss = None if score is None else self._metric.loss(score)
        verdict = self._judge.observe(request, Observation.of(replace(result, score=loss)))
        if verdict is None:
            return None
        for other in others:
            self._judge.observe(other, Observation.failed())
        if self._judge.failed > failures:
            failed = next((r for r in (*earlier, result) if r.outcome is not Outcome.OK), None)
            if failed is not None:
                verdict = replace(verdict, kind=VerdictKind(failed.outcome.value), reason=failed.reason)
        levels = verdict.levels.in_unit(self._metric) if verdict.levels else None
        return replace(verdict, levels=levels)
