"""An MLflow store: writes runs so that writing one twice changes nothing.

A run is found again by its tags, params are written once, metric points repeat exactly (MLflow drops those),
files are replaced. So whatever was cut short is simply written again. Calls can block for as long as the time
limits below allow; `mirror.Mirror` keeps that away from the search. Not covered: showing it (`ui`).
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.tracking.runs import Run

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

TAG_CHARACTERS = 5000  # what every backend takes
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that is down must be found out in seconds: by default a call gives up after some minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
}
NOTE = (
    "Each run that has the name of a search is a **search**; its experiments are nested in it. The saved "
    "views (the button at the top right) show one search each, and `all searches` shows them side by side: "
    "tick some and press *Compare*. Choose *Model training* at the top left once; the browser remembers it. "
    'What the names mean: `docs/using.md`, "In MLflow".'
)
"""The description of the MLflow experiment."""

EXPERIMENT_TAGS = {
    # Opens the page in "Model training" mode, with runs instead of traces.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": NOTE,
}


def local_uri(folder: Path) -> str:
    """The store that is used when no other is named: an SQLite file in a folder."""
    return f"sqlite:///{folder.resolve()}/mlflow.db"


class Store:
    """One MLflow experiment in one tracking store.

    Attributes:
        moved: Where its files were before the folder was copied or moved here; empty if it was not.
    """

    moved = ""

    def __init__(self, uri: str, experiment: str, artifacts: Path | None) -> None:
        """Open the store; creates it, and the experiment, if they are missing.

        Args:
            uri: Tracking URI.
            experiment: Name of the MLflow experiment that gathers all searches.
            artifacts: Where files go, for a local store; None leaves that to the server.

        Raises:
            Exception: Whatever MLflow raises if that cannot be done.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.uri = uri
        self._runs: dict[tuple[str, ...], str] = {}
        self._path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self._path):  # two that make the same tables at once would fail
            found = self._open(experiment, artifacts)
        self._file = _identity(self._path)
        self._known = dict(found.tags) if found else {}
        for key, value in EXPERIMENT_TAGS.items():
            self.tag_experiment(key, value)

    def _open(self, experiment: str, artifacts: Path | None) -> Experiment | None:
        """Open or make the MLflow experiment; returns it if it was there."""
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        place = artifacts.resolve().as_uri() if artifacts else None
        if self._path is not None and place is not None:
            self.moved = move_artifacts(self._path, experiment, place)
        self.client: MlflowClient = MlflowClient(tracking_uri=self.uri)
        found = self.client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise RuntimeError(f"experiment {experiment!r} was deleted there; restore it or name another")
        self.experiment_id: str = (
            found.experiment_id
            if found
            else self.client.create_experiment(experiment, artifact_location=place)
        )
        return found

    def tag_experiment(self, key: str, value: str) -> None:
        """Set a tag of the MLflow experiment, unless it is so already."""
        if self._known.get(key) != value:
            self.client.set_experiment_tag(self.experiment_id, key, value)
            self._known[key] = value

    def gone(self) -> bool:
        """Whether the file of a local store was deleted or replaced; what is written then is lost."""
        return self._file != _identity(self._path)

    def answers(self) -> bool:
        """Whether the store can be read now."""
        try:
            self.client.get_experiment(self.experiment_id)
        except Exception:
            return False
        return True

    def write(
        self, run: Run, identity: Mapping[str, str], parent: str | None = None, *, new: bool = False
    ) -> str:
        """Make a run of the store show what `run` says.

        Args:
            run: All of it.
            identity: The tags it is found by; a subset of its tags.
            parent: Id of the run that it is nested in.
            new: Whether there is no such run unless this object has made it.

        Returns:
            The MLflow id of the run.
        """
        from mlflow.entities import Metric, Param, RunTag

        tags = {k: v[:TAG_CHARACTERS] for k, v in run.tags.items()}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        known = tuple(identity.values())
        found = None if new and known not in self._runs else self.find(identity)
        if found is None:
            found = self.client.create_run(
                self.experiment_id, start_time=run.start, tags=dict(identity), run_name=run.name
            )
        run_id, info = str(found.info.run_id), found.info
        self._runs[known] = run_id
        if info.run_name != run.name or (run.end is None and info.status != "RUNNING"):
            self.client.update_run(run_id, status=None if run.end else "RUNNING", name=run.name)
        old = found.data.tags
        new_tags = [RunTag(k, v) for k, v in tags.items() if old.get(k) != v]
        new_params = [Param(k, v) for k, v in run.params.items() if k not in found.data.params]
        points = [Metric(p.key, p.value, p.timestamp, p.step) for p in run.metrics]
        for metrics, params, some_tags in _batches(points, new_params, new_tags):
            self.client.log_batch(run_id, metrics=metrics, params=params, tags=some_tags)
        for path, text in run.files.items():
            self.client.log_text(run_id, text, path)
        # The last step, so that a run that says it is done has everything.
        if run.end is not None and (info.status, info.end_time) != (run.status, run.end):
            self.client.set_terminated(run_id, run.status, end_time=run.end)
        return run_id

    def find(self, identity: Mapping[str, str]) -> MlflowRun | None:
        """The run with these tags, if there is one; the oldest, should there be several.

        A run that was written before is not searched for: that takes longer the more runs there are.
        """
        if run_id := self._runs.pop(tuple(identity.values()), None):
            with suppress(Exception):  # perhaps it is another store by now
                found = self.client.get_run(run_id)
                if found.info.lifecycle_stage == "active":
                    self._runs[tuple(identity.values())] = run_id
                    return found
        query = " and ".join(f"tags.`{key}` = '{_quoted(value)}'" for key, value in identity.items())
        runs = self.client.search_runs(
            [self.experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"]
        )
        return runs[0] if runs else None

    def add_dataset(self, run_id: str, data: Mapping[str, Any]) -> None:
        """Name the prepared corpus as the input of a run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=str(data.get("corpus", "corpus")),
            digest=str(data.get("key", ""))[:36],
            source_type="local",
            source=json.dumps({"cache": str(data.get("key", ""))}),
            profile=json.dumps(data.get("splits", {})),
        )
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def add_model(self, folder: Path, key: str, name: str, run_id: str) -> None:
        """Log a model once, as the output of a run; one call loads it: `mlflow.pyfunc.load_model`.

        Args:
            folder: Has its files in `data`; `tracking.model` reads them. Nothing in it is run or unpickled.
            key: Tells models apart.
            name: Shown.
            run_id: Of the run that it came from.
        """
        from mlflow import pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        here, known = [self.experiment_id], f"tags.`autoresearch.model` = '{_quoted(key)}'"
        if any(found.status == "READY" for found in self.client.search_logged_models(here, known)):
            return
        made = self.client.create_logged_model(
            self.experiment_id, name, run_id, tags={"autoresearch.model": key}, model_type="language model"
        )
        model = Model(run_id=run_id, model_id=made.model_id)
        pyfunc.add_to_model(model, loader_module="autoresearch.tracking.model", data="data")
        model.save(str(folder / "MLmodel"))
        self.client.log_model_artifacts(made.model_id, str(folder))
        self.client.finalize_logged_model(made.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])

    def add_files(self, run_id: str, paths: Sequence[Path]) -> None:
        """Upload files beside what a run shows already."""
        for path in paths:
            self.client.log_artifact(run_id, str(path))


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Keep other processes from opening the same local store meanwhile."""
    from filelock import FileLock

    with FileLock(path.with_name("opening.lock")) if path is not None else nullcontext():
        yield


def move_artifacts(path: Path, experiment: str, place: str) -> str:
    """Let a local store keep its files beside itself, if it was copied or moved: MLflow stores whole paths.

    Args:
        path: The SQLite file.
        experiment: Name of the MLflow experiment.
        place: Where its files belong, as a URI.

    Returns:
        Where they were before; empty if nothing had to be changed.
    """
    if not path.exists():
        return ""
    with closing(sqlite3.connect(path, timeout=30.0)) as db, suppress(sqlite3.OperationalError), db:
        query = "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?"
        number, before = db.execute(query, (experiment,)).fetchone() or (None, place)
        if before in (None, place):
            return ""
        db.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (place, number))
        db.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (place, len(before) + 1, number, len(before) + 1, f"{before}/"),
        )
        return str(before)
    return ""  # no store of MLflow's yet, or of another version


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Which file lies at a path now; we hold it open, so its number is not given to another."""
    if path is None or not path.exists():
        return None
    found = path.stat()
    return found.st_dev, found.st_ino


def _batches(
    metrics: list[Any], params: list[Any], tags: list[Any]
) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
    """Split into requests within MLflow's limits: 1000 entities, of them 100 params and 100 tags."""
    while metrics or params or tags:
        yield metrics[:800], params[:100], tags[:100]
        metrics, params, tags = metrics[800:], params[100:], tags[100:]


def _quoted(text: str) -> str:
    return text.replace("'", "")
