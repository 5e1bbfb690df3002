"""The record of trials and experiments, as the journal keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import is_

from autoresearch.types.choices import Arm, State, VerdictKind
from autoresearch.types.proposals import Proposal
from autoresearch.types.trials import Measurement
from autoresearch.types.verdicts import Verdict


@dataclass(frozen=True)
class Trial:
    """One training and scoring of one commit with one seed, as the journal knows it.

    Attributes:
        id: Number within the search, from 1.
        experiment: The experiment that asked for it; 0 is the baseline.
        arm: Its purpose.
        seed: The random seed given to the candidate.
        commit: What was trained.
        started: Unix time in seconds.
        finished: Unix time in seconds; None while it runs, or if the runner died.
        result: None while it runs, if the runner died, or if the result was no longer needed.
        place: Where it runs, such as "cuda:1"; empty if there is only one place.
        label: Its name if its arm does not say enough, such as "claim, tip".
        measured: Sum of its phases in seconds; 0 if none were recorded.
    """

    id: int
    experiment: int
    arm: Arm
    seed: int
    commit: str
    started: float
    finished: float | None = None
    result: Measurement | None = None
    place: str = ""
    label: str = ""
    measured: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it kept its place busy: its phases, else from start to end; 0 while it runs."""
        return self.measured or ((self.finished or self.started) - self.started)

    @property
    def score(self) -> float | None:
        """In the unit of the metric, if the trial ended well."""
        return self.result.score if self.result else None


@dataclass(frozen=True)
class Experiment:
    """One proposal carried through to a verdict, as the journal knows it.

    Attributes:
        number: 0 is the baseline (which has no proposal), then 1, 2, ...
        state: How far it has come.
        parent: The incumbent commit that the edit applies to.
        commit: The candidate commit; empty until there is one. Its message, so its hash, gains the verdict
            when that is known; its tree is what was trained.
        proposal: None only for the baseline.
        verdict: None until judged.
        diff: Unified diff from parent to commit; empty until there is one.
        created: Unix time in seconds.
        finished: Unix time in seconds; None until judged.
        trials: Every trial that this experiment asked for, in order; incumbent re-runs included.
        dropped: Proposals that were made ahead while this was the latest experiment, and were given up: they
            cost something and were never tried.
        diagnoses: Trials of the incumbent with edits that only print, made while this was the latest
            experiment. Their scores count for nothing, and are not recorded.
        decided: How many experiments had a verdict by then, itself included; None until judged. With one
            candidate in flight at a time this is its number.
    """

    number: int
    state: State
    parent: str
    created: float
    commit: str = ""
    proposal: Proposal | None = None
    verdict: Verdict | None = None
    diff: str = ""
    finished: float | None = None
    trials: tuple[Trial, ...] = ()
    dropped: tuple[Proposal, ...] = ()
    diagnoses: tuple[Trial, ...] = ()
    decided: int | None = None

    @property
    def order(self) -> int:
        """Its place in the order of verdicts; its number while it has none."""
        return self.number if self.decided is None else self.decided

    @property
    def kept(self) -> bool:
        """Whether the candidate became the incumbent."""
        return self.verdict is not None and self.verdict.kind is VerdictKind.KEEP

    @property
    def gain(self) -> float:
        """What it gained by the judge's estimate at its verdict; 0 unless it was kept."""
        return (self.verdict.effect or 0.0) if self.verdict and self.kept else 0.0

    def dollars(self, device_hour: float) -> float:
        """What it has cost: its proposal, and its trials at the price of an hour of a device."""
        proposal = self.proposal.cost.dollars if self.proposal else 0.0
        return proposal + sum(trial.seconds for trial in self.trials) / 3600 * device_hour

    @property
    def failed(self) -> bool:
        """Whether it ended without a valid score by its own fault: it crashed, or is invalid."""
        return self.verdict is not None and self.verdict.kind in (VerdictKind.CRASH, VerdictKind.INVALID)

    @property
    def own(self) -> tuple[Trial, ...]:
        """Trials of the candidate itself, in order: no re-runs of the incumbent.

        A candidate that was merged onto a later incumbent has others from before, of another program.
        """
        own = [t for t in self.trials if t.arm != Arm.INCUMBENT]
        return tuple(t for t in own if t.commit == own[-1].commit)

    @property
    def scores(self) -> tuple[float, ...]:
        """Scores of the candidate itself, in order; see `own`."""
        return tuple(t.score for t in self.own if t.score is not None)

    @property
    def score(self) -> float | None:
        """Mean score of the candidate, if it has any; without the screening trial if there are others.

        A screening score has been selected for being low, so it would make the mean optimistic.
        """
        fair = [t.score for t in self.own if t.arm != Arm.SCREEN and t.score is not None]
        scores = fair or self.scores
        return sum(scores) / len(scores) if scores else None


def in_order(experiments: Iterable[Experiment]) -> list[Experiment]:
    """The experiments in the order of their verdicts, the baseline first; those without a verdict come last.

    With several candidates in flight this is not the order of their numbers.
    """
    return sorted(experiments, key=lambda e: (bool(e.number) and e.verdict is None, e.order))


def starts_with(history: Sequence[Experiment], known: Sequence[Experiment]) -> bool:
    """Whether a history begins with these very objects; what was summed up of them still holds then.

    Its loops are not Python's: of ten thousand experiments it takes a fraction of a millisecond.
    """
    return len(known) <= len(history) and all(map(is_, known, history))
