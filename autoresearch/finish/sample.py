"""Text that the models of a search write: those of the start and of the tip, trained with the same seed.

Each is trained as in the search, in its sandbox, unless its weights are still there from the last time;
`clean` removes those. Then it is scored, and writes. What it writes is recorded in the journal, where only
the report reads it.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.finish.trainings import Training, run_trainings
from autoresearch.search.loop import Search
from autoresearch.store.records.notes import Sample, write_samples
from autoresearch.text import clean
from autoresearch.tracking.model import WEIGHTS
from autoresearch.types import Arm, Experiment, Split, TextRequest


def make_samples(search: Search, request: TextRequest) -> list[Sample]:
    """Have the start and the tip write.

    Args:
        search: An open search with a baseline.
        request: What to write.

    Raises:
        UserError: If the task's candidates write no text, or a model fails.
        Stopped: If a person stops it.
    """
    task, baseline = search.task, search.journal.experiments()[:1]
    if not task.writes:
        raise UserError(
            f"What the task {task.name} makes writes no text.", "See what was kept: autoresearch diff"
        )
    seeds = [t.seed for e in baseline for t in e.trials if t.score is not None]
    if not seeds:
        raise UserError(
            "The starting script has not been trained yet.",
            f"Search on: autoresearch run name={search.config.name}",
        )
    sides = [*baseline, *search.state.kept[-1:]]
    search.view.message("Start and tip write." if len(sides) > 1 else "The start writes; nothing was kept.")
    found = dict(run_trainings(search, _planned(search, sides, seeds[0], request)))
    if failed := [f"{sides[i].commit[:10]}: {r.reason}" for i, r in found.items() if r.score is None]:
        raise UserError(f"There is no text of {'; '.join(failed)}", "Run the same command again.", code=3)
    samples = [
        Sample(e.number, e.commit, request.prompt, tuple(map(clean, found[i].texts)), now())
        for i, e in enumerate(sides)
    ]
    write_samples(search.journal, samples)
    return samples


def _planned(search: Search, sides: list[Experiment], seed: int, request: TextRequest) -> Iterator[Training]:
    for index, experiment in enumerate(sides):
        commit = experiment.commit
        yield Training(
            index=index,
            arm=Arm.AUDIT,
            label="text of the tip" if experiment.number else "text of the start",
            experiment=experiment.number,
            commit=commit,
            seed=seed,
            splits=(Split.VALIDATION,),
            items="",
            fields={"submission": f"{WEIGHTS}/{commit[:12]}-{seed}", "text": request},
        )
