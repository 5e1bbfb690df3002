"""What is wrong or doubtful about a repository is said before anything runs, one clear message each."""

import subprocess
from pathlib import Path

import pytest

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.tasks.base import Dataset
from autoresearch.tasks.command.task import CommandTask
from tests.support import command_task as support
from tests.support.stub import git

pytestmark = pytest.mark.slow

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


def task_of(root: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> CommandTask:
    monkeypatch.chdir(root)
    return CommandTask(load([*support.ARTIFACT_SETTINGS, *settings], {}))


def warned(root: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> str:
    return "\n".join(task_of(root, monkeypatch, *settings).warnings(Dataset(root, {}, frozenset())))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return support.write_artifact(tmp_path / "repository")


@pytest.mark.parametrize("editable", ["[score.py]", "['*.py']", "['**/*.py', train.py]", "[prepare.py]"])
def test_files_of_the_scorer_are_not_editable(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, editable: str
) -> None:
    with pytest.raises(
        UserError, match=r"task.editable names .*(score|prepare).py, which task.(score|prepare) runs"
    ):
        task_of(root, monkeypatch, f"task.editable={editable}").prepare(tmp_path / "cache")


def test_modules_that_are_run_by_name_are_files_of_the_scorer(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"names train.py, which task.score runs"):
        task_of(root, monkeypatch, "task.score='python -m train'").prepare(tmp_path / "cache")


def test_a_scorer_that_uses_editable_code_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    support.write(root, {"score.py": "from level import LEVEL\nimport train as t\n"})
    assert "score.py imports level.py, train.py, and uses it as it was at the start" in warned(
        root, monkeypatch
    )


def test_pointers_and_submodules_are_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    support.write(root, {"data.bin": POINTER})
    other = support.write_printed(tmp_path / "other")
    allow = ("-c", "protocol.file.allow=always")
    subprocess.run(["git", *allow, "submodule", "add", "-q", str(other), "sub"], cwd=root, check=True)
    git(root, "commit", "-qm", "submodule")
    said = warned(root, monkeypatch)
    assert (
        "Submodules are not part of a trial: sub." in said and "Of data.bin git holds only pointers" in said
    )
    support.write(root, {"level.py": POINTER})
    with pytest.raises(UserError, match=r"level.py: git holds a pointer of LFS"):
        task_of(root, monkeypatch).prepare(tmp_path / "cache")


@pytest.mark.parametrize(
    ("metric", "direction", "odd"),
    [
        ("val_loss", "max", True),
        ("val_loss", "min", False),
        ("top1_acc", "min", True),
        ("auc", "max", False),
        ("score", "max", False),
    ],
)
def test_an_unusual_direction_is_asked_about(
    root: Path, monkeypatch: pytest.MonkeyPatch, metric: str, direction: str, odd: bool
) -> None:
    said = warned(root, monkeypatch, f"task.metric={metric}", f"task.direction={direction}", "task.digits=4")
    assert ("is unusual for" in said) is odd


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["task.train=null"], "needs task.train"),
        (["task.editable=[]"], "task.editable"),
        (["task.editable=[/etc/passwd]"], "inside the repository"),
        (["task.editable=[../x]"], "inside the repository"),
        (["task.direction=up"], "task.direction"),
        (["task.metric='a b'"], "task.metric"),
        (["task.metrics='regex:('"], "task.metrics"),
        (["task.guards=[accuracy]"], "task.guards"),
        (["task.score=null"], "needs a score command"),
        (["task.splits=[test]"], "needs validation"),
        (["budget.kind=seconds"], "needs an amount"),
    ],
)
def test_settings_that_do_not_fit_are_explained(
    root: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        task_of(root, monkeypatch, *settings)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["task.env=[OPENAI_API_KEY]"], "holds a secret"),
        (["task.env=[LD_PRELOAD]"], "is not passed on"),
        (["task.inputs=[data/none]"], "there is no"),
        (["task.read_only=[/none/there]"], "there is no"),
        (["task.python=.venv"], "there is no"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: list[str], why: str
) -> None:
    from autoresearch.tasks.command.processes import make_environment

    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef0123456789")
    task = task_of(root, monkeypatch, *settings)
    with pytest.raises(UserError, match=why):
        make_environment(task._options, task._config, root, "cpu")


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        ("exit 3", "failed with status 3"),
        ("mkdir $AUTORESEARCH_DATA/train", "made no folder validation, test"),
    ],
)
def test_a_prepare_command_that_fails_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prepare: str, why: str
) -> None:
    with pytest.raises(UserError, match=why):
        task_of(root, monkeypatch, f"task.prepare={prepare}").prepare(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
