"""The executor `slurm`: what a configuration says, as jobs and workers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from autoresearch.config import Executor as ExecutorOptions
from autoresearch.config import Options, parse
from autoresearch.execute.local import Export
from autoresearch.execute.remote import RemoteExecutor
from autoresearch.execute.slurm.commands import Slurm
from autoresearch.execute.slurm.engine import Plan, SlurmEngine
from autoresearch.execute.worker.fence import left_open
from autoresearch.execute.worker.messages import Setup

NAMED = ("partition", "account", "time", "gres")
"""Options of sbatch that have keys of their own."""


class SlurmOptions(Options):
    """What configs/executor/slurm.yaml has beside the options of every executor."""

    trials_per_job: int | None = Field(ge=1)
    partition: str | None
    account: str | None
    time: str | None
    gres: str | None
    options: dict[str, str | int | float]
    poll_seconds: float = Field(gt=0)
    lease_seconds: float = Field(ge=10)
    cache: Path


class SlurmExecutor(RemoteExecutor):
    """Runs trials in jobs of a Slurm cluster; see `autoresearch.execute.base.Executor`."""

    remote = True

    def __init__(
        self,
        setup: Setup,
        options: ExecutorOptions,
        runs: Path,
        export: Export,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Submit jobs, or go on with those of a run that was killed; places come as the jobs start.

        Args:
            setup: What each worker makes its measurer of.
            options: The group `executor`.
            runs: The folder that holds the folders of the searches; every node sees it.
            export: Writes the tree of a candidate.
            say: Tells a person something.

        Raises:
            UserError: If Slurm is not here, or refuses the jobs.
        """
        given = self.check(options)
        home = runs / setup.search
        device = "cuda:0" if options.device == "cuda" else "cpu"
        worker = [sys.executable, "-m", "autoresearch.execute.worker", "--device", device]
        worker += ["--cache", str(given.cache), "--lease", f"{given.lease_seconds:g}"]
        plan = Plan(options.workers or 1, worker, given.trials_per_job, given.poll_seconds)
        slurm = Slurm(sbatch_options(given, options.threads or 1))
        engine = SlurmEngine(slurm, home / "jobs", plan, left_open(home), say)
        super().__init__(setup, engine, runs, export, start_seconds=None, say=say)

    @staticmethod
    def check(options: ExecutorOptions) -> SlurmOptions:
        """Check the options that are Slurm's own.

        Raises:
            UserError: If one is wrong.
        """
        return parse(SlurmOptions, options.model_extra or {}, "executor")


def sbatch_options(given: SlurmOptions, threads: int) -> dict[str, str]:
    """Options of sbatch, in full: name without dashes -> value."""
    named = {name: str(value) for name in NAMED if (value := getattr(given, name)) is not None}
    further = {name.lstrip("-"): str(value) for name, value in given.options.items()}
    return {"cpus-per-task": str(threads), **named, **further}
