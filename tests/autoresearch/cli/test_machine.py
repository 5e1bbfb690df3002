"""What is set and why; what a shell offers; a search in the background; what suits a machine."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from autoresearch.cli.complete import settings as offered
from autoresearch.config import load
from autoresearch.config.explain import comment, keys
from autoresearch.search.setup.check import Tried
from autoresearch.search.setup.doctor import _device, suiting
from autoresearch.store.journal import Journal
from tests.support import toy_task
from tests.support.cli import environment, inside
from tests.support.fake_nvml import FakeNvml
from tests.support.stub import make_repository


def test_a_setting_is_told_with_its_source_and_its_meaning(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repo").root
    (root / "autoresearch.yaml").write_text("experiments: 7\nbudget: smoke\n")
    told = {
        s["key"]: s for s in json.loads(inside(root, "config", "claim=2", "executor.device=cpu", "--json"))
    }
    assert (told["claim"]["value"], told["claim"]["source"]) == (2, "command line")
    assert (told["experiments"]["value"], told["experiments"]["source"]) == (
        7,
        str(root / "autoresearch.yaml"),
    )
    assert (
        told["budget"]["value"] == "smoke" and told["budget.vocab"]["source"] == "configs/budget/smoke.yaml"
    )
    assert told["seed"]["source"] == "configs/config.yaml" and told["guards.memory_mb"]["value"] == 3
    said = inside(root, "config", "experiments", "guards")
    assert "experiments=7" in said and "stop after this many candidates" in said
    assert "guards.memory_mb=3" in said and "main memory of its training" in said
    assert "Did you mean experiments?" in inside(root, "config", "experimets", code=2)


def test_a_search_tells_what_it_was_begun_with(done: Path) -> None:
    said = inside(done.parent.parent, "config", "name=x", "budget")
    assert "budget=smoke  # recorded when the search was begun" in said


def test_every_option_has_a_comment_where_a_wrong_value_is_explained(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repo").root
    said = inside(root, "run", "experiments=many", code=2)
    assert "must be a whole number" in said and "experiments: stop after this many candidates" in said
    assert "Did you mean name=nope?" in inside(root, "status", "nope", code=2)
    assert "Did you mean budget=VALUE?" in inside(root, "status", "budget", code=2)
    assert comment("budget.amount", "smoke") == "" and comment("budget.vocab", "smoke") == "raw bytes"
    assert {"experiments", "budget.amount", "guards.memory_mb"} <= set(keys())


def test_an_experiment_and_a_search_are_named_in_any_order(done: Path) -> None:
    root = done.parent.parent
    assert inside(root, "show", "name=x", "1") == inside(root, "show", "1", "name=x")
    assert inside(root, "diff", "name=x", "1") == inside(root, "diff", "1", "name=x")
    assert json.loads(inside(root, "diff", "1", "name=x", "--json"))["experiment"] == 1
    assert "Which experiment?" in inside(root, "show", "name=x", code=2)
    assert "Did you mean name=seven?" in inside(root, "show", "seven", code=2)


def test_a_log_is_sorted_with_the_best_last(done: Path) -> None:
    def told(*sort: str) -> list[dict[str, Any]]:
        said = inside(done.parent.parent, "log", "name=x", "--json", *sort)
        return [json.loads(line) for line in said.splitlines()]

    scores = [row["score"] for row in told("--sort", "score")]
    assert scores == sorted(scores, reverse=True) and len(scores) == 6
    effects = [row["effect"] for row in told("--sort", "change")]
    assert effects[0] is None and effects[1:] == sorted(effects[1:])
    assert [row["number"] for row in told()] == list(range(6))


def test_what_a_shell_offers(done: Path) -> None:
    assert offered([], "nam") == ["name="] and offered([], "name=") == ["name=x"]
    assert offered(["name"], "=") == ["x"] and offered(["name", "="], "x") == ["x"], "as bash cuts words"
    assert "budget=smoke" in offered([], "budget=") and "brief=optimizer" in offered([], "brief=o")
    assert "budget.amount=" in offered([], "budget.a") and offered([], "frob=") == []
    words = {
        **environment(),
        "_AUTORESEARCH_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": "autoresearch show ",
    }
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'autoresearch'; from autoresearch.cli import main; main()",
    ]
    told = subprocess.run(command, cwd=done, env=words, capture_output=True, text=True).stdout
    assert all(f'"{number}"' in told for number in range(6)) and '"name="' in told


@pytest.mark.parametrize(
    "command", ["log", "status", "list", "report", "trace", "idea list", "diff", "config"]
)
def test_reading_commands_print_json(done: Path, command: str) -> None:
    name = [] if command == "list" else ["name=x"]
    said = inside(done.parent.parent, *command.split(), *name, "--json")
    assert (
        [json.loads(line) for line in said.splitlines()] if command == "log" else json.loads(said) is not None
    )


def test_what_suits_a_machine() -> None:
    config = load(["budget=cpu", "executor.device=cpu", "executor.workers=2"], {})
    tried = [Tried(2.0, 30.0, {"memory_mb": 500.0})] * 2
    assert suiting(config, tried, 0.0, 8e9) == ["experiments=853"], "what is given is not said again"
    ready = [Tried(2.0, 30.0, {}, places=4)] * 2
    remote = load(["executor=ray", "executor.device=cpu", "budget=cpu"], {})
    assert suiting(remote, ready, 0.0, 8e9) == ["experiments=1707"], "four places, each as fast as here"
    config = load(["budget=cpu", "executor.device=cpu"], {})
    assert suiting(config, tried, 0.0, 1.5e9)[0] == "executor.workers=1", "two do not fit into the memory"
    busy = suiting(config, tried, 0.9, 8e9)
    assert "executor.workers=1" in busy and "budget.slowdown=4" in busy and "budget.score_seconds=180" in busy


def test_the_doctor_proposes_a_profile_by_the_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake = FakeNvml(memory=24 * 2**30 - 300_000_000)
    fake.install(monkeypatch)
    config = load(["executor.device=cuda", "name=x"], {})
    tried = [Tried(1.0, 330.0, {})] * 2
    assert suiting(config, tried, 0.0, 8e9)[0] == "budget=gpu_24gb"
    told = dict(_device(config, 0.0))
    assert told["GPU memory"] == "25 GB; the profile for it is budget=gpu_24gb"
    given = load(["executor.device=cuda", "budget=gpu_1min", "name=x"], {})
    assert not suiting(given, tried, 0.0, 8e9)[0].startswith("budget"), "what is given is not said again"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy_task.install(monkeypatch, tmp_path / "site")
    root = toy_task.make_repository(tmp_path / "repo")
    return root


@pytest.mark.slow
def test_the_doctor_trains_twice_and_says_what_suits(toy: Path) -> None:
    said = inside(toy, "doctor", "task=toy", "executor.device=cpu")
    for words in (
        "sandbox",
        "git            ",
        "disk           ",
        "key            none of",
        "accuracy 0.",
        "noise",
    ):
        assert words in said, said
    assert "for a night    autoresearch run name=night1 task=toy executor.device=cpu " in said
    quick = json.loads(inside(toy, "doctor", "--quick", "task=toy", "executor.device=cpu", "--json"))
    assert {"sandbox", "git", "disk", "device"} <= {line["about"] for line in quick}
    assert "score" not in {line["about"] for line in quick}
    assert "is not inside a git repository" in inside(toy.parent, "doctor", "--quick", "executor.device=cpu")


@pytest.mark.slow
def test_a_search_goes_on_in_the_background(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{toy.parent / 'site'}:{Path(__file__).parents[3]}")
    asked = [
        "name=back",
        "task=toy",
        "proposer=random",
        "experiments=1",
        "baselines=2",
        "claim=0",
        "tracking=none",
    ]
    said = inside(toy, "run", "--detach", *asked)
    assert "back runs in the background" in said and "autoresearch watch name=back" in said
    log = toy / "runs" / "back.log"
    for _ in range(600):
        if (toy / "runs/back/report/report.html").exists():
            break
        time.sleep(0.2)
    journal = Journal(toy / "runs" / "back" / "journal.db")
    assert len(journal.experiments()) == 2 and "experiments  1 more" in log.read_text()
    refused = inside(toy, "run", "--detach", "name=back", "baselines=3", code=2)
    assert "another baselines" in refused
