"""What takes long to make, for tests that copy it: an empty MLflow store, and a finished search."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main
import typer.testing
from filelock import FileLock

from tests.support.browser import Browser
from tests.support.stub import make_repository, make_search

SETTINGS = ["name=x", "budget=smoke", "executor.device=cpu", "tracking=none"]

# Typer builds all fifty commands anew for each one that runs, in half the time of a short one.
typer.main.get_command = typer.testing._get_command = cache(typer.main.get_command)

Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str, testrun_uid: str) -> Once:
    """Makes a folder of a given name, once for all workers that test at the same time."""
    base = tmp_path_factory.getbasetemp()

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder = (base if worker_id == "master" else base.parent) / f"{testrun_uid}-{name}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                make(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def empty_store(once: Once) -> Path:
    """An MLflow store with its schema, which takes seconds to make."""

    def make(folder: Path) -> None:
        from autoresearch.tracking.store import Store, local_uri

        Store(local_uri(folder), "autoresearch", folder / "artifacts")

    return once("mlflow", make)


@pytest.fixture(scope="session")
def finished_search(once: Once) -> Path:
    """A repository with a finished search: two keeps, three discards, and losses of every trial."""
    return once("finished", make_finished_search)


def make_finished_search(root: Path) -> None:
    repository = make_repository(root)
    search = make_search(repository, [0.5, 0.9, 0.3, 0.8, 0.7], "experiments=5", "claim=0", "tracking=none")
    search.journal.update(config={**search.config.model_dump(mode="json"), "overrides": SETTINGS})
    search.run()
    assert [e.kept for e in search.journal.experiments()[1:]].count(True) == 2
    for trial in (t for e in search.journal.experiments() for t in e.trials):
        folder = search.folder / f"losses/{trial.id}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "validation.npy").write_bytes(b"x" * 100)
    search.journal.close()


@pytest.fixture(scope="session")
def documented_search(once: Once) -> Path:
    """A repository with the search of the documentation: night1, of seven experiments, the last one kept."""

    def make(root: Path) -> None:
        search = make_search(
            make_repository(root),
            [1.3, 0.8, 1.2, 1.4, 1.1, 0.9, 0.4],
            "name=night1",
            "experiments=7",
            "claim=0",
            "tracking=none",
        )
        settings = ["name=night1", *SETTINGS[1:]]
        search.journal.update(config={**search.config.model_dump(mode="json"), "overrides": settings})
        search.run()
        assert search.journal.experiment(7).kept
        search.journal.close()

    return once("documented", make)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of a worker."""
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def done(finished_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a copy of the finished search; its repository is the current directory."""
    root = Path(shutil.copytree(finished_search, tmp_path / "repo"))
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root / "runs" / "x"
