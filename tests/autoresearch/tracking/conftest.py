import shutil
from pathlib import Path

import pytest

from autoresearch.tracking.store import Store, local_uri


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its schema, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    Store(local_uri(folder), "autoresearch", folder / "artifacts")
    return folder


@pytest.fixture
def folder(empty_store: Path, tmp_path: Path) -> Path:
    """A store of the test's own."""
    target = tmp_path / "mlflow"
    target.mkdir()
    shutil.copy(empty_store / "mlflow.db", target)
    return target
