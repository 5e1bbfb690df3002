"""Measures a brief: runs the inner search that follows it, and reads what that gained."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING

from autoresearch.clock import now
from autoresearch.config.roles import together
from autoresearch.execute.base import OnProgress, Place, ShouldStop, TrialSpec
from autoresearch.tasks.brief.inner import Inner, Searches
from autoresearch.tasks.brief.result import Result, in_short, ledger
from autoresearch.types import MODEL_DOLLARS, Fidelity, Measurement, Outcome, Progress, Split

if TYPE_CHECKING:
    from autoresearch.tasks.brief.task import BriefTask

ALMOST = 0.99
"""Share of its budget at which an inner search is shown until it has ended: its claim is still to come."""


class BriefMeasurer:
    """Implements `execute.base.Measurer`.

    Args:
        task: The task.
        place: Where the inner searches run.
        searches: The inner searches.
        trusted: The files of the starting commit.
    """

    def __init__(self, task: BriefTask, place: Place, searches: Searches, trusted: Path) -> None:
        self._task, self._place, self._searches, self._trusted = task, place, searches, trusted

    def measure(
        self, tree: Path, spec: TrialSpec, scratch: Path, progress: OnProgress, should_stop: ShouldStop = None
    ) -> Measurement:
        """Run an inner search for each split, or read one that has ended; see `Measurer.measure`."""
        kept = Path(spec.submission) if spec.submission else None
        if kept and kept.exists():
            brief = kept.read_text(encoding="utf-8")
        else:
            paths = self._task.editable
            brief = together({path: (tree / path).read_text(encoding="utf-8") for path in paths})
        begun = now()
        self._searches.prepare(self._export, self._task.starts)
        results = {split: self._run(self._inner(brief, spec.seed, split), progress) for split in spec.splits}
        if kept and not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(brief, encoding="utf-8")
        first, *more = spec.splits
        result, metric = results[first], self._task.metric
        metrics = {metric.on(split): self._score(results[split]) for split in more}
        metrics |= {
            "gain_error": result.error,
            "experiments": float(result.tried),
            "kept": float(result.kept),
            MODEL_DOLLARS: result.dollars,
            "device_seconds": result.device_seconds,
        }
        return Measurement(
            Outcome.OK,
            self._score(result),
            metrics=metrics,
            log=self._told(result),
            phases=(("train", begun, now()),),
            provenance=self._place.provenance(spec.fidelity, 1.0),
        )

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        """Nothing is tried out: a brief is text, and what is wrong with text `validate` says."""
        return Measurement(Outcome.OK, provenance=self._place.provenance(Fidelity.TRYOUT, 1.0))

    def close(self) -> None:
        """Nothing is kept running."""

    def _export(self, folder: Path) -> None:
        copytree(self._trusted, folder, symlinks=True)

    def _inner(self, brief: str, seed: int, split: Split) -> Inner:
        if split is not Split.TEST:
            return self._searches.inner(brief, seed)
        start = next(iter(self._task.starts), "")
        return self._searches.inner(brief, seed, self._task.options.elsewhere, start)

    def _run(self, inner: Inner, progress: OnProgress) -> Result:
        def tick(seconds: float, tried: int) -> None:
            share = tried / inner.spend.experiments
            if inner.spend.minutes:
                share = max(share, seconds / 60 / inner.spend.minutes)
            progress(Progress(min(share, ALMOST), seconds, step=tried))

        tick(0.0, 0)
        return self._searches.run(inner, tick)

    def _score(self, result: Result) -> float:
        options = self._task.options
        return result.score(options.device_hour if options.per_dollar else None)

    def _told(self, result: Result) -> str:
        void = f"no claim: {result.void}\n" if result.void else ""
        found, metric = result.experiments, self._task.inner_metric
        return f"{void}{ledger(found, metric)}\n{in_short(found, metric)}\n"
