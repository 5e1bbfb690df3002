"""Each example runs as it is, and keeps the first of its ideas; `nanomodel` has nothing to do with it."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from autoresearch.store.journal import Journal
from tests.support.cli import inside
from tests.support.stub import git

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = (
    "name=small",
    "experiments=1",
    "ideas=ideas",
    "claim=0",
    "baselines=2",
    "tracking=none",
    "proposer=random",
)


def keeps_its_first_idea(name: str, folder: Path) -> None:
    shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        git(folder / name, *words)
    said = inside(folder / name, "run", "--view", "plain", "executor.device=cpu", *SMALL)
    with closing(Journal(folder / name / "runs" / "small" / "journal.db")) as journal:
        assert [e.kept for e in journal.experiments()[1:]] == [True], said
        assert journal.info().trust == "artifact"
        assert "Trust: artifact" in git(folder / name, "log", "-1", "--format=%B", journal.info().branch)
    assert git(folder / name, "status", "--porcelain").splitlines() in ([], ["?? runs/"])


@pytest.mark.slow
def test_dictionary(tmp_path: Path) -> None:
    keeps_its_first_idea("dictionary", tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["digits", "flights"])
def test_that_train_models(tmp_path: Path, name: str) -> None:
    keeps_its_first_idea(name, tmp_path)


def test_every_example_is_explained_and_has_a_brief_and_ideas() -> None:
    for folder in (path for path in EXAMPLES.iterdir() if path.is_dir()):
        for name in ("README.md", "brief.md", "autoresearch.yaml"):
            assert (folder / name).read_text().strip(), f"{folder.name} has no {name}"
