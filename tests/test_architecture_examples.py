"""The files on docs/architecture.md are installed as a package, pass their contracts, and run a search."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

from autoresearch.execute.base import Executor, Place
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.judge.base import Baseline, Judge
from autoresearch.store.journal import Journal
from autoresearch.testing.executors import ExecutorContract, ScriptedMeasurer, write_files
from autoresearch.testing.judges import JudgeContract
from autoresearch.testing.proposers import ProposerContract
from autoresearch.testing.tasks import TaskContract
from autoresearch.types import VerdictKind
from tests.support.cli import inside

PAGE = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text("utf-8")
PACKAGE = Path(__file__).parent.parent / "autoresearch"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder as `pip install` would leave it: the package of the page, and its entry points."""
    site = tmp_path_factory.mktemp("site")
    files = re.findall(r'```python\n("""my_package/(\w+\.py): .*?)```', PAGE, re.DOTALL)
    assert len(files) == 4
    (site / "my_package").mkdir()
    for text, name in files:
        (site / "my_package" / name).write_text(text)
    [toml] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    points = re.sub(r'\[project.entry-points."(.*?)"\]', r"[\1]", toml).replace('"', "")
    (site / "my_package-1.0.dist-info").mkdir()
    (site / "my_package-1.0.dist-info" / "METADATA").write_text("Name: my_package\nVersion: 1.0\n")
    (site / "my_package-1.0.dist-info" / "entry_points.txt").write_text(points)
    return site


@pytest.fixture(autouse=True)
def installed(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()


class TestNudge(ProposerContract):
    @pytest.fixture
    def make(self):
        return lambda: importlib.import_module("my_package.proposer").Nudge()


class TestGuess(TaskContract):
    broken = ("guess.py", "GUESS = 0.2\n")
    remark = ""
    crashing = ("guess.py", "there is no number\n")

    @pytest.fixture
    def task(self):
        return importlib.import_module("my_package.task").Guess(None)

    @pytest.fixture
    def tree(self, tmp_path):
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "guess.py").write_text("GUESS = 0.2\n")
        return tmp_path / "tree"

    @pytest.fixture
    def sandbox(self):
        return create_sandbox("none")


class TestTwice(JudgeContract):
    def make(self, baseline: Baseline, tau: float = 0.0) -> Judge:
        return importlib.import_module("my_package.judge").Twice(baseline, tau)


class TestSerial(ExecutorContract):
    def make(self, runs: Path, places: int) -> Executor:
        measurers = {Place(f"here:{i}", "a device"): ScriptedMeasurer() for i in range(places)}
        return importlib.import_module("my_package.executor").Serial(measurers, runs, write_files)


@pytest.mark.slow
def test_all_four_are_chosen_by_name_and_run_a_search(tmp_path):
    (tmp_path / "guess.py").write_text("GUESS = 0.2\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    chosen = ["task=guess", "proposer=nudge", "judge=twice", "executor=serial", "proposer.factor=2"]
    more = ["name=night", "experiments=3", "tracking=none", "sandbox=none", "claim=0", "alarm=null"]
    inside(tmp_path, "run", "--view", "plain", *chosen, *more)
    journal = Journal(tmp_path / "runs" / "night" / "journal.db")
    verdicts = [e.verdict for e in journal.experiments()[1:] if e.verdict]
    assert [v.kind for v in verdicts][:1] == [VerdictKind.KEEP], "0.4 is nearer to 0.7 than 0.2"
    assert verdicts[0].effect and verdicts[0].effect > 0.15
    branch = subprocess.run(["git", "show", "autoresearch/night:guess.py"], cwd=tmp_path, capture_output=True)
    assert branch.stdout.startswith(b"GUESS = 0.4")


@pytest.mark.parametrize("step", re.findall(r"`(\w[\w/]*\.py:[\w.]+)`", PAGE))
def test_every_step_names_a_function_that_exists(step):
    path, _, name = step.partition(":")
    body = ast.parse((PACKAGE / path).read_text("utf-8")).body
    for part in name.split("."):
        found = [node for node in body if getattr(node, "name", "") == part]
        assert found, f"{path} has no {name}"
        body = getattr(found[0], "body", [])


def test_the_walk_has_at_most_twelve_steps():
    assert len(re.findall(r"^\d+\. ", PAGE, re.MULTILINE)) <= 12
