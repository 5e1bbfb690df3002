"""Measures the guards of a search on its whole kept history: what does each kept change do to them?

The start and the tip after every kept change are trained on common fresh seeds, as for a transfer at the
scale of the search. So a guard that was accepted late says of each earlier keep whether it lost. Nothing of
it steers the search. Not covered: the statistics (`judge.guards`).
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise, product

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.finish.trainings import Training, run_trainings, unused_seed
from autoresearch.judge.guards import GuardRun, weigh
from autoresearch.search.checks.guards import run_of
from autoresearch.search.loop import Search
from autoresearch.store.records.guards import MeasuredKeeps, read_measured, write_measured
from autoresearch.tasks.base import requested
from autoresearch.types import Arm, Split


def measure_guards(search: Search, seeds: int) -> MeasuredKeeps:
    """Train the kept history with every guard that is in force.

    Args:
        search: An open search.
        seeds: Trainings of each commit.

    Raises:
        UserError: If nothing was kept, or there is no guard.
    """
    guards, keeps, info = search.state.guards(), search.state.kept, search.journal.info()
    if not guards:
        raise UserError(
            "The search has no guard.",
            "Name some (guards.metrics=[rare]) or accept one: autoresearch guards list",
        )
    if not keeps:
        raise UserError("Nothing was kept, so nothing can have lost.", "Search on: autoresearch run name=...")
    commits, folder = [info.base_commit, *(e.commit for e in keeps)], search.journal.path.parent
    first = unused_seed(search, (r.first_seed + r.seeds for r in read_measured(search.journal)))
    plan = list(product(range(first, first + seeds), range(len(commits))))
    splits = (Split.VALIDATION, *([Split.OTHER] if "other" in info.data.get("splits", {}) else []))
    trainings = [
        Training(
            index=number,
            arm=Arm.AUDIT,
            label=f"guards, {changes} changes",
            experiment=0,
            commit=commits[changes],
            seed=seed,
            splits=splits,
            items=f"losses/guards-history-{number}",
            fields={"guards": requested(guards)},
        )
        for number, (seed, changes) in enumerate(plan)
    ]
    runs, took = defaultdict[int, list[GuardRun]](list), 0.0
    for number, result in run_trainings(search, trainings):
        seed, changes = plan[number]
        took += sum(end - start for _, start, end in result.phases)
        if result.score is not None:
            place = folder / f"losses/guards-history-{number}"
            runs[changes].append(run_of(seed, result, place, guards, search.task.metric))
    gains = {
        e.number: weigh(guards, runs[before], runs[after])
        for e, (before, after) in zip(keeps, pairwise(range(len(commits))), strict=True)
    }
    record = MeasuredKeeps(keeps[-1].commit, first, seeds, gains, took, now())
    write_measured(search.journal, record)
    return record
