"""`init` and `check`: from somebody's repository to a task that is known to run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoresearch.cli import app
from autoresearch.errors import UserError
from tests.support import command_task as support
from tests.support.stub import git


def cli(*words: str, answers: str = "") -> str:
    done = CliRunner().invoke(app, words, input=answers, env={"ANTHROPIC_API_KEY": ""})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = support.write_printed(tmp_path / "repository")
    monkeypatch.chdir(root)
    return root


def test_options_say_all_and_nothing_is_asked(repository: Path) -> None:
    said = cli("init", "--yes", "--metric", "error", "--direction", "min", "--score", "python score.py")
    assert "Wrote autoresearch.yaml, brief.md." in said and "trust is `artifact`" in said
    assert 'task.metric: "error"' in (repository / "autoresearch.yaml").read_text()
    assert git(repository, "status", "--porcelain").split() == ["??", "autoresearch.yaml", "??", "brief.md"]
    with pytest.raises(UserError, match="is there already"):
        cli("init", "--yes")


def test_a_person_is_asked_what_is_not_said(repository: Path) -> None:
    said = cli("init", "--metric", "error", answers="train.py\n\n\nmin\n\n\n")
    assert "Which one is run" in said and "Wrote" in said
    text = (repository / "autoresearch.yaml").read_text()
    assert 'task.train: "python train.py"' in text and 'task.direction: "min"' in text


def test_what_cannot_be_guessed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(support.write(tmp_path / "r", {"x.py": "print(1)"}))
    with pytest.raises(UserError, match=r"--metric, --direction cannot be guessed"):
        cli("init", "--yes")
    with pytest.raises(UserError, match="neither min nor max"):
        cli("init", "--direction", "up")


@pytest.mark.slow
def test_check_says_what_a_night_can_show(repository: Path) -> None:
    cli("init", "--yes", "--metric", "error", "--direction", "min")
    before = git(repository, "status", "--porcelain")
    said = cli("check", "task.digits=6")
    for words in (
        "printed. Candidates say",
        "would raise it task.score",
        "error 0.20",
        "a trial",
        "decisions in 8",
    ):
        assert words in said, said
    assert "noise          about" in said and "shows in three trials" in said
    assert [path.name for path in (repository / "runs").iterdir()] == ["cache"]
    assert git(repository, "status", "--porcelain") == before
    assert "seeds gave the same score" in cli("check", "task.metric=accuracy", "task.direction=max")
    assert "task.direction=min is unusual for accuracy" in cli("check", "task.metric=accuracy")


@pytest.mark.slow
def test_check_of_a_program_that_fails_says_how_to_try_it(repository: Path) -> None:
    support.write(repository, {"train.py": "import missing_module\n"})
    cli("init", "--yes", "--metric", "error", "--direction", "min")
    with pytest.raises(UserError, match="does not get through: import error") as failed:
        cli("check")
    assert "python train.py" in failed.value.hint
