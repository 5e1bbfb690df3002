"""What a person is shown while a search runs: the state of every view, and the views that write plain lines.

A view does the arithmetic (counts, means, time left) and cleans every text that comes from a candidate or a
proposer. It never fails the search: what cannot be written is not shown. Plain lines, one for each event, are
for logs and pipes: no control characters, no redrawing. Not covered: the panel that is redrawn (`live`).
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TextIO

from autoresearch.report.estimates import estimate
from autoresearch.text import duration, one_line, scrub, spelled, verdict_text
from autoresearch.types import WAITING, Arm, Experiment, Metric, Progress, Trial, Verdict, VerdictKind

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

P = ParamSpec("P")
REMEMBERED = 30
"""Verdicts and messages that are kept to be shown."""
PROGRESS_SECONDS = 30.0
"""Least time between two plain lines about the progress of trials."""


@dataclass(frozen=True)
class VerdictLine:
    """One verdict, ready to be shown."""

    number: int
    kind: VerdictKind
    score: float | None
    text: str
    hypothesis: str
    reason: str


def never_raises(method: Callable[P, Any]) -> Callable[P, None]:
    """Make a method of a view ignore errors: a closed pipe must not end a night's search."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            return

    return call


class SearchView:
    """Knows what a search does; subclasses show it. Its methods are those of `search.observers.View`."""

    def __init__(
        self,
        info: SearchInfo | None = None,
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
        self.needed = ""  # of the next gain, in words
        lines = (_line(e, e.verdict, self.metric) for e in experiments if e.verdict)
        self.verdicts = deque(lines, maxlen=REMEMBERED)
        self.messages: deque[tuple[str, bool]] = deque(maxlen=REMEMBERED)
        self.doing = "getting ready"
        self.hypothesis = ""
        self.running: dict[int, tuple[Trial, Progress | None]] = {}
        self.places = 1
        self.left: float | None = None  # if another process says how long it will take
        self.lock = threading.Lock()
        self._baseline_scores: list[float] = [s for e in experiments[:1] for s in e.scores]
        self._clock = clock
        self._began = clock()
        self._done_here = 0
        self._claim: int = 2 * (config.get("claim") or 0)
        self._claimed = 0
        self._lengths: list[float] = []
        self._first_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    @property
    def tried(self) -> int:
        """Experiments with a verdict."""
        return self.counts.total()

    @property
    def kept(self) -> int:
        """Experiments that were kept."""
        return self.counts[VerdictKind.KEEP]

    @never_raises
    def message(self, text: str, *, warning: bool = False) -> None:
        """A line about the search as a whole."""
        with self.lock:
            self.messages.append((one_line(scrub(text), 400), warning))
            self._show_message(*self.messages[-1])

    @never_raises
    def proposing(self, number: int, proposer: str) -> None:
        """A proposer is asked for experiment `number`."""
        with self.lock:
            self._begin(f"#{number}: asking {one_line(proposer, 60)} for a proposal", "")

    @never_raises
    def experiment(self, experiment: Experiment) -> None:
        """The trials of an experiment are about to run."""
        if p := experiment.proposal:
            with self.lock:
                doing = f"#{experiment.number}: {p.category.value}, by {one_line(p.proposer, 60)}"
                self._begin(doing, one_line(scrub(p.hypothesis), 400))

    @never_raises
    def trial(self, trial: Trial) -> None:
        """A trial starts, has ended, or is no longer shown: then it is finished without a result."""
        with self.lock:
            if trial.experiment == 0 and trial.arm == Arm.BASELINE:
                self.doing, self.hypothesis = "#0: measuring the starting point and the noise", ""
                if trial.score is not None:
                    self._baseline_scores.append(trial.score)
                    self.baseline = sum(self._baseline_scores) / len(self._baseline_scores)
                    self.best = self.baseline if not self.kept else self.best
            if trial.score is not None:
                self._lengths.append(trial.seconds)
                self._claimed += trial.arm is Arm.CLAIM
            known = self.running.pop(trial.id, None) is not None
            if trial.result is None and trial.finished is None:
                self.running[trial.id] = trial, None
            self.places = max(self.places, len(self.running))
            self._show_trial(trial, known)

    @never_raises
    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial reports progress; a trial that was cancelled may still do so, and is not shown."""
        with self.lock:
            if trial.id in self.running:
                self.running[trial.id] = trial, progress
                self._show_progress(trial, progress)

    @never_raises
    def verdict(
        self, experiment: Experiment, incumbent_score: float, noise: float, needed: Callable[[], str] = str
    ) -> None:
        """An experiment has its verdict."""
        if experiment.verdict is None:
            return
        told = needed()
        with self.lock:
            self.counts[experiment.verdict.kind] += 1
            self.best, self.noise, self.needed = incumbent_score, noise, told
            self._done_here += 1
            self.verdicts.append(_line(experiment, experiment.verdict, self.metric))
            self._show_verdict(self.verdicts[-1])

    def seconds_left(self) -> float | None:
        """Time until the search and its claim end, at the pace so far; None if that is not known."""
        if self.left is not None:
            return self.left
        limits = []
        if self.minutes is not None:
            limits.append(60 * self.minutes - (self._clock() - self._began))
        if self.limit is not None and self._done_here and self._first_at is not None:
            # Most experiments are decided by one trial.
            share = 0.9 * max((p.fraction for _, p in self.running.values() if p), default=0.0)
            pace = (self._clock() - self._first_at) / (self._done_here + share)
            limits.append(pace * (self.limit - self.tried - share))
        if not limits:
            return None
        if self.limit is not None and self.tried >= self.limit and not (self.running or self.kept):
            return None  # nothing more comes, so that no time is left to be told
        trainings = max(0, self._claim - self._claimed) if self.kept and self._lengths else 0
        claim = trainings * sum(self._lengths) / len(self._lengths) / self.places if trainings else 0.0
        return max(0.0, min(limits)) + claim

    def _begin(self, doing: str, hypothesis: str) -> None:
        self._first_at = self._clock() if self._first_at is None else self._first_at
        self.doing, self.hypothesis = doing, hypothesis
        self._show_doing()

    def _show_message(self, line: str, warning: bool) -> None:
        """Show a message, which is clean."""

    def _show_doing(self) -> None:
        """Show what is done now."""

    def _show_trial(self, trial: Trial, known: bool) -> None:
        """Show that a trial has started or ended; `known` if it was running already."""

    def _show_progress(self, trial: Trial, progress: Progress) -> None:
        """Show progress."""

    def _show_verdict(self, line: VerdictLine) -> None:
        """Show a verdict."""


class QuietView(SearchView):
    """Prints warnings only; the first argument is where lines go, the others are as for `SearchView`."""

    def __init__(self, stream: TextIO, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stream = stream

    def _show_message(self, line: str, warning: bool) -> None:
        if warning:
            self._print(f"warning: {line}")

    def _print(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(spelled(one_line(text, 1000), encoding) + "\n")
        self._stream.flush()


class PlainView(QuietView):
    """Prints every event as one line, and of a trial's progress one line now and then.

    Attributes:
        stamped: Whether each line begins with the time of day.
    """

    stamped = False
    _last = 0.0  # when a line about a trial was printed
    _needed = ""  # what the last line about gains said

    def __enter__(self) -> Self:
        never_raises(self._print)(f"{self.title}: {', '.join(self.setting) or 'getting ready'}")
        return self

    def _show_message(self, line: str, warning: bool) -> None:
        self._print(f"warning: {line}" if warning else line)

    def _print(self, text: str) -> None:
        super()._print(f"{time.strftime('%H:%M:%S')} {text}" if self.stamped else text)

    def _show_doing(self) -> None:
        self._print(f"{self.doing}: {self.hypothesis}" if self.hypothesis else self.doing)

    def _show_trial(self, trial: Trial, known: bool) -> None:
        self._last = self._clock()
        what = f"#{trial.experiment} {trial_name(trial, self.baselines)}"
        if trial.result is None:
            if trial.finished is None and not known:
                self._print(f"{what}: training")
            return
        took = duration(trial.seconds)
        came = f"{trial.result.outcome}, {trial.result.reason}"
        if trial.score is not None:
            came = self.metric.text(trial.score)
        self._print(f"{what}: {came} ({took})")

    def _show_progress(self, trial: Trial, progress: Progress) -> None:
        if self._clock() - self._last >= PROGRESS_SECONDS:
            self._last = self._clock()
            self._print(f"#{trial.experiment} {trial_name(trial)}: {trial_state(trial, progress)}")

    def _show_verdict(self, line: VerdictLine) -> None:
        text, left = self.metric.text, self.seconds_left()
        of = f" of {self.limit}" if self.limit is not None else ""
        time_left = f", about {duration(left)} left" if left is not None else ""
        self._print(f"#{line.number} {line.text}: {line.reason}")
        best = f"best {text(self.best or 0.0)} (noise {text(self.noise or 0.0)})"
        self._print(f"{best}, kept {self.kept}, tried {self.tried}{of}{time_left}")
        if self.needed != self._needed:
            self._needed = self.needed
            self._print(f"a gain: {self.needed}")


def trial_name(trial: Trial, baselines: int | None = None) -> str:
    """What a trial is for: "screen, seed 1003"."""
    of = f" of {baselines}" if baselines and trial.id <= baselines else ""
    number = f" {trial.id}{of}" if trial.experiment == 0 and not trial.label else ""
    # A name without a colon is that of the only place, which needs no mention.
    place = f" on {trial.place}" if ":" in trial.place else ""
    return f"{one_line(trial.label or trial.arm, 20)}{number}, seed {trial.seed}{place}"


def trial_state(trial: Trial, progress: Progress | None) -> str:
    """How far a running trial is: "62%, 12 s, step 410, loss 2.31"."""
    if progress is None or progress.phase == "start-up":
        return "starting up" + (f", {progress.seconds:.0f} s" if progress else "")
    if progress.phase in ("score", WAITING):
        return "scoring" if progress.phase == "score" else one_line(f"waiting: {progress.note}", 80)
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
    if isinstance(budget, Mapping) and budget.get("amount") and "kind" in budget:
        words.append(f"{budget['amount']:,.10g} {budget['kind']} a trial")
    return tuple(words)
