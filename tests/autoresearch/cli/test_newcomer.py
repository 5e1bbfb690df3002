"""What goes wrong in the first ten minutes is said in a sentence, with what to do next."""

import socket
from pathlib import Path

import pytest

from tests.support.cli import inside
from tests.support.stub import git, make_repository


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the task in it, in which nothing was searched yet."""
    root = make_repository(tmp_path_factory.mktemp("newcomer") / "repo").root
    (root / "notes.zip").write_text("no archive")
    return root


@pytest.mark.parametrize(
    "command",
    [
        *("log", "report", "ui", "watch", "watch --web", "claim", "diff 3", "show 3", "note hello"),
        *("sample", "idea add hello", "try -m x", "status", "trace", "audit", "export", "compare a b"),
    ],
)
def test_before_the_first_search_each_command_says_how_to_start_one(root: Path, command: str) -> None:
    assert "Start one: autoresearch run" in inside(root, *command.split(), code=2)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run budget=gpu", "There are these choices for budget: gpu_12gb, gpu_15min"),
        ("run budget=smok", "Did you mean smoke?"),
        ("run data=fineweeb", "Did you mean fineweb?"),
        ("run brief=optimiser", "Did you mean optimizer?"),
        ("run brief=nowhere.md", "There is no brief at"),
        ("run proposer=optunna", "Did you mean optuna?"),
        ("run sandbox=docker", "There are these choices for sandbox: auto, bwrap, landlock, none"),
        ("run tracking=wandb", "There are these choices for tracking: mlflow, none"),
        ("run tracking.uri=foo://x", "no address of an MLflow store"),
        ("run task=nope", "There are these choices for task: brief, command"),
        ("run judge=nope", "There are these choices for judge: default"),
        ("run experiment=5", "Did you mean experiments?"),
        ("run experiments=-1", "experiments must be 0 or more, not -1"),
        ("run experiments=ten", "experiments must be a whole number"),
        ("run minutes=0", "minutes must be more than 0"),
        ("run 5", "Did you mean name=5?"),
        ("run name=a/b", "no name for a search"),
        ("run name=cache", "Choose another."),
        ("run ideas=nowhere", "There are no patches in"),
        ("run executor.workers=0", "executor.workers must be 1 or more"),
        ("run executor.devices=[0]", "names GPUs, but trials run on the CPU"),
        ("run proposer=command", "there is no program"),
        ("run proposer=anthropic", "ANTHROPIC_API_KEY"),
        ("run data=file data.path=nowhere.txt", "there is no nowhere.txt"),
        ("show", "Give its number: autoresearch show 7"),
        ("show seven", "Did you mean name=seven?"),
        ("config budgte", "Did you mean budget?"),
        ("doctor budget=x", "There are these choices for budget"),
        ("import nowhere.zip", "nowhere.zip is no exported search: No such file or directory."),
        ("import notes.zip", "autoresearch export writes one"),
        ("clean --git", "clean --all --git"),
        ("clean name=zzz", "no search called zzz"),
        ("resume name=zzz", "no search called zzz"),
        ("frobnicate", "No such command"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(root: Path, command: str, says: str) -> None:
    more = ["executor.device=cpu", "tracking=none"] if command.startswith("run") else []
    said = inside(root, *command.split(), *(m for m in more if m.partition("=")[0] not in command), code=2)
    assert says in said and "Traceback" not in said
    assert not list((root / "runs").glob("*/journal.db")), "nothing was begun"


def test_a_settings_file_that_is_wrong_is_named(root: Path) -> None:
    path = root / "autoresearch.yaml"
    try:
        path.write_text("budget: [smoke\n")
        said = inside(root, "run", code=2)
        assert f"{path} cannot be read" in said and "line 1" in said and "Write it as YAML" in said
        path.write_text("budgt: smoke\n")
        said = inside(root, "run", code=2)
        assert str(path) in said and "Did you mean budget?" in said
    finally:
        path.unlink()


def test_a_repository_that_is_not_ready_says_what_it_lacks(tmp_path: Path) -> None:
    assert "git init" in inside(tmp_path, "run", code=2)
    git(tmp_path, "init", "-q")
    assert "has no commit yet" in inside(tmp_path, "run", code=2)
    (tmp_path / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=S", "-c", "user.email=s@example.org", "commit", "-qm", "start")
    said = inside(tmp_path, "run", "executor.device=cpu", code=2)
    assert "To start from what is installed: cp -r" in said and "git -C" in said


def test_a_port_that_is_taken_is_said_by_the_page(done: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = inside(done.parent.parent, "watch", "--web", "--port", port, "name=x", code=3)
    assert "cannot be listened on" in said and "Choose another --port" in said


def test_an_experiment_that_is_not_there_is_named(done: Path) -> None:
    for command in (["show", "99"], ["diff", "99"]):
        said = inside(done.parent.parent, *command, "name=x", code=2)
        assert "99" in said and "Traceback" not in said
