"""Mirrors the journal in MLflow, at its own pace: the search never waits for it, and never fails by it.

Owns the outbox: an experiment leaves the journal's list of changes only when MLflow shows it as it is now.
What a dead server, a full disk or a kill prevents stays on the list and is done later; a store that was
deleted or replaced is filled again from the beginning. Writing happens in a thread that never touches the
journal: `sync` hands it a snapshot and collects what the last one achieved. Not covered: the values written
(`runs`) and how they are written (`store`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.report.standing import staircase
from autoresearch.report.summary import summarize
from autoresearch.text import one_line, scrub
from autoresearch.tracking.outbox import Job, Outbox, Snapshot, run_key, snapshot
from autoresearch.tracking.runs import experiment_run, identity, search_id, search_run
from autoresearch.tracking.traces import Traces, conversations
from autoresearch.tracking.ui import saved_view
from autoresearch.types import Experiment

if TYPE_CHECKING:
    from autoresearch.tracking.store import Store
    from autoresearch.tracking.traces import Calls

EXPERIMENT_KEY = "mlflow.experiment"
"""The journal's note of the id of the MLflow experiment, for `views.ui`."""
PAUSES = (5.0, 30.0, 120.0, 300.0)
"""Seconds without an attempt after one, two, ... failures in a row; the last one repeats."""

PATIENCE = 5.0
"""Seconds that a commit waits for the name of its run, while MLflow answers."""
NEW_PATIENCE = 60.0
"""The same while a local store is being made: on a busy machine that may outlast the first experiment."""


class Mirror:
    """Shows a search in MLflow: a parent run, and nested in it a run an experiment.

    Attributes:
        problem: Why the last attempt did not bring MLflow up to date, in one line; None if it did.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        uri: str | None,
        experiment: str,
        folder: Path,
        sources: Callable[[str], Mapping[str, str]],
        calls: Calls | None = None,
    ) -> None:
        """Prepare; nothing is opened or imported yet.

        Args:
            enabled: False: do nothing, and leave MLflow alone.
            uri: Tracking URI; None is an SQLite file in `folder`.
            experiment: Name of the MLflow experiment that gathers all searches.
            folder: Of the local store.
            sources: The editable files at a commit; called from another thread.
            calls: The calls of language models, to be shown as traces; None: there are none.
        """
        self.problem: str | None = None
        self._enabled = enabled
        self._uri = uri
        self._experiment = experiment
        self._folder = folder
        self._sources = sources
        self._traces = None if calls is None else Traces(calls)
        self._store: Store | None = None
        self._opened = 0
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._failures = 0
        self._written = False
        self._not_before = 0.0

    def run_id(self, journal: Outbox, number: int) -> str | None:
        """The MLflow run that shows an experiment; waits a while for one that is being written.

        Args:
            journal: As for `sync`.
            number: Of the experiment.
        """
        if not self._enabled:
            return None
        new = self._uri is None and not self._written
        deadline = time.monotonic() + (NEW_PATIENCE if new else PATIENCE)
        for _ in range(2):  # what is being written may have begun before the experiment did
            self._collect(journal)
            if journal.get(run_key(number)) or self._failures:
                break
            self.sync(journal)
            if not self._wait(deadline):
                break
        self._collect(journal)
        return journal.get(run_key(number))

    def sync(self, journal: Outbox) -> None:
        """Begin to write what changed, unless that is being done. Returns at once; MLflow cannot fail it."""
        if not self._enabled:
            return
        self._collect(journal)
        if self._thread is None and time.monotonic() >= self._not_before and journal.dirty():
            self._start(snapshot(journal))

    def close(self, journal: Outbox, files: Sequence[Path] = (), seconds: float = 60.0) -> str | None:
        """Write all that is left, and add files to the search's run.

        Args:
            journal: As for `sync`.
            files: For example the report.
            seconds: Give up after this long.

        Returns:
            Why MLflow is not up to date, in one line; None if it is.
        """
        if not self._enabled:
            return None
        deadline = time.monotonic() + seconds
        for _ in range(3):  # what was being written; what is left; what has changed meanwhile
            if not self._wait(deadline):
                self._stop.set()
                self.problem = f"MLflow did not finish within {seconds:g} s"
                break
            self._collect(journal)
            self._start(snapshot(journal, tuple(files)))
            if self._wait(deadline):
                self._collect(journal)
                if self._failures or not journal.dirty():
                    break
        return self.problem

    # In the search's thread

    def _wait(self, deadline: float) -> bool:
        """Let the thread end; whether it did in time."""
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return self._thread is None or not self._thread.is_alive()

    def _start(self, job: Job) -> None:
        self._stop.clear()
        self._job = job
        self._thread = threading.Thread(target=self._work, args=(job,), name="mlflow mirror", daemon=True)
        self._thread.start()

    def _collect(self, journal: Outbox) -> None:
        """Bring what a finished thread achieved into the journal."""
        if self._thread is None or self._thread.is_alive() or self._job is None:
            return
        job, self._job, self._thread = self._job, None, None
        before = {e.number: e for e in job.experiments}
        for number, run in job.written.items():
            if (known := journal.get(run_key(number))) and known != run:
                journal.set(f"{run_key(number)}.was", known)
            journal.set(run_key(number), run)
            # Changed while it was being written? Then it stays on the list. (As text: a loss may be NaN.)
            if repr(journal.experiment(number)) == repr(before[number]):
                journal.mirrored(number)
        if job.parent is not None and job.experiment_id is not None:
            journal.set(run_key(None), job.parent)
            journal.set(EXPERIMENT_KEY, job.experiment_id)
        self.problem = job.problem
        self._failures = self._failures + 1 if job.problem else 0
        self._written |= not job.problem
        pause = PAUSES[min(self._failures, len(PAUSES)) - 1] if self._failures else 0.0
        self._not_before = time.monotonic() + pause

    # In the mirror's thread

    def _work(self, job: Job) -> None:
        try:
            self._write(job)
        except Exception as error:
            job.problem = self._explain(error)

    def _write(self, job: Job) -> None:
        store = self._open()
        ours = identity(job.info, None)
        summary = summarize(Snapshot(job))
        found = store.find(ours)
        fresh = found is None or found.info.run_id != job.known_parent
        # A store that does not know us has lost everything, not only what changed.
        numbers = {e.number for e in job.experiments} if fresh else set(job.numbers)
        moments = [m for m in staircase(job.experiments) if m.experiment.number in numbers]
        job.parent = store.write(search_run(job.info, summary, moments), ours)
        job.experiment_id = store.experiment_id
        store.add_dataset(job.parent, job.info.data)
        store.tag_experiment(*saved_view(job.info))
        column = 0 if job.info.device.startswith("cpu") else 1
        for e in job.experiments:
            if e.number not in numbers:
                continue
            if self._stop.is_set():
                return
            try:
                run = experiment_run(job.info, e, self._sources_of(e), column)
                run_id = store.write(run, identity(job.info, e.number), job.parent)
                store.add_dataset(run_id, job.info.data)
                if self._traces is not None:
                    self._traces.write(store, search_id(job.info), run_id, conversations(e))
                job.written[e.number] = run_id
            except Exception as error:
                job.problem = self._explain(error)
                if not store.answers():
                    return
        store.add_files(job.parent, job.files)
        if self._traces is not None:
            ended = job.info.finished is not None
            self._traces.write_rest(store, search_id(job.info), job.parent, job.experiments, ended=ended)
            job.problem = job.problem or self._traces.problem

    def _open(self) -> Store:
        from autoresearch.tracking.store import Store, local_uri

        if self._store is not None and self._store.gone():
            self._store = None
        if self._store is None:
            folder = self._folder.resolve()
            # MLflow keeps connections by the text of the URI. After a file was deleted, another spelling
            # of the same path makes it look again.
            uri = self._uri or local_uri(folder).replace("/mlflow.db", "/." * self._opened + "/mlflow.db")
            self._opened += 1
            self._store = Store(uri, self._experiment, None if self._uri else folder / "artifacts")
        return self._store

    def _sources_of(self, e: Experiment) -> Mapping[str, str]:
        try:
            return self._sources(e.commit) if e.commit else {}
        except Exception:
            return {}  # the files are shown for convenience; git has them

    def _explain(self, error: Exception) -> str:
        where = scrub(self._uri or "the local store")
        return (
            f"MLflow ({where}) is not up to date: {one_line(scrub(str(error)) or type(error).__name__, 160)}"
        )
