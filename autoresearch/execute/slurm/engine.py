"""Slurm as an engine of `execute.remote`: each place is a job whose worker measures trial after trial.

So a trial does not wait in the cluster's queue. Jobs are submitted as the search begins, and again when one
ends: after `trials_per_job` trials, when its time is nearly over, or because somebody or something ended it.
Each start of a job has messages of its own. So a copy that lives on, after Slurm has given it up and queued
the job again, is neither heard nor told anything but to end.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.execute.slurm.commands import Slurm
from autoresearch.execute.slurm.jobs import LOOK, Job, Jobs
from autoresearch.execute.slurm.spool import Link, Orphan, sought
from autoresearch.execute.worker.channels import WorkerLost
from autoresearch.execute.worker.messages import Wire
from autoresearch.text import count

MARGIN = 1.25
"""A job ends if less of its time is left than this times the longest trial."""


@dataclass(frozen=True)
class Plan:
    """How many jobs there are, and what they run.

    Attributes:
        jobs: How many at a time.
        worker: The worker program and its arguments, except for the place and the folder of messages.
        trials_per_job: After how many trials a job ends; None: never for that.
        poll_seconds: Between two questions to Slurm.
        silent_seconds: After which a worker that says nothing counts as lost.
    """

    jobs: int
    worker: Sequence[str]
    trials_per_job: int | None = None
    poll_seconds: float = 10.0
    silent_seconds: float = 300.0


class SlurmEngine:
    """Implements `execute.remote.Engine`."""

    def __init__(
        self,
        slurm: Slurm,
        folder: Path,
        plan: Plan,
        attempts: Collection[str] = (),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Find the jobs of an earlier run; submits none yet.

        Args:
            slurm: The cluster.
            folder: For the jobs of one search; on a file system that every node sees.
            plan: How many jobs, and what they run.
            attempts: Of an earlier run that was killed: their results are still wanted.
            say: Tells a person something.

        Raises:
            UserError: If Slurm is not here, or refuses such jobs.
        """
        self._plan, self._say = plan, say
        self._jobs = Jobs(slurm, folder, plan.poll_seconds, say)
        self._lock = threading.RLock()
        self._spools: dict[str, _Spool] = {}
        self._spare: list[Link] = []
        self._past: list[Link] = []
        self._longest = 0.0
        self._find_links(attempts)

    def offers(self) -> Sequence[str]:
        """See `Engine`."""
        return [f"slurm:{i}" for i in range(self._plan.jobs)]

    def open(self, place: str) -> _Spool:
        """See `Engine`; waits for as long as the job waits in the queue."""
        with self._lock:
            link = self._spare.pop(0) if self._spare else None
            if link is not None:
                link.job.place = place
        if link is None:
            mine = (job for job in self._jobs.all() if job.place == place and not job.over)
            job = next(mine, None) or self._jobs.submit(place, self._line)
            link = Link(job, job.restarts)
        link = self._await(link)
        with self._lock:
            self._spools[place] = spool = _Spool(place, link, self)
        return spool

    def close(self) -> None:
        """See `Engine`."""
        for link in self._spare:
            link.tell({"kind": "close"})
        self._jobs.close()

    # For the channels

    def check(self, link: Link) -> None:
        """Check that a link leads to the newest start of a job.

        Raises:
            WorkerLost: If not; says what has become of it.
        """
        job = link.job
        if job.over or job.restarts > link.restart:
            raise job.why(link.restart)
        if job.status is not None and job.status.said.startswith("SUSPENDED"):
            link.heard = time.monotonic()
        if time.monotonic() > link.heard + self._plan.silent_seconds:
            raise WorkerLost(f"its job has said nothing for {self._plan.silent_seconds:g} s")

    def done(self, link: Link, seconds: float) -> bool:
        """Whether a job should end after a trial that took so long: no other may fit into it."""
        link.trials += 1
        self._longest = max(self._longest, seconds)
        fits = time.monotonic() + MARGIN * self._longest + self._plan.poll_seconds < link.job.ends
        return not fits or (
            self._plan.trials_per_job is not None and link.trials >= self._plan.trials_per_job
        )

    def release(self, spool: _Spool) -> None:
        """Have the worker of a place end, and its job, too, unless it is queued again."""
        with self._lock:
            link = spool.link
            if self._spools.get(spool.place) is spool:
                del self._spools[spool.place]
        link.tell({"kind": "close"})
        if not self._jobs.closed.is_set() and link.job.restarts == link.restart:
            self._jobs.end([link.job])
            self._jobs.forget(link.job)

    def adopt(self, spool: _Spool, order: Wire) -> bool:
        """Let an attempt of an earlier run serve an order, if there is one that does.

        If it runs, its job now serves the place of the order, and the job of that place serves its place.
        """
        wanted = sought(order)
        with self._lock:
            for link in [*(s.link for s in self._spools.values()), *self._spare, *self._past]:
                for orphan in link.orphans:
                    if sought(orphan.order) == wanted and _alike(link, spool.link):
                        return self._take_over(spool, link, orphan, order)
        return False

    def _take_over(self, spool: _Spool, link: Link, orphan: Orphan, order: Wire) -> bool:
        if not orphan.finished and link in self._past:
            return False
        if orphan.finished and link is not spool.link:
            spool.link.adopt(orphan, order, link)
            return True
        if link is not spool.link:
            other = next((s for s in self._spools.values() if s.link is link), None)
            if other is not None:
                other.link = spool.link
            else:
                self._spare[self._spare.index(link)] = spool.link
            link.job.place, spool.link.job.place = spool.link.job.place, link.job.place
            spool.link = link
        link.adopt(orphan, order)
        return True

    @property
    def lock(self) -> threading.RLock:
        """Held while links change places."""
        return self._lock

    # Jobs

    def _line(self, job: Job) -> str:
        command = shlex.join([*self._plan.worker, "--place", job.place, "--spool"])
        return f"exec {command} {shlex.quote(str(job.folder))}/${{SLURM_RESTART_COUNT:-0}}"

    def _await(self, link: Link) -> Link:
        """Wait until a job has started and its worker says hello."""
        begun, told = time.monotonic(), False
        while not self._jobs.closed.is_set():
            job = link.job
            if job.waits and not told and time.monotonic() > begun + self._plan.poll_seconds:
                self._say(f"A job of Slurm waits for its turn: {job.said}.")
                told = True
            if job.restarts > link.restart:
                link = Link(job, job.restarts)
            link.look()
            if link.hello is not None:
                link.heard = time.monotonic()
                job.messages(link.restart + 1)
                return link
            if job.over:
                why = job.why(link.restart)
                self._jobs.forget(job)
                self._jobs.closed.wait(self._plan.poll_seconds)  # no faster, if every job ends at once
                raise why
            self._jobs.closed.wait(LOOK)
        raise WorkerLost("the search ends")

    def _find_links(self, attempts: Collection[str]) -> None:
        """Go on with the jobs of an earlier run, and find what they have measured unheard."""
        for job in self._jobs.all():
            starts = sorted(int(path.name) for path in job.folder.iterdir() if path.name.isdigit())
            for restart in starts:
                link = Link(job, restart)
                link.recall(attempts)
                if not job.over and restart == job.restarts:
                    self._spare.append(link)
                elif restart <= job.restarts:
                    self._past.append(link)
                    link.tell({"kind": "close"})  # to a copy that Slurm has given up
        self._spare.sort(key=lambda link: not link.orphans)
        if self._spare:
            self._say(f"Going on with {count(len(self._spare), 'job')} of Slurm from before.")


def _alike(one: Link, other: Link) -> bool:
    """Whether two workers measure the same on devices of the same kind."""
    if one.hello is None or other.hello is None or one.hello["device"] != other.hello["device"]:
        return False
    first, second = one.setup or {}, other.setup or {}
    return all(first.get(key) == second.get(key) for key in ("maker", "folders", "trusted"))


class _Spool:
    """The connection with the worker of a place; implements `worker.channels.Channel`.

    Attributes:
        place: Name of the place.
        link: The messages of its job; changes if it adopts an attempt in another job.
    """

    def __init__(self, place: str, link: Link, engine: SlurmEngine) -> None:
        self.place, self.link = place, link
        self._engine = engine
        self._told: set[str] = set()
        self._begun: dict[str, float] = {}
        self._leaves = False

    def send(self, message: Wire) -> None:
        """See `Channel`."""
        with self._engine.lock:
            match message["kind"]:
                case "setup":
                    self._set_up(json.loads(json.dumps(message["setup"])))
                case "order" if not message["tryout"]:
                    self._order(message["order"])
                case _:
                    self.link.tell(message)

    def receive(self, seconds: float) -> Wire | None:
        """See `Channel`."""
        deadline = time.monotonic() + seconds
        while (message := self._next()) is None:
            try:
                self._engine.check(self.link)
            except WorkerLost:
                if (message := self._next()) is None:  # it may have ended its trial just before
                    raise
                break
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK)
        return message

    def close(self) -> None:
        """See `Channel`."""
        self._engine.release(self)

    def _set_up(self, setup: Wire) -> None:
        link = self.link
        if link.setup is None:
            link.tell({"kind": "setup", "setup": setup})
            link.setup = setup
        elif link.setup != setup:
            self._leaves = True  # other settings: once it has ended what is wanted of it, it is replaced

    def _order(self, order: Wire) -> None:
        # The fence of a killed run would end its attempts; here each start of a job has its own messages.
        order = {**order, "fence": ""}
        self._begun[order["attempt"]] = time.monotonic()
        if self._engine.adopt(self, order):
            return
        self.link.give_up_orphans()
        if self._leaves:
            del self._begun[order["attempt"]]
        else:
            self.link.tell({"kind": "order", "order": order, "tryout": False})

    def _next(self) -> Wire | None:
        with self._engine.lock:
            link = self.link
            for kind, first in (("hello", link.hello), ("ready", link.ready)):
                if first is not None and kind not in self._told:
                    self._told.add(kind)
                    return first
            if self._leaves and not self._begun and not any(not o.finished for o in link.orphans):
                raise WorkerLost("", interrupted=True)
            message = link.listen()
            if message is not None and message["kind"] == "finished":
                begun = self._begun.pop(message["attempt"], None)
                if begun is not None:
                    self._leaves |= self._engine.done(link, time.monotonic() - begun)
            return message
