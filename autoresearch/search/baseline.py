"""Trains the starting script with several seeds: the first incumbent, and the noise that the judge knows."""

from __future__ import annotations

from typing import NoReturn

from autoresearch.errors import UserError
from autoresearch.execute.output import MEMORY
from autoresearch.judge import TrialRequest
from autoresearch.search.observers import View
from autoresearch.search.scheduler import Scheduler
from autoresearch.search.scores import ScoreJudge
from autoresearch.search.setup.create import earlier_judge
from autoresearch.search.state import SearchState
from autoresearch.search.trials import TrialRules
from autoresearch.store.files import document_losses, losses_folder
from autoresearch.tasks.base import Task
from autoresearch.types import Arm, Measurement

FREE_MEMORY = (
    "What else uses the memory? Stop that, run fewer trials at a time (executor.workers=1), or commit a "
    "smaller starting script."
)


class OutOfMemory(UserError):
    """The starting script needs more memory than there is; a smaller budget profile may need less."""


def train_baseline(state: SearchState, scheduler: Scheduler, rules: TrialRules, view: View) -> ScoreJudge:
    """Train what is missing of the baseline, and make the judge, or take the recorded one.

    Args:
        state: Of the search.
        scheduler: Runs the trials.
        rules: Are told once the baseline is whole: it limits the time of every further trial.
        view: Shows the trials.

    Raises:
        UserError: If the starting script does not train, or its device is gone.
    """
    _train_missing(state, scheduler, view)
    rules.limit_time()
    if recorded := state.journal.judge_state():
        return ScoreJudge.from_json(recorded, state.task.metric)
    judge = _create_judge(state, view)
    state.journal.set("judge", judge.to_json())
    return judge


def _train_missing(state: SearchState, scheduler: Scheduler, view: View) -> None:
    """Train the starting script with each seed that has no score yet."""
    journal, devices = state.journal, state.devices
    commit, trained = journal.info().base_commit, _trained(state)
    missing = [seed for seed in _seeds(state) if seed not in trained]
    starts = (scheduler.start(0, TrialRequest(Arm.BASELINE, seed), commit) for seed in missing)
    for ended in scheduler.run_all(starts):
        if not devices.runs_as(ended.result, ""):
            journal.cancelled([ended.trial.id])
            raise UserError(
                f"The baseline began on {devices.first}, and there is no such device any more.",
                "The same command goes on once there is one.",
                code=3,
            )
        view.trial(journal.finish_trial(ended.trial, ended.result))
        if ended.result.score is None:
            _refuse(state.task, ended.result)


def _refuse(task: Task, result: Measurement) -> NoReturn:
    """Say why a search cannot begin: a trial of its starting script failed."""
    short = result.reason.startswith(MEMORY)
    killed = result.reason.startswith(f"{MEMORY}, or")  # perhaps by a person
    raise (OutOfMemory if short and not killed else UserError)(
        f"The starting script does not get through a trial: {result.reason}",
        f"{FREE_MEMORY if short else f'Try it: {task.by_hand}.'} It ended with:\n{result.log[-2000:]}",
        code=3,
    )


def _create_judge(state: SearchState, view: View) -> ScoreJudge:
    """A judge that knows the noise of the baseline, and what an earlier search of the task found of it."""
    journal, task = state.journal, state.task
    trained = _trained(state)
    runs = {seed: trained[seed][1] for seed in _seeds(state)}  # in order, whatever was lost
    folder = journal.path.parent
    documents = {seed: document_losses(losses_folder(folder, trained[seed][0])) for seed in runs}
    steady = task.deterministic  # a faster machine trains the same
    judge = ScoreJudge.create(task.metric, runs, state.config.judge, documents, steady=steady)
    name, earlier = earlier_judge(journal) if state.config.earlier_noise else ("", "")
    if earlier and judge.learn_from(earlier):
        view.message(f"What the search {name} found of the noise is the prior of this one.")
    return judge


def _seeds(state: SearchState) -> list[int]:
    return [state.first_seed + i for i in range(state.config.baselines)]


def _trained(state: SearchState) -> dict[int, tuple[int, float]]:
    """Seed -> number of its trial of the baseline, and the score."""
    return {t.seed: (t.id, t.score) for t in state.journal.experiment(0).trials if t.score is not None}
