"""The MLflow UI on the right store, opened on a view worth looking at.

Owns the view: the runs of one search as a list in order, with the columns that matter. MLflow keeps shared
views as tags of an experiment; a version that does not know the format shows its own default instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from autoresearch.errors import UserError
from autoresearch.text import scrub
from autoresearch.tracking.runs import search_id

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

COLUMNS = {  # MLflow's name of a column: its width in pixels
    "attributes.`Run Name`": 430,
    "metrics.`val_bpb`": 110,
    "metrics.`effect`": 110,
    "metrics.`trials`": 70,
    "tags.`category`": 120,
    "tags.`proposer`": 210,
    "metrics.`tokens_per_second`": 150,
    "metrics.`peak_memory_mb`": 140,
}
LIGHT = {
    # Without this the server starts seven helper processes and takes 3 GB.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class Ui:
    """How to show the store.

    Attributes:
        command: Starts the server; None if one is running already, elsewhere.
        environment: To be added to the server's; holds the store's URI, which may have a password.
        url: What to open in a browser.
    """

    command: tuple[str, ...] | None
    environment: Mapping[str, str]
    url: str


def saved_view(info: SearchInfo) -> tuple[str, str]:
    """The view of one search, as a tag of its MLflow experiment: key, value."""
    state = {
        "searchFilter": f"tags.`autoresearch.id` = '{search_id(info)}'",
        # Sorted by anything but time, MLflow shows nested runs as a flat list.
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "selectedColumns": list(COLUMNS),
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
        "runsHiddenMode": "SHOW_ALL",
    }
    created = round(1000 * info.created)
    view = {"name": info.name, "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    return f"mlflow.sharedViewState.{search_id(info)}", json.dumps(view)


def ui(
    uri: str | None, folder: Path, port: int, info: SearchInfo | None = None, experiment_id: str | None = None
) -> Ui:
    """How to show what was mirrored.

    Args:
        uri: Tracking URI; None is the local store in `folder`.
        folder: Of the local store.
        port: For the server to listen on, on this machine only.
        info: The search to open, if one is wanted.
        experiment_id: Of the MLflow experiment it is in; the journal's note "mlflow.experiment".

    Raises:
        UserError: If there is no local store yet.
    """
    from autoresearch.tracking.store import local_uri

    if uri is None and not (folder / "mlflow.db").exists():
        raise UserError(f"Nothing has been mirrored in {folder} yet.", "Run a search first: autoresearch run")
    if uri is not None and uri.startswith(("http://", "https://")):
        return Ui(None, {}, scrub(uri).replace("[secret]@", "").rstrip("/") + _page(info, experiment_id))
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = LIGHT | {"MLFLOW_BACKEND_STORE_URI": uri or local_uri(folder)}
    if uri is None:
        command += ["--artifacts-destination", str(folder.resolve() / "artifacts")]
    return Ui(tuple(command), environment, f"http://127.0.0.1:{port}{_page(info, experiment_id)}")


def _page(info: SearchInfo | None, experiment_id: str | None) -> str:
    mode = {"workflowType": "machine_learning"}
    if experiment_id is None:
        return "/#/experiments"
    view = {"viewStateShareKey": search_id(info)} if info else {}
    return f"/#/experiments/{experiment_id}/runs?{urlencode(view | mode)}"
