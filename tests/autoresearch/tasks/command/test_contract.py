"""The task `command` keeps the contract of tasks, with both levels of trust."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from autoresearch.config import load
from autoresearch.tasks.base import Task, Trust
from autoresearch.tasks.command.task import CommandTask
from autoresearch.testing.tasks import TaskContract
from tests.support import command_task as support

pytestmark = pytest.mark.slow


class TestPrinted(TaskContract):
    broken = ("train.py", "this does not parse (")
    crashing = ("train.py", "raise SystemExit(3)\n")

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        return support.write_printed(tmp_path / "repository")

    @pytest.fixture
    def settings(self) -> tuple[str, ...]:
        return support.PRINTED_SETTINGS

    @pytest.fixture
    def task(self, repository: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Task:
        monkeypatch.chdir(repository)
        return CommandTask(load(list(settings), {}))

    @pytest.fixture
    def tree(self, repository: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(repository, tmp_path / "tree", ignore=shutil.ignore_patterns(".git")))

    def test_its_trust_is_what_the_commands_say(self, task: Task) -> None:
        assert task.trust is Trust.PRINTED and task.sealed is None and not task.metric.per_item


class TestArtifact(TestPrinted):
    broken = ("level.py", "this does not parse (")
    crashing = ("train.py", "raise SystemExit(3)\n")

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        return support.write_artifact(tmp_path / "repository")

    @pytest.fixture
    def settings(self) -> tuple[str, ...]:
        return support.ARTIFACT_SETTINGS

    def test_its_trust_is_what_the_commands_say(self, task: Task) -> None:
        assert task.trust is Trust.ARTIFACT and task.sealed and task.metric.per_item


class TestDeterministicInAnotherLanguage(TestPrinted):
    broken = ("size.txt", "")
    remark = ""
    crashing = ("size.txt", "no number\n")

    @pytest.fixture
    def repository(self, tmp_path: Path) -> Path:
        script = "read size < size.txt\n[ $size -gt 0 ] || exit 3\necho METRIC error=$size\n"
        return support.write(tmp_path / "repository", {"size.txt": "12\n", "run.sh": script})

    @pytest.fixture
    def settings(self) -> tuple[str, ...]:
        own = ("task.train=sh run.sh", "task.editable=['*.txt']", "task.deterministic=true")
        return (*support.COMMON, *own)

    @pytest.fixture
    def sources(self, task: Task, tree: Path) -> Mapping[str, str]:
        return {"size.txt": (tree / "size.txt").read_text()}
