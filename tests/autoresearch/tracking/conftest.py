import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(empty_store: Path, tmp_path: Path) -> Path:
    """A store of the test's own."""
    target = tmp_path / "mlflow"
    target.mkdir()
    shutil.copy(empty_store / "mlflow.db", target)
    return target
