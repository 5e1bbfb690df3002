"""What a person is shown while a search runs, as values: the views write it down, each in its own way.

Owns the arithmetic of the live views (counts, means, time left) and the cleaning of every text that comes
from a candidate or a proposer. Knows no terminal.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.report.phrase import phrase
from autoresearch.report.standing import standing
from autoresearch.text import one_line, scrub
from autoresearch.types import Experiment, Progress, Trial, Verdict, VerdictKind

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

REMEMBERED = 30
"""Verdicts and messages that are kept to be shown."""


@dataclass(frozen=True)
class Line:
    """One verdict, ready to be shown."""

    number: int
    kind: VerdictKind
    score: float | None
    phrase: str
    hypothesis: str
    reason: str


class Board:
    """The state of the live views. Its methods follow those of `audience.View`."""

    def __init__(
        self,
        info: SearchInfo | None,
        experiments: Sequence[Experiment] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start from what an earlier run of the search has done.

        Args:
            info: The search; None if nothing is known about it yet.
            experiments: What the journal holds already.
            clock: Seconds.
        """
        config: Mapping[str, Any] = info.config if info else {}
        self.title = one_line(info.branch) if info else "autoresearch"
        self.setting = _setting(info)
        self.limit: int | None = config.get("experiments")
        self.minutes: float | None = config.get("minutes")
        self.baselines: int | None = config.get("baselines")
        self.counts: Counter[VerdictKind] = Counter(e.verdict.kind for e in experiments if e.verdict)
        now = standing(experiments)
        self.baseline = now.baseline.mean if now.baseline else None
        self.best = now.best.level.mean if now.best else None
        self.noise = now.noise
        self.verdicts = deque((_line(e, e.verdict) for e in experiments if e.verdict), maxlen=REMEMBERED)
        self.messages: deque[tuple[str, bool]] = deque(maxlen=REMEMBERED)
        self.doing = "getting ready"
        self.hypothesis = ""
        self.running: dict[int, tuple[Trial, Progress | None]] = {}
        self.places = 1
        self._baseline_scores: list[float] = [s for e in experiments[:1] for s in e.scores]
        self._clock = clock
        self._begun = clock()
        self._done_here = 0
        self._first_at: float | None = None

    @property
    def tried(self) -> int:
        """Experiments with a verdict."""
        return self.counts.total()

    @property
    def kept(self) -> int:
        """Experiments that were kept."""
        return self.counts[VerdictKind.KEEP]

    def message(self, text: str, warning: bool = False) -> str:
        """Remember a message; gives it back cleaned."""
        line = one_line(scrub(text), 400)
        self.messages.append((line, warning))
        return line

    def proposing(self, number: int, proposer: str) -> None:
        """Experiment `number` is being thought about."""
        self._first_at = self._clock() if self._first_at is None else self._first_at
        self.doing, self.hypothesis = f"#{number}: asking {one_line(proposer, 60)} for a proposal", ""
        self._only_from(number)

    def experiment(self, experiment: Experiment) -> None:
        """An experiment is about to be trained."""
        self._first_at = self._clock() if self._first_at is None else self._first_at
        p = experiment.proposal
        self.doing = f"#{experiment.number}: {p.category.value}, by {one_line(p.proposer, 60)}" if p else ""
        self.hypothesis = one_line(scrub(p.hypothesis), 400) if p else ""

    def trial(self, trial: Trial) -> None:
        """A trial starts, or has ended."""
        if trial.experiment == 0:
            self.doing, self.hypothesis = "#0: measuring the starting point and the noise", ""
            if trial.score is not None:
                self._baseline_scores.append(trial.score)
                self.baseline = sum(self._baseline_scores) / len(self._baseline_scores)
                self.best = self.baseline if not self.kept else self.best
        self.running.pop(trial.id, None)
        if trial.result is None:
            self.running[trial.id] = trial, None
        self.places = max(self.places, len(self.running))

    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial shows a sign of life; one that is not waited for any more may still do so."""
        if trial.id in self.running:
            self.running[trial.id] = trial, progress

    def rest(self) -> None:
        """Nothing is done any more."""
        self.running.clear()
        self.doing = self.hypothesis = ""

    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> Line | None:
        """An experiment has its verdict; gives the line that tells it."""
        if experiment.verdict is None:
            return None
        self.counts[experiment.verdict.kind] += 1
        self.best, self.noise = incumbent_score, noise
        self._done_here += 1
        if experiment.kept:
            self.running.clear()  # what was begun before its turn was to replace another incumbent
        else:
            self._only_from(experiment.number + 1)
        line = _line(experiment, experiment.verdict)
        self.verdicts.append(line)
        return line

    def _only_from(self, number: int) -> None:
        """Forget the trials of experiments before this one."""
        self.running = {i: running for i, running in self.running.items() if running[0].experiment >= number}

    def seconds_left(self) -> float | None:
        """Time until the search ends, at the pace so far; None while that cannot be said."""
        limits = []
        if self.minutes is not None:
            limits.append(60 * self.minutes - (self._clock() - self._begun))
        if self.limit is not None and self._done_here and self._first_at is not None:
            pace = (self._clock() - self._first_at) / (self._done_here + self._share())
            limits.append(pace * (self.limit - self.tried - self._share()))
        return max(0.0, min(limits)) if limits else None

    def _share(self) -> float:
        """How much of the running experiment is done, roughly: most are decided by one trial."""
        return 0.9 * max((p.fraction for _, p in self.running.values() if p), default=0.0)


def trial_name(trial: Trial, baselines: int | None = None) -> str:
    """What a trial is for: "screen, seed 1003"."""
    of = f" of {baselines}" if baselines and trial.id <= baselines else ""
    number = f" {trial.id}{of}" if trial.experiment == 0 else ""
    place = (
        f" on {trial.place}" if ":" in trial.place else ""
    )  # where there is only one, it goes without saying
    return f"{one_line(trial.label or trial.arm, 20)}{number}, seed {trial.seed}{place}"


def trial_state(trial: Trial, progress: Progress | None) -> str:
    """How far a running trial is: "62%, 12 s, step 410, loss 2.31"."""
    if progress is None or progress.phase == "start-up":
        return "starting up" + (f", {progress.seconds:.0f} s" if progress else "")
    if progress.phase == "score":
        return "scoring"
    parts = [f"{100 * progress.fraction:.0f}%", f"{progress.seconds:.0f} s", f"step {progress.step}"]
    return ", ".join([*parts, *([f"loss {progress.loss:.3f}"] if progress.loss is not None else [])])


def _line(e: Experiment, verdict: Verdict) -> Line:
    hypothesis = one_line(scrub(e.proposal.hypothesis), 200) if e.proposal else ""
    return Line(
        e.number, verdict.kind, e.score, phrase(verdict), hypothesis, one_line(scrub(verdict.reason), 200)
    )


def _setting(info: SearchInfo | None) -> tuple[str, ...]:
    """What the search works on, in a few words each."""
    if info is None:
        return ()
    budget = info.config.get("budget")
    words = [f"brief {one_line(info.brief, 40)}", one_line(info.device, 40)]
    if isinstance(budget, Mapping) and {"amount", "kind"} <= set(budget):
        words.append(f"{budget['amount']:,.10g} {budget['kind']} a trial")
    return tuple(words)
