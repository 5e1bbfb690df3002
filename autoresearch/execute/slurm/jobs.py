"""The jobs of one search: submitted, asked after, ended.

A job is known by its name, and has a folder of that name, made before the job is submitted. Names and folders
outlive the runner, so that the next one finds its jobs.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.execute.slurm.commands import OVER, Slurm, State, Status, Unanswered
from autoresearch.execute.worker.channels import WorkerLost
from autoresearch.store.files import remove_tree

LOOK = 0.1
"""Seconds between two looks while something is awaited."""
END_SECONDS = 5.0
"""Seconds that a job has to end by itself before it is cancelled, and then to be gone."""
LOG_CHARACTERS = 600
"""How much of the end of what a failed job printed is told."""


@dataclass(eq=False)
class Job:
    """A job, as the search knows it.

    Attributes:
        folder: Holds a folder of messages for each start of the job, and what it prints.
        place: The place that it is for; empty if it has none.
        status: What Slurm said last; None before it has said anything.
        missed: How often in a row Slurm did not know of it.
        ends: When its time is over, by the monotonic clock.
    """

    folder: Path
    place: str = ""
    status: Status | None = None
    missed: int = 0
    ends: float = float("inf")

    @property
    def name(self) -> str:
        """By which Slurm knows it."""
        return self.folder.name

    @property
    def restarts(self) -> int:
        """How often it has been queued again."""
        return self.status.restarts if self.status else 0

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return self.missed > 1 or (self.status is not None and self.status.state in OVER)

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.status is not None and self.status.state is State.WAITING

    @property
    def said(self) -> str:
        """What Slurm calls it, and says of it."""
        return f"job {self.status.number} ({self.status.said})" if self.status else "its job"

    def messages(self, restart: int) -> Path:
        """The folder of messages of one start; made early, for NFS may hide a new one for a while."""
        folder = self.folder / str(restart)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def note(self, status: Status | None) -> None:
        """Take note of what Slurm says; None if it does not know of the job."""
        if status is not None:
            self.status, self.missed, self.ends = status, 0, time.monotonic() + status.left
        elif self.status is not None:
            self.missed += 1

    def why(self, restart: int) -> WorkerLost:
        """What has become of its start of this number, which does not run any longer."""
        status, said = self.status, self.said
        if self.restarts > restart:
            return WorkerLost(f"{said} was queued again by Slurm", interrupted=True)
        if status is None or status.state is State.ENDED or self.missed:
            log = self.folder / "log"
            printed = log.read_text(errors="replace")[-LOG_CHARACTERS:].strip() if log.exists() else ""
            return WorkerLost(f"{said} ended; it printed: {printed or 'nothing'}")
        if status.state is State.TIMEOUT:
            return WorkerLost(f"{said} was over before its trial: raise executor.time")
        by = "cancelled from outside the search" if status.state is State.CANCELLED else "ended by Slurm"
        return WorkerLost(f"{said} was {by}", interrupted=True)


class Jobs:
    """All jobs of one search.

    Attributes:
        closed: Set once no further job is wanted.
    """

    def __init__(self, slurm: Slurm, folder: Path, poll_seconds: float, say: Callable[[str], None]) -> None:
        """Find those of an earlier run.

        Args:
            slurm: The cluster.
            folder: For the folders of the jobs; on a file system that every node sees.
            poll_seconds: Between two questions to Slurm.
            say: Tells a person something.

        Raises:
            UserError: If Slurm does not answer.
        """
        self.closed = threading.Event()
        self._slurm, self._folder, self._pause, self._say = slurm, folder.resolve(), poll_seconds, say
        self._lock = threading.Lock()
        slurm.check()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # other users of the cluster neither see nor say anything
        self._jobs = [Job(path) for path in sorted(self._folder.iterdir()) if path.is_dir()]
        try:
            self.ask(self._jobs)
        except Unanswered as error:
            raise UserError(f"Slurm does not answer: {error}.", "The same command goes on.", code=3) from None
        for job in self._jobs:
            job.missed = 2 if job.status is None else 0
        self._poller = threading.Thread(target=self._poll, name="slurm", daemon=True)
        self._poller.start()

    def all(self) -> list[Job]:
        """Those that are known, whether they run or not."""
        with self._lock:
            return list(self._jobs)

    def submit(self, place: str, line: Callable[[Job], str]) -> Job:
        """Submit a job; waits for as long as Slurm does not answer.

        Args:
            place: The place that it is for.
            line: What it runs, for the shell.

        Raises:
            UserError: If Slurm refuses it.
            WorkerLost: If no job is wanted any longer.
        """
        job = Job(self._folder / f"autoresearch-{self._folder.parent.name}-{uuid.uuid4().hex[:8]}", place)
        job.messages(0)
        with self._lock:
            self._jobs.append(job)
        told = False
        while not self.closed.is_set():
            try:
                number = self._slurm.submit(job.name, line(job), job.folder / "log")
                job.status = job.status or Status(number, State.WAITING, said="PENDING")
                return job
            except Unanswered as error:
                if not told:
                    self._say(f"Slurm does not answer ({error}). The search waits for it.")
                told = True
            except UserError:
                self.forget(job)
                raise
            self.closed.wait(self._pause)
            with self._lock:
                if job.status is not None:
                    return job  # the answer was lost, the job was not
        raise WorkerLost("the search ends")

    def end(self, jobs: Sequence[Job]) -> None:
        """Wait until jobs have ended by themselves; those that have not after a while are cancelled."""
        begun, waiting, answered = time.monotonic(), list(jobs), False
        while waiting and time.monotonic() < begun + 2 * END_SECONDS:
            late = time.monotonic() > begun + END_SECONDS
            try:
                self.ask(waiting)  # a restarted controller may have queued again what had ended
                waiting = [job for job in waiting if not job.over]
                self._slurm.cancel(job.status.number for job in waiting if job.status and (late or job.waits))
                answered = True
            except Unanswered:
                answered = False
            time.sleep(LOOK)
        if waiting and not answered:
            left = ", ".join(job.status.number for job in waiting if job.status)
            self._say(f"Slurm does not answer. Its jobs end by themselves, or: scancel {left}")

    def forget(self, job: Job) -> None:
        """Remove a job that is over, and its folder."""
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
        remove_tree(job.folder)

    def close(self) -> None:
        """End all jobs, and remove all folders."""
        self.closed.set()
        self._poller.join()
        self.end(self.all())
        remove_tree(self._folder)

    def ask(self, jobs: Sequence[Job]) -> None:
        """Ask Slurm what has become of jobs.

        Raises:
            Unanswered: If it does not answer.
        """
        found = self._slurm.jobs(job.name for job in jobs)
        for job in jobs:
            job.note(found.get(job.name))

    def _poll(self) -> None:
        """Ask Slurm now and then."""
        unanswered = 0
        while not self.closed.wait(self._pause):
            try:
                self.ask([job for job in self.all() if not job.over])
                unanswered = 0
            except Unanswered as error:
                unanswered += 1
                if unanswered == 3:
                    self._say(f"Slurm does not answer ({error}). Trials that run go on.")
            except (UserError, ValueError) as error:  # it may answer otherwise the next time
                self._say(f"Slurm cannot be asked after jobs: {error}")
