"""Measures the kept changes of a search on a ladder of larger scales, and on other data.

A rung is a search of its own without proposals, in `runs/<name>/transfer/`: the same start, the settings of
the search with a larger budget or other data, and files that the task has scaled by its declared rule. On
each rung the start and the tip after every kept change are trained on common fresh seeds. The plan is in
the journal of the search before anything starts, so a transfer that was killed goes on. Nothing of it steers
the search.
Not covered: the statistics (`judge.transfer`); learning rates are not tuned anew on a rung.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from autoresearch.clock import now
from autoresearch.config.files import quoted, replaced
from autoresearch.errors import Refused, UserError
from autoresearch.finish.trainings import Training, run_trainings, unused_seed
from autoresearch.report.sections.transfer import change_words
from autoresearch.search.loop import Search
from autoresearch.search.setup.open import open_search
from autoresearch.store.records.transfers import Rung, RungRun, TransferRecord, read_transfers, write_transfer
from autoresearch.types import Arm, Split

OWN = ("name", "runs", "tracking", "ideas", "experiments", "claim", "transfer_every")
"""Settings of a search that a rung has its own of."""

SEEDS = 2
"""Trainings of each commit on each rung in the course of a search."""


def make_transfer(search: Search, scales: Sequence[float], data: Sequence[str], seeds: int) -> TransferRecord:
    """Measure the kept changes on rungs, or go on with that.

    Args:
        search: An open search.
        scales: Factors of the scale of the search, each above 1.
        data: Names of other corpora, as in `data=NAME`.
        seeds: Trainings of each commit on each rung.

    Raises:
        UserError: If nothing was kept, or the task has no rule for its scale.
    """
    keeps = search.state.kept
    if not keeps:
        raise UserError(
            "Nothing was kept, so nothing can carry over.", "Search on: autoresearch run name=..."
        )
    if seeds < 2:
        raise UserError("With one seed the noise of a rung is not known.", "Give --seeds 2 or more.")
    if not scales and not data:
        raise UserError(
            "There is no rung to go to.", "For example: autoresearch transfer --scale 2 --data NAME"
        )
    rungs = [Rung("scale 1"), *(Rung(f"scale {scale:g}", scale) for scale in sorted(set(scales)))]
    rungs += [Rung(f"data {name}", data=name) for name in dict.fromkeys(data)]
    tip, earlier = keeps[-1].commit, read_transfers(search.journal)
    same = (r for r in earlier if (r.tip, r.rungs) == (tip, tuple(rungs)))
    record = next(same, None) or _plan(search, rungs, seeds, earlier)
    write_transfer(search.journal, record)
    for index, rung in enumerate(record.rungs):
        if any(run.rung == index and not run.done for run in record.runs):
            search.view.message(f"Transfer: {rung.name}.")
            record = _train(search, record, index)
    record = replace(record, finished=now())
    write_transfer(search.journal, record)
    for experiment, lines in zip(keeps, change_words(record, search.task.metric), strict=True):
        search.repository.note(experiment.commit, "\n".join(lines) + "\n")
    search.mirror.sync(search.journal)
    return record


def run_with_transfers(search: Search) -> bool:
    """Run a search; after every `transfer_every` experiments what was kept since is taken to other rungs.

    Nothing is trained for the search meanwhile. A transfer that fails is told, and the search goes on.

    Returns:
        Whether it ended by itself.
    """
    config, every = search.config, search.config.transfer_every
    while True:
        limit = None if every is None else (search.state.tried // every + 1) * every
        by_itself = search.run(limit)
        tried = search.state.tried
        if limit is None or not by_itself or tried < limit or tried >= config.experiments:
            return by_itself
        kept = search.state.kept
        known = {record.tip for record in read_transfers(search.journal) if record.finished}
        if kept and kept[-1].commit not in known:
            try:
                make_transfer(search, config.transfer_scales, config.transfer_data, SEEDS)
            except UserError as error:
                search.view.message(f"No transfer: {error}", warning=True)


def _plan(
    search: Search, rungs: Sequence[Rung], seeds: int, earlier: Sequence[TransferRecord]
) -> TransferRecord:
    keeps = search.state.kept
    first = unused_seed(search, (run.seed for r in earlier for run in r.runs))
    order = product(range(len(rungs)), range(first, first + seeds), range(len(keeps) + 1))
    runs = tuple(RungRun(rung, changes, seed) for rung, seed, changes in order)
    return TransferRecord(
        keeps[-1].commit, tuple(e.number for e in keeps), tuple(rungs), runs, search.task.scale_rule
    )


def _train(search: Search, record: TransferRecord, index: int) -> TransferRecord:
    rung, info = record.rungs[index], search.journal.info()
    commits = [info.base_commit, *(e.commit for e in search.state.kept)]
    with open_search(settings(search, rung), "quiet", proposes=False, start=info.base_commit) as there:
        files = [_scaled(there, commit, rung.scale) for commit in commits]

        def planned() -> Iterator[Training]:
            nonlocal record
            for number, run in enumerate(record.runs):
                if run.rung != index or run.done:
                    continue
                changed = files[run.changes]
                if isinstance(changed, str):
                    record = record.with_run(number, reason=changed)
                    continue
                yield Training(
                    index=number,
                    arm=Arm.AUDIT,
                    label=f"{rung.name}, {run.changes} changes",
                    experiment=0,
                    commit=commits[run.changes],
                    seed=run.seed,
                    splits=(Split.VALIDATION,),
                    items=f"losses/{number}",
                    fields={"files": changed},
                )

        for number, result in run_trainings(there, planned()):
            took = sum(end - start for _, start, end in result.phases)
            record = record.with_run(number, score=result.score, reason=result.reason)
            record = replace(record, seconds=record.seconds + took)
            write_transfer(search.journal, record)
            done = f"{rung.name}: {record.runs[number].changes} changes, seed {record.runs[number].seed}"
            said = search.task.metric.text(result.score) if result.score is not None else result.reason
            search.view.message(f"{done}: {said}")
    return record


def settings(search: Search, rung: Rung) -> list[str]:
    """The overrides of a rung: those of the search, with what the rung has its own of."""
    folder, name = search.journal.path.parent / "transfer", rung.name.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    cache = folder / "cache"
    if not cache.exists() and (ours := folder.parent.parent / "cache").is_dir():
        cache.symlink_to(ours)  # what is prepared once is prepared for all
    own = [
        f"name={search.config.name[: 60 - len(name)]}-{name}",
        f"runs={quoted(str(folder))}",
        "tracking=none",
        *search.task.scaled_budget(rung.scale),
        *([f"data={rung.data}"] if rung.data else ()),
    ]
    return replaced(search.config.overrides, own, without=OWN)


def _scaled(there: Search, commit: str, scale: float) -> dict[str, str] | str:
    """The files of a commit as the task's rule scales them; or why it cannot."""
    sources = there.state.sources(commit)
    if scale == 1.0:
        return {}
    try:
        return dict(there.task.scaled(sources, scale))
    except Refused as error:
        return str(error)
