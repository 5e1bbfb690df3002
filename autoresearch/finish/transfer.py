"""Measures the kept changes of a search on a ladder of larger scales, with other budgets, and on other data.

A rung is a search of its own without proposals, in `runs/<name>/transfer/`: the same start, the settings of
the search with a larger budget or other data, and files that the task has scaled by its declared rule. On
each rung the start and the tip after every kept change are trained on common fresh seeds. The plan is in
the journal of the search before anything starts, so a transfer that was killed goes on. Nothing of it steers
the search. If asked, Optuna first looks on each rung for a factor of all learning rates: each of its trials
trains start and tip with the same one, on a seed of its own, so neither of them is favoured.
Not covered: the statistics (`judge.finished.transfer`).
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

RATES = (1 / 3, 3.0)
"""Between these a factor of the learning rates is looked for."""


def make_transfer(
    search: Search,
    scales: Sequence[float],
    data: Sequence[str],
    seeds: int,
    budgets: Sequence[float] = (),
    retune: int = 0,
) -> TransferRecord:
    """Measure the kept changes on rungs, or go on with that.

    Args:
        search: An open search.
        scales: Factors of the scale of the search, each above 1.
        data: Names of other corpora, as in `data=NAME`.
        seeds: Trainings of each commit on each rung.
        budgets: Factors of the budget alone.
        retune: Factors of the learning rates to try on each rung but the first.

    Raises:
        UserError: If nothing was kept, or there is no rung.
    """
    keeps = search.state.kept
    if not keeps:
        raise UserError(
            "Nothing was kept, so nothing can carry over.", "Search on: autoresearch run name=..."
        )
    if seeds < 2:
        raise UserError("With one seed the noise of a rung is not known.", "Give --seeds 2 or more.")
    if not scales and not data and not budgets:
        raise UserError(
            "There is no rung to go to.", "For example: autoresearch transfer --scale 2 --data NAME"
        )
    rungs = [Rung("scale 1"), *(Rung(f"scale {scale:g}", scale) for scale in sorted(set(scales)))]
    rungs += [Rung(f"budget {factor:g}", budget=factor) for factor in sorted(set(budgets) - {1.0})]
    rungs += [Rung(f"data {name}", data=name) for name in dict.fromkeys(data)]
    earlier = read_transfers(search.journal)
    new = _plan(search, rungs, seeds, retune, earlier)
    record = next((r for r in earlier if r.key == new.key), new)
    write_transfer(search.journal, record)
    for index, rung in enumerate(record.rungs):
        if not all(run.done for run in record.runs if run.rung == index):
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
    search: Search, rungs: Sequence[Rung], seeds: int, retune: int, earlier: Sequence[TransferRecord]
) -> TransferRecord:
    keeps = search.state.kept
    first = unused_seed(search, (run.seed for r in earlier for run in r.runs))
    order = product(range(len(rungs)), range(first, first + seeds), range(len(keeps) + 1))
    runs = tuple(RungRun(rung, changes, seed) for rung, seed, changes in order)
    numbers, rule = tuple(e.number for e in keeps), search.task.scale_rule
    return TransferRecord(keeps[-1].commit, numbers, tuple(rungs), runs, rule, retune=retune)


def _train(search: Search, record: TransferRecord, index: int) -> TransferRecord:
    """Train what a rung lacks, after its learning rates are tuned."""
    start, metric = search.journal.info().base_commit, search.task.metric
    with open_search(settings(search, record.rungs[index]), "quiet", proposes=False, start=start) as there:
        record = _run(search, there, record, index, tunes=True)  # what was under way when it was killed
        while index and len(tried := record.tuned(index, metric)) < record.retune:
            rates, seed = _next_rates(tried), max(run.seed for run in record.runs if not run.tunes) + 1
            ends = (RungRun(index, n, seed, rates=rates, tunes=True) for n in (0, len(record.keeps)))
            record = replace(record, runs=(*record.runs, *ends))
            write_transfer(search.journal, record)
            record = _run(search, there, record, index, tunes=True)
        return _run(search, there, record, index, tunes=False)


def _run(search: Search, there: Search, record: TransferRecord, index: int, tunes: bool) -> TransferRecord:
    """Run the trainings of a rung that have not ended, of those that tune or of the others."""
    rung, metric = record.rungs[index], search.task.metric
    commits = [search.journal.info().base_commit, *(e.commit for e in search.state.kept)]
    best = record.rates(index, metric)
    wanted = [n for n, r in enumerate(record.runs) if r.rung == index and r.tunes is tunes and not r.done]
    if not wanted:
        return record

    def planned() -> Iterator[Training]:
        nonlocal record
        for number in wanted:
            run = record.runs[number]
            rates = run.rates if tunes else best
            changed = _scaled(there, commits[run.changes], rung.scale, rates)
            if isinstance(changed, str):
                record = record.with_run(number, reason=changed)
                continue
            record = record.with_run(number, rates=rates)
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
        run = record.runs[number]
        done = f"{rung.name}: {run.changes} changes, seed {run.seed}"
        done += f", learning rates times {run.rates:.3g}" if run.rates != 1.0 else ""
        said = metric.text(result.score) if result.score is not None else result.reason
        search.view.message(f"{done}: {said}")
    return record


def _next_rates(tried: Sequence[tuple[float, float | None]]) -> float:
    """The next factor of the learning rates: 1 first, then what Optuna suggests after what was tried."""
    if not tried:
        return 1.0
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = optuna.distributions.FloatDistribution(*RATES, log=True)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=len(tried), n_startup_trials=3))
    for rates, loss in tried:
        state = optuna.trial.TrialState.FAIL if loss is None else optuna.trial.TrialState.COMPLETE
        known = optuna.trial.create_trial(
            params={"rates": rates}, distributions={"rates": space}, value=loss, state=state
        )
        study.add_trial(known)
    return float(study.ask({"rates": space}).params["rates"])


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
        *search.task.scaled_budget(rung.scale * rung.budget),
        *([f"data={rung.data}"] if rung.data else ()),
    ]
    return replaced(search.config.overrides, own, without=OWN)


def _scaled(there: Search, commit: str, scale: float, rates: float) -> dict[str, str] | str:
    """The files of a commit as the task's rule scales them; or why it cannot."""
    sources = there.state.sources(commit)
    if scale == rates == 1.0:
        return {}
    try:
        if rates == 1.0:  # a task of others may not know of rates
            return dict(there.task.scaled(sources, scale))
        return dict(there.task.scaled(sources, scale, rates))
    except Refused as error:
        return str(error)
