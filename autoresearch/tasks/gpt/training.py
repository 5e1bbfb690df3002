"""The runner's side of a training: protocol 1, and the clock.

Invariant: the runner keeps the clock. It starts when the runner sends the data and stops when the submission
arrives; no message of the candidate can stop or delay it, or make the runner fail. The runner accepts
reported numbers only if they are finite and have a valid name, and no decision about the score rests on them.

Under a budget of seconds, a submission later than `late_after` is invalid. A budget of tokens has limits on
the time instead, and on a CPU on the CPU time; a candidate that exceeds one counts as a crash. The time that
other programs took does not count (`execute.load`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.clock import now
from autoresearch.execute.base import OnProgress, ShouldStop, TrialEnded
from autoresearch.execute.load import LEAST, Clock, LoadMeter
from autoresearch.execute.output import where
from autoresearch.tasks.gpt.program import JailedProgram
from autoresearch.tasks.gpt.settings import TrainingBudget
from autoresearch.types import Outcome, Progress
from nanomodel.wire import PROTOCOL, Closed, Message, Timeout, WireError, close_all

HEARTBEAT = 0.5
FORWARD_EVERY = 0.2
"""Least seconds between two entries that are passed on; the harness sends one every 0.25 s."""
CURVE_POINTS = 512
_NAME = re.compile(r"(?!\w*_bpb$|gpu_|clock_)[a-z][a-z0-9_]{0,31}")
"""Names that a candidate may give its numbers; other names belong to scores and readings."""
MEASURED = frozenset(
    (
        *("startup_seconds", "startup_cpu_seconds", "train_seconds", "cpu_seconds", "reference_seconds"),
        *("score_seconds", "score_cpu_seconds", "blind_seconds", "memory_mb", "weights_mb", "repeated"),
    )
)
"""Numbers that the runner measures itself; a candidate may not report under these names."""
_HARNESS = re.compile(
    r"steps|tokens|tokens_per_second|peak_memory_mb|rows|compiled_graphs|graph_breaks|compile_failures|recompiles"
    r"|train_loss|mfu|epochs|parameters|build_seconds|warmup_seconds"
)
"""Numbers that the harness reports of a training."""
OWN = "script_"
"""Begins the names of all other numbers, so that none passes for one of ours in a prompt, page or MLflow."""


TOLERANCE = 0.25
"""Seconds that others may take of a budget of seconds without being the reason that a trial is late."""
CPU_TIMEOUT = "timeout: it used more CPU time than"
OWN_TIMEOUT = re.compile(CPU_TIMEOUT + r"|timeout: [a-z ]+ [\d.e+]+ s of its own time")
"""Begins the reason of a late trial if other programs cannot have caused it."""


@dataclass
class TrialRecord:
    """Everything recorded of a trial so far; a failed trial has it too."""

    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    _now: tuple[str, float] | None = None

    def enter(self, phase: str | None) -> None:
        """Record that a phase begins and the one before it, if any, ends; None only ends."""
        moment = now()
        if self._now is not None:
            self.phases.append((*self._now, moment))
        self._now = None if phase is None else (phase, moment)

    def add_point(self, fraction: float, loss: float) -> None:
        """Record a point of the learning curve; if there are too many, each two become their mean."""
        self.curve.append((fraction, loss))
        if len(self.curve) > CURVE_POINTS:
            first, *rest = self.curve
            pairs = list(zip(rest[::2], rest[1::2], strict=False))
            merged = [(after, (one + two) / 2) for (_, one), (after, two) in pairs]
            self.curve = [first, *merged, *rest[2 * len(pairs) :]]


@dataclass
class Training:
    """One training process, from its hello to its submission."""

    program: JailedProgram
    budget: TrainingBudget
    record: TrialRecord
    progress: OnProgress
    load: LoadMeter = field(default_factory=LoadMeter)
    threads: int = 1

    def get_ready(self, task: Mapping[str, Any], seconds: float, check_sandbox: Callable[[], None]) -> None:
        """Wait until the candidate has built, compiled and warmed up its model.

        Args:
            task: The task message, without its type.
            seconds: Limit on the time.
            check_sandbox: Called if the process died without a message, before the candidate is blamed.

        Raises:
            TrialEnded: If it fails or takes longer.
        """
        clock = self._clock()
        for expected in ("hello", "ready"):
            while True:
                clock.tick()
                left = seconds - clock.seconds
                if left <= 0:
                    own = " of its own time" if clock.exact else ""
                    reason = f"timeout: not ready after {seconds:g} s{own} (budget.startup_seconds): {clock}"
                    raise self._overtime(Outcome.CRASH, reason)
                try:
                    message = self._next(min(left, HEARTBEAT))
                except TrialEnded:
                    if expected == "hello":
                        check_sandbox()
                    raise
                if message is not None:
                    break
                self.progress(Progress(0.0, clock.wall, phase="start-up"))
            self._expect(message, expected)
            if expected == "hello":
                if message.get("protocol") != PROTOCOL:
                    raise TrialEnded(
                        Outcome.INVALID, f"it speaks protocol {str(message.get('protocol'))[:20]!r}"
                    )
                self.record.enter("warmup")
                self._send({"type": "task", **task})
        clock.tick()
        self.record.metrics["startup_seconds"] = clock.wall
        self.record.metrics["startup_cpu_seconds"] = self.program.cpu_seconds

    def train(self, data: int, should_stop: ShouldStop) -> None:
        """Hand over the data, and wait for the submission; the process is dead afterwards.

        Args:
            data: Descriptor of the training tokens.
            should_stop: Called a few times a second, after progress; returns whether to stop.

        Raises:
            TrialEnded: If there is no submission in time.
        """
        self._send({"type": "start"}, [data])
        self.record.enter("train")
        clock = self._clock()
        latest, told, forwarded = Progress(0.0, 0.0), True, -math.inf
        while True:
            left = self._left(clock)
            message = self._next(min(left, HEARTBEAT)) if left > 0 else None
            if self._left(clock) < 0:
                raise self._late(clock, latest)
            seconds = clock.wall
            if message is not None and message.get("type") == "submit":
                self.record.enter("score")
                self.program.kill(empty=False)
                clock.tick()
                self.record.metrics |= {"cpu_seconds": clock.cpu, "reference_seconds": self.load.reference}
                if not told:
                    self.progress(latest)
                return self._note_submission(message, seconds)
            if message is not None:
                self._expect(message, "log")
                latest, told = self._note_log(message, seconds), False
            if (
                seconds - forwarded < FORWARD_EVERY
            ):  # with a limit near, `_next` returns at once again and again
                continue
            forwarded = seconds
            if not told:
                told = True
                self._forward(latest, should_stop)
            elif message is None:
                used = self.budget.fraction(seconds, latest.tokens, latest.step)
                self.progress(Progress(used, seconds, latest.step, latest.loss, latest.tokens))

    def _clock(self) -> Clock:
        program = self.program
        return Clock(self.load, lambda: program.cpu_seconds, self.threads, lambda: program.waited_seconds)

    def _left(self, clock: Clock) -> float:
        """Seconds until the next limit; not positive if one is exceeded."""
        clock.tick()
        if self.budget.kind == "seconds":
            return self.budget.late_after - clock.wall
        if (most := self.max_cpu_seconds) is not None and clock.cpu > most:
            self.record.metrics["cpu_seconds"] = clock.cpu
            return -1.0
        return self.budget.max_seconds - clock.seconds

    @property
    def max_cpu_seconds(self) -> float | None:
        """Limit on the CPU time, longer if the same computation takes longer now than at the baseline."""
        most, before, now = self.budget.max_cpu_seconds, self.budget.reference, self.load.reference
        return most * min(1 / LEAST, max(1.0, now / before)) if most and before and now else most

    def _forward(self, latest: Progress, should_stop: ShouldStop) -> None:
        self.progress(latest)
        if should_stop is not None and should_stop(latest):
            self.program.kill()
            raise TrialEnded(Outcome.PRUNE, f"stopped at {latest.fraction:.0%} of its budget: hopeless")

    def _next(self, timeout: float) -> Message | None:
        """The next message, or None if none came in time."""
        try:
            message, fds = self.program.wire.recv(timeout)
        except Timeout:
            if self.program.alive:
                return None
            raise TrialEnded(Outcome.CRASH, self.program.why_it_ended()) from None
        except Closed:
            raise TrialEnded(Outcome.CRASH, self.program.why_it_ended()) from None
        except WireError as error:
            raise TrialEnded(Outcome.INVALID, f"it sent {error}") from None
        close_all(fds)
        return message

    def _send(self, message: Message, fds: list[int] | None = None) -> None:
        try:
            self.program.wire.send(message, fds or [], timeout=5.0)
        except (Closed, Timeout):
            raise TrialEnded(Outcome.CRASH, self.program.why_it_ended()) from None

    def _expect(self, message: Message, kind: str) -> None:
        if message.get("type") != kind:
            raise TrialEnded(
                Outcome.INVALID, f"it sent {str(message.get('type'))[:40]!r} where {kind!r} was due"
            )

    def _overtime(self, outcome: Outcome, reason: str) -> TrialEnded:
        self.program.terminate()
        return TrialEnded(outcome, reason + where(self.program.log.text(wait=1.0)))

    def _late(self, clock: Clock, latest: Progress) -> TrialEnded:
        """Say how far it came, and what the limit was."""
        budget, most = self.budget, self.max_cpu_seconds
        steps = f" of about {latest.step / latest.fraction:.0f}" if latest.fraction > 0 else ""
        came = f"stopped at step {latest.step}{steps} ({latest.fraction:.0%} of its budget), after {clock}"
        if budget.kind == "seconds":
            own = " of its own time" if clock.exact and clock.wall - clock.seconds < TOLERANCE else ""
            reason = f"timeout: nothing submitted within {budget.amount:g} s{own}: {came}"
            return self._overtime(Outcome.INVALID, reason)
        if most is not None and clock.cpu > most:
            reason = f"{CPU_TIMEOUT} {most:.3g} s: {came} (limit by {budget.source})"
        else:
            own = " of its own time" if clock.exact else ""
            limit = f"{budget.max_seconds:.4g} s{own}"
            reason = f"timeout: not done after {limit}: {came} (limit by {budget.source})"
        return self._overtime(Outcome.CRASH, reason)

    def _note_log(self, message: Message, seconds: float) -> Progress:
        numbers = _numbers(message)
        tokens, step = int(numbers.get("tokens", 0)), int(numbers.get("step", 0))
        fraction = self.budget.fraction(seconds, tokens, step)
        loss = message.get("loss")
        if isinstance(loss, float) and not math.isfinite(loss):
            self.program.kill()
            raise TrialEnded(Outcome.CRASH, f"diverged: the training loss is {loss}")
        if "loss" in numbers:
            self.record.add_point(fraction, numbers["loss"])
        return Progress(fraction, seconds, step, numbers.get("loss"), tokens)

    def _note_submission(self, message: Message, seconds: float) -> None:
        claimed = message.get("metrics")
        metrics = _numbers(claimed) if isinstance(claimed, dict) else {}
        tokens = metrics.get("tokens", math.inf)
        if self.budget.kind == "tokens" and math.inf > tokens > self.budget.amount:
            raise TrialEnded(Outcome.INVALID, f"it trained on more than {self.budget.amount:g} tokens")
        if metrics.get("steps", 0.0) > tokens:
            raise TrialEnded(Outcome.INVALID, f"it claims more steps than the {tokens:g} tokens it read")
        if metrics.get("mfu", 0.0) > 1.0:
            raise TrialEnded(
                Outcome.INVALID, f"it claims {metrics['mfu']:.0%} of what the device can compute"
            )
        metrics = {name if _HARNESS.fullmatch(name) else OWN + name: value for name, value in metrics.items()}
        if "tokens" in metrics:
            metrics["tokens_per_second"] = tokens / seconds
        self.record.metrics = {**metrics, **self.record.metrics, "train_seconds": seconds}


def _numbers(message: Mapping[str, Any]) -> dict[str, float]:
    """The finite, well-named numbers in what a candidate sent, at most 64."""
    found: dict[str, float] = {}
    for name, value in message.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        named = _NAME.fullmatch(name) and name not in MEASURED
        if number and named and abs(value) < 1e300:  # false for nan and infinity
            found[name] = float(value)
    return dict(list(found.items())[:64])
