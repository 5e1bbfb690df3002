"""What a person is shown while a search runs, as values that each terminal view writes in its own way.

Does the arithmetic of the views (counts, means, time left) and cleans every text that comes from a candidate
or a proposer. Knows no terminal.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.report.estimates import estimate
from autoresearch.text import one_line, scrub, verdict_text
from autoresearch.types import Experiment, Metric, Progress, Trial, Verdict, VerdictKind

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

REMEMBERED = 30
"""Verdicts and messages that are kept to be shown."""


@dataclass(frozen=True)
class VerdictLine:
    """One verdict, ready to be shown."""

    number: int
    kind: VerdictKind
    score: float | None
    text: str
    hypothesis: str
    reason: str


class SearchDisplay:
    """The state that all terminal views show. Its methods follow those of `search.interfaces.View`."""

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
        self.metric = info.metric if info else Metric("score", "")
        self.title = one_line(info.branch) if info else "autoresearch"
        self.setting = _setting(info)
        self.limit: int | None = config.get("experiments")
        self.minutes: float | None = config.get("minutes")
        self.baselines: int | None = config.get("baselines")
        self.counts: Counter[VerdictKind] = Counter(e.verdict.kind for e in experiments if e.verdict)
        now = estimate(experiments)
        self.baseline = now.baseline.mean if now.baseline else None
        self.best = now.best.estimate.mean if now.best else None
        self.noise = now.noise
        lines = (_line(e, e.verdict, self.metric) for e in experiments if e.verdict)
        self.verdicts = deque(lines, maxlen=REMEMBERED)
        self.messages: deque[tuple[str, bool]] = deque(maxlen=REMEMBERED)
        self.doing = "getting ready"
        self.hypothesis = ""
        self.running: dict[int, tuple[Trial, Progress | None]] = {}
        self.places = 1
        self._baseline_scores: list[float] = [s for e in experiments[:1] for s in e.scores]
        self._clock = clock
        self._began = clock()
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
        """Remember a message; returns it cleaned."""
        line = one_line(scrub(text), 400)
        self.messages.append((line, warning))
        return line

    def proposing(self, number: int, proposer: str) -> None:
        """A proposer is asked for experiment `number`."""
        self._first_at = self._clock() if self._first_at is None else self._first_at
        self.doing, self.hypothesis = f"#{number}: asking {one_line(proposer, 60)} for a proposal", ""
        self._forget_trials_before(number)

    def experiment(self, experiment: Experiment) -> None:
        """The trials of an experiment are about to run."""
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
        """A running trial reports progress; a trial that was cancelled may still do so, and is ignored."""
        if trial.id in self.running:
            self.running[trial.id] = trial, progress

    def end(self) -> None:
        """Nothing runs any more."""
        self.running.clear()
        self.doing = self.hypothesis = ""

    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> VerdictLine | None:
        """An experiment has its verdict; returns the line that says so."""
        if experiment.verdict is None:
            return None
        self.counts[experiment.verdict.kind] += 1
        self.best, self.noise = incumbent_score, noise
        self._done_here += 1
        if experiment.kept:
            self.running.clear()  # trials of queued candidates compare with an incumbent that is replaced now
        else:
            self._forget_trials_before(experiment.number + 1)
        line = _line(experiment, experiment.verdict, self.metric)
        self.verdicts.append(line)
        return line

    def _forget_trials_before(self, number: int) -> None:
        """Forget the trials of experiments before this one."""
        self.running = {i: running for i, running in self.running.items() if running[0].experiment >= number}

    def seconds_left(self) -> float | None:
        """Time until the search ends, at the pace so far; None if that is not known."""
        limits = []
        if self.minutes is not None:
            limits.append(60 * self.minutes - (self._clock() - self._began))
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
    # A name without a colon is that of the only place, which needs no mention.
    place = f" on {trial.place}" if ":" in trial.place else ""
    return f"{one_line(trial.label or trial.arm, 20)}{number}, seed {trial.seed}{place}"


def trial_state(trial: Trial, progress: Progress | None) -> str:
    """How far a running trial is: "62%, 12 s, step 410, loss 2.31"."""
    if progress is None or progress.phase == "start-up":
        return "starting up" + (f", {progress.seconds:.0f} s" if progress else "")
    if progress.phase == "score":
        return "scoring"
    parts = [f"{100 * progress.fraction:.0f}%", f"{progress.seconds:.0f} s", f"step {progress.step}"]
    return ", ".join([*parts, *([f"loss {progress.loss:.3f}"] if progress.loss is not None else [])])


def _line(e: Experiment, verdict: Verdict, metric: Metric) -> VerdictLine:
    hypothesis = one_line(scrub(e.proposal.hypothesis), 200) if e.proposal else ""
    reason = one_line(scrub(verdict.reason), 200)
    return VerdictLine(e.number, verdict.kind, e.score, verdict_text(verdict, metric), hypothesis, reason)


def _setting(info: SearchInfo | None) -> tuple[str, ...]:
    """What the search works on, in a few words each."""
    if info is None:
        return ()
    budget = info.config.get("budget")
    words = [f"brief {one_line(info.brief, 40)}", one_line(info.device, 40)]
    if isinstance(budget, Mapping) and {"amount", "kind"} <= set(budget):
        words.append(f"{budget['amount']:,.10g} {budget['kind']} a trial")
    return tuple(words)
