"""Which search a command means, and what of it stays as it was begun: whole searches of a toy task."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.report import page
from autoresearch.search import setup
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease
from autoresearch.store.notes import read_briefs
from autoresearch.tasks.base import Dataset
from autoresearch.types import Split
from tests.support import toy_task
from tests.support.cli import inside
from tests.support.stub import git

pytestmark = pytest.mark.slow

SETTINGS = ["task=toy", "proposer=random", "judge=greedy", "baselines=2", "tracking=none", "sandbox=none"]
SETTINGS += ["claim=0", "executor.device=cpu"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = toy_task.write_repository(tmp_path_factory.mktemp("template") / "repo")
    (root / ".gitignore").write_text("runs/\n")
    git(root, "init", "-q", "-b", "main")
    for key, value in {"name": "Somebody", "email": "somebody@example.org"}.items():
        git(root, "config", f"user.{key}", value)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy_task.install(monkeypatch, tmp_path / "site")
    for plot in ("write_progress_plot", "write_timeline_plot"):  # they take most of the time
        monkeypatch.setattr(page, plot, lambda *_: None)
    root = Path(shutil.copytree(template, tmp_path / "repo"))
    monkeypatch.chdir(root)
    return root


def run(root: Path, *settings: str, code: int = 0) -> str:
    return inside(root, "run", "--view", "plain", *SETTINGS, *settings, code=code)


def journal(root: Path, name: str) -> Journal:
    return Journal(root / "runs" / name / "journal.db")


def tried(root: Path, name: str) -> int:
    return len(journal(root, name).experiments()) - 1


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `strftime` says for the day; the test moves it on."""
    today = ["nov28"]
    real = time.strftime

    def strftime(form: str, *when: time.struct_time) -> str:
        return today[0] if form == "%b%d" else real(form, *when)

    monkeypatch.setattr(time, "strftime", strftime)
    return today


def test_a_search_of_the_day_that_ended_never_goes_on_by_itself(root: Path, day: list[str]) -> None:
    run(root, "experiments=1")
    before = journal(root, "nov28").info()
    run(root, "experiments=1", "brief=simplify")
    assert journal(root, "nov28").info() == before and tried(root, "nov28") == 1
    assert journal(root, "nov28-2").info().brief == "simplify" and tried(root, "nov28-2") == 1
    (root / "runs" / "nov28-2").rename(root / "elsewhere")  # its branch is still there
    run(root, "experiments=0")
    assert (root / "runs" / "nov28-3" / "journal.db").exists()


def test_one_that_was_stopped_goes_on_after_midnight(root: Path, day: list[str]) -> None:
    run(root, "experiments=1", "name=older")
    run(root, "experiments=1")
    again = journal(root, "nov28")
    again.set("stopped", "yes")  # as `stop` and Ctrl-C leave it
    again.close()
    day[0] = "nov29"
    assert "nov28" in run(root, "experiments=2")
    assert tried(root, "nov28") == 2 and not (root / "runs" / "nov29").exists()
    run(root, "experiments=1")
    assert tried(root, "nov29") == 1


def test_a_finished_search_is_not_relabelled(root: Path) -> None:
    run(root, "experiments=1", "name=x")
    said = run(root, "name=x", "brief=simplify")
    assert "has tried" in said
    after = journal(root, "x")
    assert after.info().brief == "default" and len(read_briefs(after)) == 1
    after.close()
    run(root, "name=x", "brief=simplify", "experiments=2")
    after = journal(root, "x")
    first, second = read_briefs(after)
    assert after.info().brief == first.name == "default" and second.name == "simplify"
    assert second.time > after.experiments()[1].created


def test_what_was_chosen_by_itself_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [s for s in SETTINGS if not s.startswith(("proposer=", "executor."))]
    inside(root, "run", "name=x", "experiments=0", *plain)
    begun = setup.recorded_config(root / "runs" / "x")
    assert begun.choices["proposer"] == "optuna" and begun.executor.device == "cpu"
    monkeypatch.setattr("autoresearch.config.has_gpu", lambda: True)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test")
    fresh = setup.load(["name=x"])
    assert fresh.choices["proposer"] == "anthropic" and fresh.choices["budget"] == "gpu_5min"
    recorded = setup.recorded_config(root / "runs" / "x")
    for given in ([], ["executor.device=auto"], ["executor=local"], ["experiments=3"]):
        config = setup.resume(recorded, ["name=x", *given])
        assert config.choices == begun.choices and config.executor.device == "cpu"
    assert setup.resume(recorded, ["name=x", "proposer=anthropic"]).choices["proposer"] == "anthropic"
    with pytest.raises(UserError, match=r"another executor\.device"):
        setup.resume(recorded, ["executor.device=cuda"])


def test_workers_belong_to_a_budget_of_seconds(root: Path) -> None:
    run(root, "name=x", "experiments=0", "budget=gpu_1min", "executor.workers=1")
    run(root, "name=y", "experiments=0", "budget=smoke", "executor.workers=1")
    timed, counted = (setup.recorded_config(root / "runs" / name) for name in ("x", "y"))
    assert (timed.budget["kind"], counted.budget["kind"]) == ("seconds", "tokens")
    assert setup.resume(counted, ["executor.workers=2"]).executor.workers == 2
    with pytest.raises(UserError, match=r"another executor\.workers"):
        setup.resume(timed, ["executor.workers=2"])


def lease(root: Path, name: str, value: str) -> None:
    known = journal(root, name)
    known.set("lease", value)
    known.close()


def test_without_a_name_a_command_means_the_search_that_runs_and_says_so(root: Path) -> None:
    for name in ("first", "second"):
        run(root, f"name={name}", "experiments=0")
    assert "search: second" in inside(root, "status")
    inside(root, "log", "name=first")  # reading it does not make it the latest
    (root / "runs" / "first" / "journal.db").touch()
    assert "Noted for second" in inside(root, "note", "hello")
    lease(root, "first", Lease.ours().to_json())
    assert "Noted for first" in inside(root, "note", "hello") and "search: first" in inside(root, "pause")
    assert Inbox(root / "runs" / "first").wished == "pause"
    lease(root, "second", Lease.ours().to_json())
    said = inside(root, "stop", code=2)
    assert "Several searches run: first, second" in said and "name=second" in said
    assert "search:" not in inside(root, "stop", "name=first")
    for name in ("first", "second"):
        lease(root, name, "")
    rows = inside(root, "status", "name=first", "--json")
    assert json.loads(rows)["runner"] is None


@pytest.fixture
def corpus(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of the toy task, which is prepared into a folder named after its content."""

    def prepare(task: toy_task.ToyTask, cache: Path) -> Dataset:
        if not path.exists():
            raise UserError("the corpus is gone")
        key = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        (cache / key).mkdir(parents=True, exist_ok=True)
        return Dataset(cache / key, {"key": key}, frozenset((Split.VALIDATION,)), "few")

    path = root / "corpus.txt"
    path.write_text("a corpus")
    monkeypatch.setattr(toy_task.ToyTask, "prepare", prepare)
    return path


def test_a_search_goes_on_with_the_data_it_was_begun_with_or_not_at_all(root: Path, corpus: Path) -> None:
    run(root, "name=x", "experiments=1")
    first = journal(root, "x").info().data
    corpus.write_text("A corpus")
    run(root, "name=x", "experiments=2")  # from the cache
    corpus.unlink()
    run(root, "name=x", "experiments=3")
    assert journal(root, "x").info().data == first and tried(root, "x") == 3
    shutil.rmtree(root / "runs" / "cache")
    run(root, "name=x", "experiments=4", code=2)
    corpus.write_text("A corpus")
    said = run(root, "name=x", "experiments=4", code=2)
    assert "key differ" in said and tried(root, "x") == 3
    corpus.write_text("a corpus")
    run(root, "name=x", "experiments=4")
    assert tried(root, "x") == 4
