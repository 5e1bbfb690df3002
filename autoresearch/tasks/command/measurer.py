"""Measures candidates of the task `command`, one at a time at each place.

    checks   jailed   tests and linters of the repository, in the candidate's tree; must pass first
    train    jailed   the candidate, in a writable copy of its tree without what is held out
    score    jailed   the starting commit's files, read-only, with the held-out data and the artifact

The jail of `score` begins when no process of `train` is left, and has a copy of what it wrote (`artifact`).
Without a `score` command the candidate says its own score. A task that is called deterministic has its seeds
fixed; files that scored the same twice are not run again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.execute.base import OnProgress, Place, ShouldStop, TrialEnded, TrialSpec
from autoresearch.execute.load import this_machine
from autoresearch.execute.output import TIMEOUT, classify
from autoresearch.execute.retry import repeat_spoiled
from autoresearch.execute.sandbox import Sandbox
from autoresearch.store.files import digest, remove_tree
from autoresearch.tasks.command.artifact import pack, unpack
from autoresearch.tasks.command.settings import Environment
from autoresearch.tasks.command.stages import Commands, Record, Stages, ignore, named
from autoresearch.types import Fidelity, Measurement, Outcome, Progress

SIGN = re.compile(r"^PROGRESS\s+([\d.]+)(?:\s+(\S+))?\s*$", re.MULTILINE)
"""A line by which a program tells how far it is, from 0 to 1, and its loss: for the view and early stops."""
TWICE = 2
"""Equal scores of the same files after which a deterministic task is believed to be so."""


class CommandMeasurer:
    """Implements `execute.base.Measurer`."""

    def __init__(
        self,
        commands: Commands,
        around: Environment,
        sandbox: Sandbox,
        place: Place,
        say: Callable[[str], None],
    ) -> None:
        """Prepare; starts nothing.

        Args:
            commands: What to run.
            around: What it finds around it.
            sandbox: How it is confined.
            place: This place, for the record.
            say: Tells a person something.
        """
        self._commands, self._around, self._sandbox = commands, around, sandbox
        self._place, self._say, self._load = place, say, this_machine()
        self._scores: dict[str, list[Measurement]] = {}
        self.stages = Stages(commands, around, sandbox, self._load, say)

    def measure(
        self, tree: Path, spec: TrialSpec, scratch: Path, progress: OnProgress, should_stop: ShouldStop = None
    ) -> Measurement:
        """Run the checks, `train` and `score`; see `execute.base.Measurer`.

        A trial that was late while other programs left no room is repeated.
        """
        commands = self._commands
        scratch = scratch.resolve()
        known: list[Measurement] = []
        believed = commands.options.deterministic and not commands.options.items
        if believed and not spec.submission:
            known = self._scores.setdefault(f"{digest(tree)} {spec.splits}", [])
            if len(known) >= TWICE and len({result.score for result in known}) == 1:
                progress(Progress(1.0, 0.0))
                return known[0]

        busy = ""

        def once() -> tuple[Measurement, str]:
            nonlocal busy
            for name in ("train", "artifact", *(f"score-{split}" for split in spec.splits)):
                remove_tree(scratch / name)
            since = self._load.mark
            result = self._trial(tree.resolve(), spec, scratch, progress, should_stop)
            busy = self._load.blame(since)
            return result, busy if classify(result.reason) == TIMEOUT else ""

        with self._load.watching():
            timed = commands.budget.kind == "seconds"
            problem = self._load.problem
            result = repeat_spoiled(once, timed=timed, say=self._say, progress=progress, busy=problem)
        if busy:  # the candidate is not to blame if scoring took longer
            metrics = {name: value for name, value in result.metrics.items() if name != "score_seconds"}
            result = replace(result, metrics=metrics)
        if result.outcome is Outcome.OK:
            known.append(result)
        return result

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        """Run the checks, and `train` for a few seconds; one that ends badly by then is a failure."""
        seconds, record = self._commands.options.tryout_seconds, Record()
        try:
            if seconds:
                self.stages.check(tree.resolve(), scratch.resolve())
                with self._load.watching():
                    ended = self.stages.run_train(tree.resolve(), scratch.resolve(), 0, seconds, ignore)
                record.log = ended.log
                if ended.reason and not ended.late:
                    raise TrialEnded(Outcome.CRASH, self.stages.explained(ended, tree))
        except TrialEnded as failed:
            return self._measurement(record, failed.outcome, str(failed), None, Fidelity.TRYOUT)
        return self._measurement(record, Outcome.OK, "", None, Fidelity.TRYOUT)

    def close(self) -> None:
        """Nothing is kept running."""

    # The steps of a trial

    def _trial(
        self, tree: Path, spec: TrialSpec, scratch: Path, progress: OnProgress, should_stop: ShouldStop
    ) -> Measurement:
        record, commands = Record(), self._commands
        limit = commands.budget.limit(spec.baseline)
        usual = commands.budget.amount or spec.baseline.get("train_seconds", limit)

        def look(seconds: float, log: str) -> None:
            sign = _sign(seconds, min(seconds / usual, 0.99), log)
            record.reached = sign.fraction
            if sign.loss is not None and (not record.curve or record.curve[-1][0] < sign.fraction):
                record.curve.append((sign.fraction, sign.loss))
            progress(sign)
            if should_stop is not None and should_stop(sign):
                raise TrialEnded(Outcome.PRUNE, f"stopped at {sign.fraction:.0%} of its budget: hopeless")

        submitted = Path(spec.submission) if spec.submission else None
        score: float | None = None
        outcome, reason = Outcome.OK, ""
        try:
            look(0.0, "")
            if submitted and submitted.exists():
                unpack(submitted, scratch / "artifact")
            else:
                self.stages.check(tree, scratch)
                self.stages.train(tree, scratch, spec, record, limit, look)
            progress(Progress(1.0, record.metrics.get("train_seconds", 0.0), phase="score"))
            if commands.options.score:
                score = self.stages.score(scratch, spec, record)
                if submitted and not submitted.exists():
                    pack(scratch / "artifact", submitted)
            else:
                found = self.stages.read(record.log, scratch / "train" / "work")
                score = found.pop(commands.metric.name)
                record.metrics |= named(found)
        except TrialEnded as ended:
            outcome, reason, score = ended.outcome, str(ended), None
        except OSError as error:
            why = f"The trial cannot be run: {error}."
            raise UserError(why, "Check the disk and permissions.", code=3) from error
        return self._measurement(record, outcome, reason, score, spec.fidelity)

    def _measurement(
        self, record: Record, outcome: Outcome, reason: str, score: float | None, fidelity: Fidelity
    ) -> Measurement:
        fraction = 1.0 if outcome is Outcome.OK and fidelity is Fidelity.FULL else record.reached
        origin = self._place.provenance(fidelity, fraction)
        metrics, curve, phases = dict(record.metrics), tuple(record.curve), tuple(record.phases)
        return Measurement(outcome, score, reason, metrics, curve, record.log, phases, provenance=origin)


def _sign(seconds: float, fraction: float, log: str) -> Progress:
    """How far a training is: as it says, else by the time that it has taken."""
    told = SIGN.findall(log[-2000:])
    loss: float | None = None
    if told:
        with suppress(ValueError):
            fraction = min(max(float(told[-1][0]), 0.0), 1.0)
            loss = float(told[-1][1]) if told[-1][1] else None
    return Progress(fraction, seconds, loss=loss)
