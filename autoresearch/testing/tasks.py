r"""What every task promises, as tests.

Subclass `TaskContract` in a test module of your own::

    from autoresearch.testing.tasks import TaskContract

    class TestMyTask(TaskContract):
        broken = ("my/file.py", "this does not parse (")
        crashing = ("my/file.py", "raise SystemExit(3)\n")

        @pytest.fixture
        def task(self):
            return MyTask(...)

The fixtures `tree` and `sandbox` may be overridden, too.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from autoresearch.errors import Refused
from autoresearch.execute.base import Measurer, TrialSpec
from autoresearch.execute.sandbox import Sandbox, create_sandbox
from autoresearch.tasks.base import Dataset, Task, Trust
from autoresearch.types import Fidelity, Measurement, Outcome, Progress, Split


class TaskContract:
    """Tests of one task. A subclass gives the fixtures `task` and `tree`, and the attributes.

    Attributes:
        broken: An editable file, and a text for it that `validate` refuses.
        remark: What can be put behind that file's text without changing what it does; empty: nothing can.
        crashing: An editable file, and a text for it whose trial and tryout crash.
    """

    broken: tuple[str, str]
    remark: str = "\n# a remark\n"
    crashing: tuple[str, str]

    @pytest.fixture
    def task(self) -> Task:
        """The task, at a scale at which a trial takes seconds."""
        raise NotImplementedError

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        """A folder with the starting script and all that is frozen."""
        raise NotImplementedError

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        """How candidates are confined."""
        return create_sandbox("auto")

    @pytest.fixture
    def dataset(self, task: Task, tmp_path: Path) -> Dataset:
        """The prepared data."""
        return task.prepare(tmp_path / "cache")

    @pytest.fixture
    def sources(self, task: Task, tree: Path) -> Mapping[str, str]:
        """The editable files as they start."""
        return {path: (tree / path).read_text("utf-8") for path in task.editable}

    @pytest.fixture
    def measurer(self, task: Task, dataset: Dataset, sandbox: Sandbox, tree: Path) -> Iterator[Measurer]:
        """What measures at the task's first place."""
        made = task.measurer(task.places()[0], dataset, sandbox, tree, lambda text: None)
        yield made
        made.close()

    @pytest.fixture
    def scratches(self, tmp_path: Path) -> Iterator[Path]:
        """Gives a new empty folder for each trial."""

        def make() -> Iterator[Path]:
            for number in itertools.count():
                folder = tmp_path / f"scratch{number}"
                folder.mkdir()
                yield folder

        return make()

    def test_it_says_what_a_search_must_know(self, task: Task) -> None:
        """Name, metric, trust, budget and places are there, and of the right kind."""
        assert task.name and task.metric.name and task.metric.unit and task.by_hand
        assert isinstance(task.trust, Trust) and task.editable and task.frozen
        assert task.budget.text and task.budget.max_seconds > 0
        names = [place.name for place in task.places()]
        assert names and len(set(names)) == len(names)

    def test_what_it_tells_a_model_is_the_same_each_time(self, task: Task, dataset: Dataset) -> None:
        """What is told of the data can be recorded, and limits are finite."""
        told = list(task.about(dataset))
        assert json.loads(json.dumps(told)) == told == list(task.about(dataset))
        assert all(limit.text and math.isfinite(limit.most) for limit in task.limits({}))

    def test_the_editable_files_are_there(self, task: Task, sources: Mapping[str, str]) -> None:
        """The starting script exists and can be told to a proposer."""
        assert all(text.strip() for text in sources.values())
        told = task.prompt()
        assert told.role and told.rules and told.budget

    def test_the_data_has_a_split_to_decide_on_and_the_sealed_one(self, task: Task, dataset: Dataset) -> None:
        """Preparing twice gives the same data."""
        assert Split.VALIDATION in dataset.splits and dataset.path.exists()
        assert task.sealed is None or task.sealed in dataset.splits
        assert all(isinstance(text, str) for text in task.warnings(dataset))

    def test_an_edit_that_breaks_the_rules_is_refused(self, task: Task, sources: Mapping[str, str]) -> None:
        """A text that is no program, and a change of nothing, are refused with a reason."""
        path, text = self.broken
        for after in ({**sources, path: text}, dict(sources)):
            with pytest.raises(Refused) as refused:
                task.validate(sources, after)
            assert str(refused.value)

    def test_remarks_do_not_change_the_fingerprint(self, task: Task, sources: Mapping[str, str]) -> None:
        """Programs that do the same have the same fingerprint; others do not."""
        path, text = self.crashing
        assert task.fingerprint(sources) != task.fingerprint({**sources, path: text})
        assert task.growth(sources, sources) == 0
        if self.remark:
            remarked = {**sources, path: sources[path] + self.remark}
            assert task.fingerprint(sources) == task.fingerprint(remarked)
            assert task.growth(sources, remarked) == 0

    def test_the_starting_script_passes_the_tryout(
        self, measurer: Measurer, tree: Path, scratches: Iterator[Path]
    ) -> None:
        """A tryout gives no score."""
        done = measurer.tryout(tree, next(scratches))
        assert (done.outcome, done.score, done.reason) == (Outcome.OK, None, ""), done
        assert done.provenance.fidelity is Fidelity.TRYOUT

    def test_a_measurement_has_a_score_and_says_where_it_comes_from(
        self, task: Task, measurer: Measurer, tree: Path, scratches: Iterator[Path]
    ) -> None:
        """Progress is told meanwhile; the same seed gives the same score if the task says so."""
        seen: list[Progress] = []

        def measure() -> Measurement:
            return measurer.measure(tree, TrialSpec("contract", 1, "", 7), scratch, seen.append)

        scratch = next(scratches)
        first = measure()
        assert first.outcome is Outcome.OK and first.score is not None, first
        assert first.provenance.place == task.places()[0].name and first.provenance.worker
        assert (first.provenance.fidelity, first.provenance.fraction) == (Fidelity.FULL, 1.0)
        assert seen and all(0 <= sign.fraction <= 1 for sign in seen)
        assert (scratch / f"{Split.VALIDATION}.npy").exists() == task.metric.per_item
        assert Measurement.from_dict(first.to_dict()) == first
        if task.deterministic:
            scratch = next(scratches)
            assert measure().score == first.score

    def test_a_crashing_candidate_gives_a_reason_and_no_score(
        self, measurer: Measurer, tree: Path, scratches: Iterator[Path]
    ) -> None:
        """Whatever a candidate does, the measurer raises nothing."""
        path, text = self.crashing
        (tree / path).write_text(text, "utf-8")
        done = measurer.measure(tree, TrialSpec("contract", 2, "", 7), next(scratches), lambda sign: None)
        assert (done.outcome, done.score) == (Outcome.CRASH, None) and done.reason
        tried = measurer.tryout(tree, next(scratches))
        assert (tried.outcome, tried.score) == (Outcome.CRASH, None) and tried.reason

    def test_what_progress_raises_ends_the_trial(
        self, measurer: Measurer, tree: Path, scratches: Iterator[Path]
    ) -> None:
        """So a trial that nobody waits for any more is stopped."""

        def stop(sign: Progress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            measurer.measure(tree, TrialSpec("contract", 3, "", 7), next(scratches), stop)

    def test_a_trial_is_stopped_when_it_should_be(
        self, measurer: Measurer, tree: Path, scratches: Iterator[Path]
    ) -> None:
        """It is then called pruned, and says how far it got."""
        spec = TrialSpec("contract", 4, "", 7)
        done = measurer.measure(tree, spec, next(scratches), lambda sign: None, lambda sign: True)
        assert (done.outcome, done.score) == (Outcome.PRUNE, None), done
        assert done.provenance.fraction < 1
