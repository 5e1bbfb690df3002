"""Slurm's commands: submits jobs, lists them, cancels them.

Plain `sbatch`, `squeue` and `scancel`, no library: submitit needs `srun` and accounting, polls late, and
pickles functions, while a job here runs one program that reads and writes files (docs/clusters.md). A job is
known by its name, which is chosen before it is submitted: so it is found again, whatever becomes of the
answer of `sbatch`. Not covered: what a job does (`job`), and which jobs there should be (`executor`).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from pathlib import Path

from autoresearch.errors import UserError

ANSWER_SECONDS = 60.0
"""Seconds after which a command that is silent counts as unanswered."""

PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
"""What a job gets of our environment, besides what is Slurm's: never a key of a model or a store."""

UNANSWERED = ("contact slurm controller", "timed out", "communication", "connection", "retry", "try again")
"""Words of errors that pass: the controller restarts, or is busy."""


class State(Enum):
    """What has become of a job, as far as the search must know."""

    WAITING = auto()
    """It is queued, or queued again."""
    RUNNING = auto()
    """Its program runs, or is being started or ended."""
    CANCELLED = auto()
    """Somebody cancelled it."""
    LOST = auto()
    """The cluster ended it: its node failed, or something else was more important."""
    TIMEOUT = auto()
    """Its time was over."""
    ENDED = auto()
    """Its program ended."""


STATES = {
    "PENDING": State.WAITING,
    "REQUEUED": State.WAITING,
    "REQUEUE_HOLD": State.WAITING,
    "REQUEUE_FED": State.WAITING,
    "SPECIAL_EXIT": State.WAITING,
    "RESV_DEL_HOLD": State.WAITING,
    "CANCELLED": State.CANCELLED,
    "REVOKED": State.CANCELLED,
    "NODE_FAIL": State.LOST,
    "PREEMPTED": State.LOST,
    "BOOT_FAIL": State.LOST,
    "LAUNCH_FAILED": State.LOST,
    "TIMEOUT": State.TIMEOUT,
    "DEADLINE": State.TIMEOUT,
    "COMPLETED": State.ENDED,
    "FAILED": State.ENDED,
    "OUT_OF_MEMORY": State.ENDED,
}
"""Slurm's words -> ours; every other state is one of a job that runs."""

OVER = (State.CANCELLED, State.LOST, State.TIMEOUT, State.ENDED)
"""States of jobs that are over, and stay so."""


@dataclass(frozen=True)
class Status:
    """What Slurm says of a job.

    Attributes:
        number: Slurm's.
        state: What has become of it.
        restarts: How often it was queued again.
        node: Where it runs, or ran last; empty before.
        said: Slurm's own words for its state, and for why it waits.
        left: Seconds until its time is over; infinite if it has no limit.
    """

    number: str
    state: State
    restarts: int = 0
    node: str = ""
    said: str = ""
    left: float = inf


class Unanswered(Exception):
    """Slurm's controller does not answer now."""


@dataclass(frozen=True)
class Slurm:
    """The cluster of this machine's Slurm commands.

    Attributes:
        options: Of every `sbatch`, without dashes: name -> value; an empty value for a flag.
    """

    options: Mapping[str, str]

    def submit(self, name: str, line: str, log: Path) -> str:
        """Submit a job that may be queued again; returns its number.

        Args:
            name: Of the job.
            line: For the shell; its last command becomes the job's program.
            log: File for what the job prints.

        Raises:
            Unanswered: If Slurm does not answer. The job may have been submitted all the same.
            UserError: If Slurm refuses it.
        """
        given = self._options({"job-name": name, "output": str(log), "parsable": ""})
        return _run(["sbatch", *given, f"--wrap={line}"]).strip().partition(";")[0]

    def check(self) -> None:
        """Check that Slurm's commands are here, and that it would take such jobs.

        Raises:
            UserError: If not.
        """
        try:
            _run(["sbatch", *self._options({"test-only": ""}), "--wrap=true"])
        except Unanswered as error:
            raise UserError(
                f"Slurm does not answer: {error}.", "Try it: squeue. See docs/clusters.md.", code=3
            ) from None

    def jobs(self, names: Iterable[str]) -> dict[str, Status]:
        """The jobs with these names that Slurm still knows of: those that ended, for some minutes.

        Raises:
            Unanswered: If Slurm does not answer.
        """
        wanted = ",".join(names)
        if not wanted:
            return {}
        fields = "Name:|,JobID:|,State:|,RestartCnt:|,NodeList:|,Reason:|,TimeLeft:|"
        said = _run(["squeue", "--noheader", "--states=all", f"--name={wanted}", f"--Format={fields}"])
        found = {}
        for line in said.splitlines():
            name, number, state, restarts, node, reason, left, *_ = line.split("|")
            words = state if reason in ("", "None") else f"{state}, {reason}"
            known = STATES.get(state, State.RUNNING)
            if reason == "JobLaunchFailure":  # the node could not start it
                known = State.LOST
            found[name] = Status(number, known, int(restarts or 0), node, words, seconds(left))
        return found

    def cancel(self, numbers: Iterable[str]) -> None:
        """Cancel jobs; those that are over already, too.

        Raises:
            Unanswered: If Slurm does not answer.
        """
        if wanted := list(numbers):
            _run(["scancel", "--quiet", *wanted])

    def _options(self, ours: Mapping[str, str]) -> list[str]:
        # The user's options may say otherwise, except of what we must know.
        chosen = {
            "requeue": "",
            "open-mode": "append",
            "ntasks": "1",
            **self.options,
            "export": "ALL",
            **ours,
        }
        return [f"--{key}={value}" if value else f"--{key}" for key, value in chosen.items()]


def seconds(text: str) -> float:
    """What Slurm means by "1-02:03:04", "02:03:04" or "03:04"; infinite for a word."""
    days, _, rest = text.strip().rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in (*parts, days or "0")):
        return inf
    whole = 0
    for part in parts:
        whole = 60 * whole + int(part)
    return 86400.0 * int(days or 0) + whole


def environment() -> dict[str, str]:
    """What commands, and so jobs, get of our environment."""
    kept = ("SLURM_CONF", "SBATCH_", "LC_")  # not what a job sees that this search may itself run in
    return {k: v for k, v in os.environ.items() if k in PASSED_ON or k.startswith(kept)}


def _run(command: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        Unanswered: If the controller does not answer.
        UserError: If the command is not here, or fails for another reason.
    """
    try:
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unanswered(f"{command[0]} has been silent for {ANSWER_SECONDS:g} s") from None
    except OSError as error:
        raise UserError(
            f"{command[0]} cannot be run: {error.strerror}.",
            "executor=slurm needs Slurm's commands: start the search on a login node of the cluster.",
            code=3,
        ) from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip().replace("\n", " ") or f"it ended with {done.returncode}"
    if any(words in said.lower() for words in UNANSWERED):
        raise Unanswered(said)
    raise UserError(
        f"{command[0]} failed: {said}",
        "See what it says by hand; executor.options holds the options of sbatch.",
        code=3,
    )
