"""What a repository looks like is guessed from its files, and written down so that it can be read again."""

from pathlib import Path

import pytest

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.command import look
from autoresearch.tasks.command.task import CommandTask
from tests.support.command_task import write


def guessed(root: Path, files: dict[str, str]) -> look.Guess:
    return look.look(Repository(write(root, files)))


def test_the_likely_script_its_command_metric_and_knobs(tmp_path: Path) -> None:
    script = (
        "LR = 0.1\nSEED = 3\nSTEPS = 10\nDEPTH: int = 4\nNAME = 'x'\n"
        "parser.add_argument('--seed')\nprint(f'step {i}: train loss {a:.4f}, val loss {b:.4f}')\n"
    )
    found = guessed(
        tmp_path, {"tests/test_main.py": "x", "src/train_net.py": script, "util.py": "", "README.md": ""}
    )
    assert found.run == "python src/train_net.py --seed {seed}" and found.editable == ("src/train_net.py",)
    assert (found.metric, found.direction, found.knobs) == ("val_loss", "min", ("LR", "DEPTH"))
    from autoresearch.tasks.command.metrics import read_metrics

    said = "step 1: train loss 2.5000, val loss 2.7500\nstep 2: train loss 2.0, val loss 2.25"
    assert read_metrics(found.metrics, "val_loss", said, tmp_path) == {"val_loss": 2.25}


@pytest.mark.parametrize(
    ("line", "metric", "direction"),
    [
        ("print('METRIC top_acc=%f' % x)", "top_acc", "max"),
        ("print('Test set: Accuracy: {}'.format(x))", "accuracy", "max"),
        ("logging.info(f'auc={x}')", "auc", "max"),
        ("print('done')", "", ""),
    ],
)
def test_what_programs_say(line: str, metric: str, direction: str) -> None:
    assert look.said_metric(line)[0] == metric and look.usual_direction(metric) == direction


def test_what_is_written_is_a_task_with_every_key_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = guessed(tmp_path, {"train.py": "LR = 0.1\nprint(f'METRIC loss={LR}')\n"})
    look.write(tmp_path, found)
    monkeypatch.chdir(tmp_path)
    config = load([], {})
    assert "knobs: LR" in config.read_brief()
    task = CommandTask(config)
    assert (task.editable, task.metric.name, task.by_hand) == (("train.py",), "loss", "python train.py")
    lines = (tmp_path / "autoresearch.yaml").read_text().splitlines()
    keys = {line.split(":")[0] for line in lines if line.startswith("task.")}
    assert keys == {f"task.{key}" for key in config.task if key != "name"}
    assert all("# " in line for line in lines[2:] if not line.startswith("task: "))
    with pytest.raises(UserError, match="is there already"):
        look.write(tmp_path, found)
    assert (tmp_path / ".gitignore").read_text().splitlines().count("runs/") == 1


def test_a_repository_without_scripts_leaves_all_to_be_asked(tmp_path: Path) -> None:
    found = guessed(tmp_path, {"notes.txt": "x"})
    assert (found.scripts, found.run, found.metric) == ((), "", "")
