"""Every task keeps the contract; which one a search uses, and what of its options is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.execute.base import Measurer
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.tasks import create_task
from autoresearch.tasks.base import Dataset, Task
from autoresearch.tasks.gpt.task import GptTask
from autoresearch.testing.tasks import TaskContract
from tests.support import toy, toy_task
from tests.support.toy_task import ToyTask

SMALL = ("name=x", "budget=smoke", "budget.amount=20000", "budget.context=32", "executor.device=cpu")


class TestToyTask(TaskContract):
    broken = (toy_task.PATH, "LEVEL = (")
    crashing = (toy_task.PATH, "LEVEL = 1.0\n'crash instantly'\n")

    @pytest.fixture
    def task(self) -> Task:
        return ToyTask()

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        return toy_task.write_repository(tmp_path / "tree")


@pytest.mark.slow
class TestGptTask(TaskContract):
    """With a toy script, a toy corpus, and one measurer for all; corpora are prepared in their own tests."""

    broken = ("nanomodel/train.py", "def main(:")
    crashing = ("nanomodel/train.py", "raise ValueError('this cannot be trained')\n")

    @pytest.fixture(scope="class")
    @classmethod
    def task(cls) -> Task:
        return create_task(load([*SMALL, "executor.probes=16", "executor.standby=false"], {}))

    @pytest.fixture(scope="class")
    @classmethod
    def measurer(
        cls, task: Task, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Measurer]:
        tree = toy.write_code(tmp_path_factory.mktemp("trusted") / "tree")
        made = task.measurer(task.places()[0], dataset, create_sandbox("auto"), tree, lambda text: None)
        yield made
        made.close()

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        return toy.write_code(tmp_path / "tree")

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        path = toy.write_cache(tmp_path_factory.mktemp("data") / "cache", train=50_000, validation=1_501)
        return toy.dataset(path)

    # Each of these takes a whole trial; the tests of `tasks/gpt` show the same by its parts.

    @pytest.mark.soak
    def test_the_starting_script_passes_the_tryout(
        self, measurer: Measurer, tree: Path, scratches: Iterator[Path]
    ) -> None:
        super().test_the_starting_script_passes_the_tryout(measurer, tree, scratches)

    @pytest.mark.soak
    def test_what_progress_raises_ends_the_trial(
        self, measurer: Measurer, tree: Path, scratches: Iterator[Path]
    ) -> None:
        super().test_what_progress_raises_ends_the_trial(measurer, tree, scratches)

    @pytest.mark.soak
    def test_a_trial_is_stopped_when_it_should_be(
        self, measurer: Measurer, tree: Path, scratches: Iterator[Path]
    ) -> None:
        super().test_a_trial_is_stopped_when_it_should_be(measurer, tree, scratches)


def test_a_task_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(list(SMALL), {})
    assert isinstance(create_task(config), GptTask)
    toy_task.register(monkeypatch)
    assert create_task(config.model_copy(update={"task": {"name": "toy"}})).name == "toy"
    with pytest.raises(UserError, match="no task 'nanomodl'") as told:
        create_task(config.model_copy(update={"task": {"name": "nanomodl"}}))
    assert "nanomodel" in told.value.hint


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("budget.kind=hours", "budget.kind"),
        ("budget.amount=x", "budget.amount must be a number"),
        ("budget.amount=x", "not 'x'"),
        ("budget.slowdown=1", "budget.slowdown"),
        ("budget.vocab=100", "budget.vocab"),
        ("task.editable=[]", "task.editable"),
    ],
)
def test_a_wrong_option_of_the_task_is_named(override: str, says: str) -> None:
    with pytest.raises(UserError) as told:
        create_task(load([*SMALL, override], {}))
    assert says in str(told.value) and "config " in told.value.hint


@pytest.mark.parametrize(("kind", "seconds"), [("tokens", None), ("seconds", 20000)])
def test_the_budget_is_told_in_words(kind: str, seconds: float | None) -> None:
    budget = create_task(load([*SMALL, f"budget.kind={kind}"], {})).budget
    assert budget.text.startswith("20,000 ") and budget.seconds == seconds


@pytest.mark.parametrize(("tokens", "small"), [(3_000_000, True), (3_000_000_000, False)])
def test_a_corpus_too_small_for_a_gpu_is_said_to_be_so(tokens: int, small: bool, tmp_path: Path) -> None:
    task = create_task(load(["executor.device=cuda", "budget=gpu_5min", "name=x"], {}))
    data = Dataset(tmp_path, {"splits": {"train": {"tokens": tokens}}}, frozenset())
    assert any("many times over" in line for line in task.warnings(data)) == small
