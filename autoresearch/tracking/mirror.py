"""Mirrors the journal in MLflow, at its own pace: the search never waits for it, and never fails by it.

An experiment leaves the journal's list of changes only when MLflow shows it as it is now. What a dead server,
a full disk or a kill prevents stays on the list and is written later; a store that was deleted or replaced is
filled again from the beginning. A thread does the writing and never touches the journal: `sync` hands it a
snapshot, and takes over what the last one achieved. Not covered: the values written (`runs`, `experiments`)
and how they are written (`store`).
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.report.estimates import staircase
from autoresearch.report.summary import NOTES_READ, summarize
from autoresearch.text import one_line, scrub
from autoresearch.tracking.experiments import experiment_run
from autoresearch.tracking.runs import identity, search_id, search_run
from autoresearch.tracking.traces import Traces, conversations
from autoresearch.types import Draft, Experiment

if TYPE_CHECKING:
    from autoresearch.store.calls import CallLog
    from autoresearch.store.journal import Journal, SearchInfo
    from autoresearch.tracking.store import Store

EXPERIMENT_KEY = "mlflow.experiment"
"""The journal's note of the id of the MLflow experiment, for `tracking.ui`."""
DATA = "prepared"
"""The journal's note of where the data of a search lie."""
PARENT_KEY = "mlflow.search"
"""The journal's note of the id of the run that shows the search."""
PAUSES = (5.0, 30.0, 120.0, 300.0)
"""Seconds without an attempt after one, two, ... failures in a row; the last one repeats."""

BETWEEN = 4.0
"""Least pause, in times what it took to write the run of the whole search, which grows with the search."""


@dataclass
class Job:
    """A snapshot of the journal that a thread writes, and what it achieved. The snapshot never changes."""

    search: SearchInfo
    history: tuple[Experiment, ...]
    changed: tuple[int, ...]
    waiting: tuple[Draft, ...]
    notes: Mapping[str, str]
    files: tuple[Path, ...]
    written: list[int] = field(default_factory=list)
    parent: str | None = None
    experiment_id: str | None = None
    problem: str | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, journal: Journal, files: tuple[Path, ...] = ()) -> Job:
        """What the journal says now, to be shown with some files."""
        changed = journal.dirty()
        keys = (*NOTES_READ, PARENT_KEY, DATA)
        notes = {key: text for key in keys if (text := journal.get(key)) is not None}
        return cls(journal.info(), journal.experiments(), changed, journal.drafts(), notes, files)

    def info(self) -> SearchInfo:
        """As in the journal; like `experiments` and `get`, for the summary."""
        return self.search

    def experiments(self) -> tuple[Experiment, ...]:
        """As in the journal."""
        return self.history

    def drafts(self) -> tuple[Draft, ...]:
        """As in the journal."""
        return self.waiting

    def get(self, key: str) -> str | None:
        """As in the journal, for what a summary needs."""
        return self.notes.get(key)


class Mirror:
    """Shows a search in MLflow: a parent run, and nested in it a run for each experiment.

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
        calls: CallLog | None = None,
        writes: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Prepare; nothing is opened or imported yet.

        Args:
            enabled: False: do nothing, and leave MLflow alone.
            uri: Tracking URI; None is an SQLite file in `folder`.
            experiment: Name of the MLflow experiment that gathers all searches.
            folder: Of the local store.
            sources: The editable files at a commit; called from another thread.
            calls: The calls of language models, to be shown as traces; None: there are none.
            writes: Whether the winner of a search is a model that writes text, and is logged as one.
            say: Tells a person something; called from another thread.
        """
        self.problem: str | None = None
        self._say = say
        self._enabled = enabled
        self._uri = uri
        self._experiment = experiment
        self._folder = folder
        self._sources = sources
        self._writes = writes
        self._traces = None if calls is None else Traces(calls)
        self._store: Store | None = None
        self._opened = 0
        self._first_new: int | None = None
        self._begun: set[int] = set()
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._failures = 0
        self._not_before = 0.0

    def sync(self, journal: Journal) -> None:
        """Start writing what changed, unless the thread is busy. Returns at once; MLflow cannot fail it."""
        if not self._enabled:
            return
        self._collect(journal)
        if self._thread is None and time.monotonic() >= self._not_before and journal.dirty():
            self._start(Job.of(journal))

    def close(self, journal: Journal, files: Sequence[Path] = (), seconds: float = 60.0) -> str | None:
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
            self._start(Job.of(journal, tuple(files)))
            if self._wait(deadline):
                self._collect(journal)
                if self._failures or not journal.dirty():
                    break
        return self.problem

    # In the search's thread

    def _wait(self, deadline: float) -> bool:
        """Wait for the thread; returns whether it ended in time."""
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return self._thread is None or not self._thread.is_alive()

    def _start(self, job: Job) -> None:
        self._stop.clear()
        self._job = job
        self._thread = threading.Thread(target=self._work, args=(job,), name="mlflow mirror", daemon=True)
        self._thread.start()

    def _collect(self, journal: Journal) -> None:
        """Note in the journal what a finished thread achieved."""
        if self._thread is None or self._thread.is_alive() or self._job is None:
            return
        job, self._job, self._thread = self._job, None, None
        for number in job.written:
            # An experiment that changed while it was written stays on the list. (As text: a loss may be NaN.)
            if repr(journal.experiment(number)) == repr(job.history[number]):
                journal.mirrored(number)
        if job.parent is not None and job.experiment_id is not None:
            journal.set(PARENT_KEY, job.parent)
            journal.set(EXPERIMENT_KEY, job.experiment_id)
        self.problem = job.problem
        self._failures = self._failures + 1 if job.problem else 0
        pause = PAUSES[min(self._failures, len(PAUSES)) - 1] if self._failures else 0.0
        self._not_before = time.monotonic() + max(pause, BETWEEN * job.seconds)

    # In the mirror's thread

    def _work(self, job: Job) -> None:
        try:
            self._write(job)
        except Exception as error:
            job.problem = self._explain(error)
        if job.problem and not self._failures and not job.files:  # else `close` says it
            self._say(f"{job.problem}. The search goes on; the rest is written when the store answers.")

    def _write(self, job: Job) -> None:
        from autoresearch.tracking.ui import saved_views

        info, store = job.search, self._open()
        search = identity(info, None)
        found = store.find(search)
        # A store that does not know this run of the search has lost everything, not only what changed.
        complete = found is None or found.info.run_id != job.get(PARENT_KEY)
        if self._first_new is None:
            self._first_new = len(job.history)
        numbers, begun = range(len(job.history)) if complete else job.changed, time.monotonic()
        shown = set(numbers)
        moments = [m for m in staircase(job.history) if m.experiment.number in shown]
        job.parent = store.write(search_run(summarize(job), moments), search)
        job.experiment_id = store.experiment_id
        store.add_dataset(job.parent, info.data)
        for key, view in saved_views(info).items():
            store.tag_experiment(key, view)
        job.seconds = time.monotonic() - begun
        for e in (job.history[number] for number in numbers):
            if self._stop.is_set():
                return
            try:
                self._write_experiment(store, info, e, job.parent)
                job.written.append(e.number)
            except Exception as error:
                job.problem = self._explain(error)
                if not store.answers():
                    return
        store.add_files(job.parent, job.files)
        if job.files and self._writes:  # at the end of the search, or of what followed it
            self._write_model(store, job, job.parent)
        if self._traces is not None:
            ended = info.finished is not None
            self._traces.write_rest(store, search_id(info), job.parent, job.history, ended=ended)
            job.problem = job.problem or self._traces.problem

    def _write_experiment(self, store: Store, info: SearchInfo, e: Experiment, parent: str) -> None:
        column = 0 if info.device.startswith("cpu") else 1
        run = experiment_run(info, e, self._sources_of(e), column)
        # What the journal did not have when this began is not in the store: it need not be searched for.
        new = self._first_new is not None and e.number >= self._first_new and e.number not in self._begun
        self._begun.add(e.number)  # if this fails, nobody knows whether it is there
        run_id = store.write(run, identity(info, e.number), parent, new=new)
        store.add_dataset(run_id, info.data)
        if self._traces is not None:
            self._traces.write(store, search_id(info), run_id, conversations(e))

    def _write_model(self, store: Store, job: Job, parent: str) -> None:
        """Log the winning weights, if there are any, once."""
        from autoresearch.tracking.model import winner, write_model

        info, runs = job.search, self._folder.resolve().parent
        won, data = winner(job.history, runs / info.name), job.get(DATA)
        if won is None or data is None:
            return
        path = runs / json.loads(data)["path"]
        with tempfile.TemporaryDirectory(prefix="model-") as temporary:
            folder = Path(temporary)
            write_model(folder / "data", won, info, self._sources_of(won.experiment), path)
            store.add_model(folder, f"{search_id(info)} {won.experiment.commit}", info.name, parent)

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
            if moved := self._store.moved:
                self._say(
                    f"MLflow's store was copied or moved: its files now belong in {folder}, not {moved}."
                )
        return self._store

    def _sources_of(self, e: Experiment) -> Mapping[str, str]:
        try:
            return self._sources(e.commit) if e.commit else {}
        except Exception:
            return {}  # the files are shown for convenience; git has them

    def _explain(self, error: Exception) -> str:
        where = scrub(self._uri or "the local store")
        reason = one_line(scrub(str(error)) or type(error).__name__, 160)
        return f"MLflow ({where}) is not up to date: {reason}"
