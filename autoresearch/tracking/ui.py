"""MLflow's own UI on what was mirrored: saved views of the searches, and the command that starts it.

The UI opens on a list of one search's runs in order, with the columns that matter. MLflow keeps such shared
views as tags of an experiment; a version that does not know their format shows its own default instead.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from autoresearch.errors import UserError
from autoresearch.text import scrub
from autoresearch.tracking.runs import search_id
from autoresearch.tracking.store import local_uri

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

VIEW, SEARCHES_KEY = "mlflow.sharedViewState.", "searches"
"""How the tags of saved views begin, and the key of the view of all searches."""

COLUMNS = {
    "attributes.`Run Name`": 330,
    "tags.`verdict`": 80,
    "metrics.`effect`": 90,
    "metrics.`{metric}`": 90,
    "tags.`category`": 100,
    "tags.`proposer`": 120,
    "tags.`brief`": 90,
    "metrics.`trials`": 60,
    "metrics.`measured/tokens_per_second`": 150,
    "metrics.`system/peak_memory_mb`": 140,
}
"""MLflow's name of a column, with {metric} for the task's metric -> its width in pixels."""
SEARCH_COLUMNS = {
    "attributes.`Run Name`": 160,
    "tags.`brief`": 110,
    "metrics.`gain_percent`": 110,
    "metrics.`effect`": 90,
    "metrics.`effect_low`": 90,
    "metrics.`effect_high`": 90,
    "metrics.`progress/tried`": 115,
    "metrics.`progress/kept`": 115,
    "metrics.`cost/device_hours`": 140,
    "metrics.`cost/llm_dollars`": 120,
    "tags.`brief_hash`": 120,
}
"""The same, where each row is a search."""
SEARCHES = "all searches"
"""Name of the view that shows them side by side."""
LIGHT = {
    # Without this the server starts seven helper processes and takes 3 GB.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""


@dataclass(frozen=True)
class Ui:
    """How to show the store.

    Attributes:
        command: Starts the server; None if one is running already, elsewhere.
        environment: To be added to the server's; holds the store's URI, which may have a password.
        url: What to open in a browser.
        searches: The same, for all searches side by side; empty if nothing has been mirrored.
    """

    command: tuple[str, ...] | None
    environment: Mapping[str, str]
    url: str
    searches: str = ""


def saved_views(info: SearchInfo) -> dict[str, str]:
    """The views of one search and of all of them, as tags of their MLflow experiment: key -> value."""
    columns = {name.format(metric=info.metric.name): width for name, width in COLUMNS.items()}
    # Sorted by anything but time, MLflow shows nested runs as a flat list.
    one = _view(info.name, "autoresearch.id", search_id(info), columns, "autoresearch.order", info.created)
    every = _view(SEARCHES, "autoresearch.experiment", "search", SEARCH_COLUMNS, "mlflow.runName", 0.0)
    return {f"{VIEW}{search_id(info)}": one, f"{VIEW}{SEARCHES_KEY}": every}


def _view(name: str, tag: str, value: str, columns: Mapping[str, int], order: str, created: float) -> str:
    state = {
        "searchFilter": f"tags.`{tag}` = '{value}'",
        "orderByKey": f"tags.`{order}`",
        "orderByAsc": True,
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": columns,
        "runsHiddenMode": "SHOW_ALL",
    }
    when = round(1000 * created)
    return json.dumps({"name": name, "createdAt": when, "updatedAt": when, "state": json.dumps(state)})


def answers(host: str, port: int, alive: Callable[[], bool]) -> bool:
    """Wait until a server listens; returns whether it does."""
    while alive():
        with suppress(OSError), socket.create_connection((host, port), timeout=1.0):
            return True
        time.sleep(0.2)
    return False


def ui(
    uri: str | None,
    folder: Path,
    port: int,
    info: SearchInfo | None = None,
    experiment_id: str | None = None,
    *,
    host: str = LOOPBACK[0],
) -> Ui:
    """How to show what was mirrored.

    Args:
        uri: Tracking URI; None is the local store in `folder`.
        folder: Of the local store.
        port: For the server to listen on.
        info: The search to open, if one is wanted.
        experiment_id: Of the MLflow experiment it is in; the journal's note "mlflow.experiment".
        host: Address for the server to listen on; by default nobody else reaches it.

    Raises:
        UserError: If there is no local store yet, or the port is in use.
    """
    if uri is None and not (folder / "mlflow.db").exists():
        raise UserError(f"Nothing has been mirrored in {folder} yet.", "Run a search first: autoresearch run")
    if uri is not None and uri.startswith(("http://", "https://")):
        place = scrub(uri).replace("[secret]@", "").rstrip("/")
        return Ui(None, {}, *(f"{place}{page}" for page in _pages(info, experiment_id)))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"Port {port} of {host} cannot be listened on: {error.strerror}.",
                f"Something else uses it. Choose another: autoresearch ui --port {port % 65535 + 1}",
                code=3,
            ) from None
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", host, "--port", str(port)]
    environment = LIGHT | {"MLFLOW_BACKEND_STORE_URI": uri or local_uri(folder)}
    if uri is None:
        command += ["--artifacts-destination", str(folder.resolve() / "artifacts")]
    here = LOOPBACK[0] if host in ("0.0.0.0", "::") else host
    place = f"http://{here}:{port}"
    return Ui(tuple(command), environment, *(f"{place}{page}" for page in _pages(info, experiment_id)))


def _pages(info: SearchInfo | None, experiment_id: str | None) -> list[str]:
    """The page of one search, and that of all."""
    if experiment_id is None:
        return ["/#/experiments"]
    keys = [search_id(info)] if info else []
    mode = {"workflowType": "machine_learning"}
    pages = (urlencode({"viewStateShareKey": key} | mode) for key in (*keys, SEARCHES_KEY))
    return [f"/#/experiments/{experiment_id}/runs?{page}" for page in pages]
