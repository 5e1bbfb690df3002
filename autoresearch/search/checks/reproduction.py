"""Runs the incumbent again on an old seed, whose score it must reproduce where trainings are deterministic.

A kept change that scores differently on the same seed knows something that it should not, such as how often
it was run before; or the machine is another one. The starting script, run again on one of its own old seeds,
tells the two apart: if it reproduces its score and the incumbent does not, the incumbent is invalid. On a
device whose trainings differ by chance the starting script differs too, and nothing is concluded.

Not covered: what is done about an invalid change (`revocation`), and a machine that has become slower or
faster (the judge).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoresearch.clock import now
from autoresearch.search.scheduler import Scheduler
from autoresearch.search.state import SearchState
from autoresearch.search.steps import Steps
from autoresearch.search.trials import CANDIDATE_ARMS
from autoresearch.store.records.notes import read_records, write_records
from autoresearch.types import Arm, Experiment, Plain, Split

REPRODUCTIONS = "reproductions"
"""Key of the journal's note with every repetition."""

HEARTBEAT = 20
"""Trainings of candidates after which an incumbent is repeated, if the judge has no such option."""

ROUNDING = 1e-5
"""Largest difference of a repeated score, as a share of it."""


@dataclass(frozen=True)
class Repetition(Plain):
    """One training that was run again.

    Attributes:
        experiment: Whose program; 0 is the starting script.
        seed: The seed, as the journal counts.
        score: The score before.
        again: The score now; None if it failed, from which nothing is concluded.
        at: Trainings of candidates in the journal by then.
        time: Unix time in seconds.
    """

    experiment: int
    seed: int
    score: float
    again: float | None
    at: int
    time: float

    @property
    def same(self) -> bool:
        """Whether the score was reproduced, as far as is known."""
        return self.again is None or abs(self.again - self.score) <= ROUNDING * abs(self.score)


def read_repetitions(state: SearchState) -> list[Repetition]:
    """Every repetition of a search so far, in order."""
    return read_records(state.journal, REPRODUCTIONS, Repetition)


class Reproduction:
    """Repeats the incumbents of one search when it is time."""

    def __init__(self, state: SearchState, scheduler: Scheduler) -> None:
        """Prepare.

        Args:
            state: Of the search.
            scheduler: Starts the trainings, one after the other.
        """
        self._state = state
        self._scheduler = scheduler
        self._known = read_repetitions(state)
        self._read = self._trainings = 0
        self._of: dict[int, int] = {}
        self._kept: tuple[int, int] = 0, 0

    def check(self) -> Steps[str]:
        """Repeat the incumbent, if it is time; says why it is invalid, or nothing."""
        state, incumbent = self._state, self._state.incumbent
        if not incumbent.number or not state.task.deterministic:
            return ""
        at = self._count()
        done = (r.at for r in self._known if r.experiment == incumbent.number)
        since = max([self._kept_at(incumbent), *done])
        if at - since < int(state.config.judge.get("heartbeat", HEARTBEAT)):
            return ""
        if any(not r.experiment and not r.same for r in self._known):
            return ""  # trainings differ by chance
        again = yield from self._repeat(incumbent, at)
        if again is None or again.same:
            return ""
        start = yield from self._repeat(state.journal.experiment(0), at)
        if start is None or start.again is None or not start.same:
            return ""
        name, digits = state.task.metric.name, state.task.metric.digits + 2
        scores = f"{again.again:.{digits}f} where {name} was {again.score:.{digits}f}"
        return f"on the same seed it has {scores}; the starting script repeats its own score"

    def _count(self) -> int:
        """Trainings of candidates so far."""
        self._read, changed = self._state.journal.changes(self._read)
        for e in changed:
            count = sum(t.arm in CANDIDATE_ARMS for t in e.trials)
            self._trainings += count - self._of.get(e.number, 0)
            self._of[e.number] = count
        return self._trainings

    def _kept_at(self, incumbent: Experiment) -> int:
        """The trainings of the experiments up to the verdict that kept the incumbent."""
        if self._kept[0] != incumbent.number:
            before = (e for e in self._state.journal.decided() if e.order <= incumbent.order)
            self._kept = incumbent.number, sum(self._of[e.number] for e in before)
        return self._kept[1]

    def _repeat(self, experiment: Experiment, at: int) -> Steps[Repetition | None]:
        """Train a program again on its oldest seed; None if there is none."""
        first = self._state.devices.runs_as
        known = (t for t in experiment.own if t.score is not None and t.result and first(t.result, ""))
        old = next(known, None)
        if old is None or old.score is None:
            return None
        label = f"repetition of {experiment.number}"
        again = replace(old, id=0, commit=experiment.commit, arm=Arm.AUDIT, started=now(), label=label)
        trial = replace(again, finished=None, result=None)
        items = f"losses/repetition-{experiment.number}-{at}"
        ended = yield lambda: self._scheduler.start_unrecorded(trial, (Split.VALIDATION,), items)
        done = Repetition(experiment.number, old.seed, old.score, ended.result.score, at, now())
        self._known.append(done)
        write_records(self._state.journal, REPRODUCTIONS, self._known)
        return done
