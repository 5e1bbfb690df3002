"""Trains a commit of a search again: the same code, seed, budget and data. Is the score the same?

If it is not, what differs in the environment is told, as far as the search recorded it. Where trainings
differ by chance (a budget of seconds, some devices) the difference is told in units of the noise. The result
steers nothing: it is a note of its own in the journal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.finish.trainings import Training, run_trainings
from autoresearch.search.checks.reproduction import ROUNDING
from autoresearch.search.loop import Search
from autoresearch.search.setup.environment import environment_at, this_environment
from autoresearch.store.git.repository import Repository
from autoresearch.store.records.notes import read_records, write_records
from autoresearch.types import Arm, Experiment, Metric, Plain, Split

REPRODUCED = "reproduced"
"""Key of the journal's note with everything that a person had trained again."""


@dataclass(frozen=True)
class Reproduced(Plain):
    """One training that a person had repeated.

    Attributes:
        experiment: Whose commit; 0 is the starting point.
        commit: What was trained.
        seed: The seed, as the journal counts.
        before: The score that the search measured.
        after: The score now; None if it failed.
        reason: Why it failed.
        noise: Standard deviation of a score from seed to seed; None if it is not known.
        deterministic: Whether the same seed is expected to give the same score.
        differences: Of the environment: name -> before and now. None if that of before is not known.
        time: Unix time in seconds.
    """

    experiment: int
    commit: str
    seed: int
    before: float
    after: float | None
    reason: str
    noise: float | None
    deterministic: bool
    differences: Mapping[str, tuple[str, str]] | None
    time: float

    @property
    def same(self) -> bool:
        """Whether the score is the same, but for rounding."""
        return self.after is not None and abs(self.after - self.before) <= ROUNDING * abs(self.before)


def meant_by(what: str, experiments: Sequence[Experiment], repository: Repository) -> Experiment:
    """The experiment that a person names by its number, its commit or the beginning of it, or a branch.

    Raises:
        UserError: If there is none, or more than one.
    """
    if what.isdigit() and int(what) < len(experiments):
        return experiments[int(what)]
    tried = [e for e in experiments if e.commit]
    found = [e for e in tried if re.fullmatch(r"[0-9a-f]{4,40}", what) and e.commit.startswith(what)]
    found = found or [e for e in tried if e.commit == repository.resolve(what)]
    if len(found) != 1:
        which = "more than one experiment" if found else "no experiment of this search"
        raise UserError(f"{what} names {which}.", "Give its number: autoresearch log lists them.")
    return found[0]


def reproduce(search: Search, experiment: Experiment) -> Reproduced:
    """Train the commit of an experiment again, as in its first trial that got a score.

    Args:
        search: An open search.
        experiment: One of its experiments.

    Raises:
        UserError: If it has no score, or git has lost its commit.
        Stopped: If a person stops it.
    """
    old = next((t for t in experiment.own if t.score is not None), None)
    if old is None or old.score is None:
        raise UserError(
            f"Experiment {experiment.number} has no score to reproduce.", "See why: autoresearch show N"
        )
    if search.repository.resolve(experiment.commit) is None:
        raise UserError(
            f"Git has lost commit {experiment.commit[:10]}.",
            f"Make it again: autoresearch sync --git name={search.config.name}",
        )
    known = read_records(search.journal, REPRODUCED, Reproduced)
    training = Training(
        index=len(known),
        arm=Arm.AUDIT,
        label=f"experiment {experiment.number} again",
        experiment=experiment.number,
        commit=experiment.commit,
        seed=old.seed,
        splits=(Split.VALIDATION,),
        items=f"losses/reproduced-{len(known)}",
    )
    [(_, result)] = run_trainings(search, [training])
    then = environment_at(search.journal, old.started)
    here = this_environment(search.config, search.task)
    record = Reproduced(
        experiment=experiment.number,
        commit=experiment.commit,
        seed=old.seed,
        before=old.score,
        after=result.score,
        reason=result.reason,
        noise=search.state.standing()[1] or None,
        deterministic=search.task.deterministic,
        differences=then.differences(here) if then else None,
        time=now(),
    )
    write_records(search.journal, REPRODUCED, [*known, record])
    return record


def reproduced_lines(record: Reproduced, metric: Metric) -> list[str]:
    """What came of it, for a terminal."""
    what = f"#{record.experiment} {record.commit[:10]}, seed {record.seed}"
    if record.after is None:
        first = f"{what}: it failed ({record.reason}); {metric.name} was {metric.text(record.before)}."
        return [first, *_told(record)]
    digits = metric.digits + 2
    now_, was = f"{record.after:.{digits}f}", f"{record.before:.{digits}f}"
    if record.same:
        return [f"{what}: the same, {metric.name} {now_}."]
    change = record.after - record.before
    share = f", {abs(change) / record.noise:.1f} times the noise between seeds" if record.noise else ""
    lines = [f"{what}: not the same: {metric.name} {now_}, was {was} ({change:+.{digits}f}{share})."]
    if not record.deterministic:
        lines.append("Under this budget two trainings with the same seed differ by chance.")
    return lines + _told(record)


def _told(record: Reproduced) -> list[str]:
    if record.differences is None:
        return ["What the environment was then is not recorded: a search of an older version."]
    if not record.differences:
        return ["Nothing differs in what is recorded of the environment: versions, device, threads."]
    width = max(map(len, record.differences))
    rows = (f"  {name:{width}}  {was} -> {is_}" for name, (was, is_) in record.differences.items())
    return ["What differs in the environment:", *rows]
