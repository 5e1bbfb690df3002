"""Tasks: each says what is improved, how a candidate is measured, and who computes the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoresearch.registry import Registry

if TYPE_CHECKING:
    from autoresearch.config import Config
    from autoresearch.tasks.base import Task

BUILT_IN = {
    "nanomodel": "autoresearch.tasks.gpt.task:GptTask",
    "command": "autoresearch.tasks.command.task:CommandTask",
    "kernel": "autoresearch.tasks.kernel.task:KernelTask",
    "brief": "autoresearch.tasks.brief.task:BriefTask",
}
TASKS = Registry("task", BUILT_IN)


def create_task(config: Config) -> Task:
    """The task that `task.name` names, set up by the configuration.

    Raises:
        UserError: If there is no such task, or if the task does not accept a value of the configuration.
    """
    task: Task = TASKS.load(str(config.task.get("name")))(config)
    return task
