"""What takes long to make, for tests that copy it: an empty MLflow store, and a finished search."""

import shutil
from pathlib import Path

import pytest

from tests.support.stub import make_repository, make_search

SETTINGS = ["name=x", "budget=smoke", "executor.device=cpu", "tracking=none"]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its schema, which takes seconds to make."""
    from autoresearch.tracking.store import Store, local_uri

    folder = tmp_path_factory.mktemp("mlflow")
    Store(local_uri(folder), "autoresearch", folder / "artifacts")
    return folder


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a finished search: two keeps, three discards, and losses of every trial."""
    repository = make_repository(tmp_path_factory.mktemp("finished") / "repo")
    search = make_search(repository, [0.5, 0.9, 0.3, 0.8, 0.7], "experiments=5", "claim=0", "tracking=none")
    search.journal.update(config={**search.config.model_dump(mode="json"), "overrides": SETTINGS})
    search.run()
    assert [e.kept for e in search.journal.experiments()[1:]].count(True) == 2
    for trial in (t for e in search.journal.experiments() for t in e.trials):
        folder = search.folder / f"losses/{trial.id}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "validation.npy").write_bytes(b"x" * 100)
    search.journal.close()
    return repository.root


@pytest.fixture
def done(finished_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a copy of the finished search; its repository is the current directory."""
    root = Path(shutil.copytree(finished_search, tmp_path / "repo"))
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root / "runs" / "x"
