"""Kept changes on other rungs: each is trained there on common seeds, and a killed transfer goes on."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.finish import transfer
from autoresearch.judge.finished.transfer import Mark
from autoresearch.report.page import to_markdown, write_report
from autoresearch.report.sections.transfer import transfer_lines
from autoresearch.report.summary import summarize
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.store.records.transfers import read_transfers
from autoresearch.store.searches import STOPPED
from autoresearch.tracking.runs import search_run
from autoresearch.types import Measurement
from tests.support.stub import PATH, StubMeasurer, git, make_repository, make_search

SCRIPT = "LEVEL = 1.0  # 0..2\nDEPTH = 2\nprint(LEVEL, DEPTH)\n"


class Deep(StubMeasurer):
    """What LEVEL gains is lost in deeper models: twice as deep, the change loses."""

    def measure(self, tree: Path, spec: TrialSpec, *rest: Any) -> Measurement:
        depth = re.search(r"DEPTH = (\d+)", (tree / PATH).read_text())
        done = super().measure(tree, spec, *rest)
        if depth and int(depth[1]) > 2 and done.score is not None:
            return replace(done, score=2.2 - done.score)
        return done


class Killed(Exception):
    """The process was killed."""


def searching(folder: Path, script: str, measurer: type[StubMeasurer]) -> Search:
    """A search that has kept one change, which gains 0.05."""
    repository = make_repository(folder / "repo", script)
    made = make_search(repository, [0.5], "experiments=1", measurers={"cpu": measurer()})
    made.run()
    return made


def opening(made: Search, rungs: dict[str, Search], measurer: type[StubMeasurer]) -> Callable[..., Any]:
    """As `open_search` for the rungs of a search; data and sandbox are tested with the command line."""

    @contextmanager
    def open_rung(overrides: list[str], view: str, *, proposes: bool, start: str) -> Iterator[Search]:
        assert not proposes and start == made.journal.info().base_commit
        name = next(o for o in overrides if o.startswith("name="))
        budget = [o for o in overrides if o.startswith("budget.")]
        if name not in rungs:
            rungs[name] = make_search(made.repository, [], name, *budget, measurers={"cpu": measurer()})
        yield rungs[name]

    return open_rung


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    made = searching(tmp_path, SCRIPT, Deep)
    monkeypatch.setattr(transfer, "open_search", opening(made, {}, Deep))
    return made


def test_a_change_that_loses_when_the_model_is_deeper_is_told(search: Search, tmp_path: Path) -> None:
    experiments = search.journal.experiments()
    record = transfer.make_transfer(search, [2.0], [], 3)
    assert len(record.runs) == 2 * 2 * 3 and all(run.score is not None for run in record.runs)
    metric = search.task.metric
    [[here, _], [there, all_]] = record.gains(metric)
    assert here.mark is Mark.HOLDS and here.effect == pytest.approx(0.05, abs=0.005)
    assert there.mark is all_.mark is Mark.REVERSES and there.effect == pytest.approx(-0.05, abs=0.005)
    text = "\n".join(transfer_lines(record, metric))
    assert "reverses" in text and "DEPTH and the budget times the scale" in text and "2 scales" in text
    page = to_markdown(summarize(search.journal), "", None)
    shown = git(search.repository.root, "notes", "--ref=autoresearch", "show", experiments[1].commit)
    assert "scale 2: -0.0" in shown and "reverses" in shown
    [told] = [text for text in search.state.context().about if "carried over" in text]
    assert "experiment 1 (knobs): scale 2 reverses" in told
    run = search_run(summarize(search.journal), ())
    assert {m.key: round(m.value, 2) for m in run.metrics if m.key.startswith("transfer/")} == {
        "transfer/scale 1": 0.05,
        "transfer/scale 2": -0.05,
    }
    report = write_report(search.journal, "", tmp_path / "report")
    assert "![Gains on each rung](transfer-" in report.markdown.read_text()
    assert "## Does it hold elsewhere?" in page and "| #1 | +0.0500" in page and "reverses |" in page
    assert search.journal.experiments() == experiments, "nothing of it steers the search"
    used = {t.seed for e in experiments for t in e.trials}
    assert not used & {run.seed for run in record.runs}


def test_a_killed_transfer_goes_on_where_it_was(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    run_trainings, count = transfer.run_trainings, 0

    def dies(*arguments: Any) -> Iterator[Any]:
        nonlocal count
        for found in run_trainings(*arguments):
            yield found
            count += 1
            if count == 3:
                raise Killed

    monkeypatch.setattr(transfer, "run_trainings", dies)
    with pytest.raises(Killed):
        transfer.make_transfer(search, [2.0], [], 2)
    [half] = read_transfers(search.journal)
    done = [run for run in half.runs if run.score is not None]
    assert len(done) == 3 and half.finished is None
    record = transfer.make_transfer(search, [2.0], [], 2)
    assert record.finished and [run for run in record.runs if run in done] == done
    assert all(run.score is not None for run in record.runs) and read_transfers(search.journal) == [record]


def test_a_training_that_was_under_way_is_run_again(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*arguments: Any) -> Iterator[Any]:
        next(run_trainings(*arguments))
        raise Killed
        yield

    with monkeypatch.context() as patch:
        run_trainings = transfer.run_trainings
        patch.setattr(transfer, "run_trainings", dies)
        with pytest.raises(Killed):
            transfer.make_transfer(search, [2.0], [], 2)
    assert not any(run.done for run in read_transfers(search.journal)[0].runs)
    record = transfer.make_transfer(search, [2.0], [], 2)
    assert record.finished and all(run.score is not None for run in record.runs)


def test_a_script_that_the_rule_does_not_fit_has_no_score_there(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(search.task), "scaled", lambda *_: (_ for _ in ()).throw(Refused("no DEPTH")))
    record = transfer.make_transfer(search, [2.0], [], 2)
    assert [gain.mark for gain in record.gains(search.task.metric)[1]] == [Mark.UNKNOWN] * 2
    assert "No score at scale 2: no DEPTH." in transfer_lines(record, search.task.metric)


class Fast(StubMeasurer):
    """A deeper model wants three quarters of the rate: it loses what the rate is off, in logarithms."""

    def measure(self, tree: Path, spec: TrialSpec, *rest: Any) -> Measurement:
        text, done = (tree / PATH).read_text(), super().measure(tree, spec, *rest)
        rate = float(re.findall(r"BASE_LR = ([\d.]+)", text)[0])
        off = math.log(rate / (0.3 if "DEPTH = 4" in text else 0.4)) ** 2
        return replace(done, score=done.score and done.score + off / 10)


def test_learning_rates_are_tuned_anew_on_a_rung_and_a_killed_tuning_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, rungs = (
        searching(tmp_path, SCRIPT.replace("print", "BASE_LR = 0.4\nprint"), Fast),
        dict[str, Search](),
    )
    monkeypatch.setattr(transfer, "open_search", opening(made, rungs, Fast))
    run_trainings, count = transfer.run_trainings, 0

    def dies(*arguments: Any) -> Iterator[Any]:
        nonlocal count
        for found in run_trainings(*arguments):
            yield found
            count += 1
            if count == 4 + 3:  # the other of the second trial is under way
                raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(transfer, "run_trainings", dies)
        transfer.make_transfer(made, [2.0], [], 2, retune=6)
    metric = made.task.metric
    [half] = read_transfers(made.journal)
    assert [loss is None for _, loss in half.tuned(1, metric)] == [False, True]
    record = transfer.make_transfer(made, [2.0], [], 2, retune=6)
    tried = record.tuned(1, metric)
    assert len(tried) == 6 and tried[0][0] == 1.0 and not record.tuned(0, metric)
    best = record.rates(1, metric)
    assert best == min(tried, key=lambda found: abs(math.log(found[0] / 0.75)))[0] != 1.0
    compared = [run for run in record.runs if not run.tunes]
    assert [run.rates for run in compared] == [1.0] * 4 + [best] * 4
    assert not {run.seed for run in compared} & {run.seed for run in record.runs if run.tunes}
    [_, [there, _]] = record.gains(metric)
    assert there.mark is Mark.HOLDS and there.effect == pytest.approx(0.05, abs=0.005)
    [said] = [text for text in transfer_lines(record, metric) if "learning rates are multiplied" in text]
    assert f"the best of 6 Optuna trials of start and tip together: scale 2 times {best:.3g}." in said


def test_the_budget_alone_can_be_a_rung(search: Search) -> None:
    record = transfer.make_transfer(search, [2.0], [], 2, budgets=[1.25, 0.8, 1.0])
    assert [rung.name for rung in record.rungs] == ["scale 1", "scale 2", "budget 0.8", "budget 1.25"]
    given = transfer.settings(search, record.rungs[2])
    assert f"budget.amount={round(0.8 * 65536)}" in given and "name=x-budget-0.8" in given
    assert "budget.max_seconds=60" in given, "it may take as long as before"
    marks = [gains[0].mark for gains in record.gains(search.task.metric)]
    assert marks == [Mark.HOLDS, Mark.REVERSES, Mark.HOLDS, Mark.HOLDS]
    assert "only 2 scales" in str(record.beyond(search.task.metric)), "a budget is no scale"


def test_what_makes_no_sense_is_refused(search: Search, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rung"):
        transfer.make_transfer(search, [], [], 3)
    with pytest.raises(UserError, match="noise of a rung"):
        transfer.make_transfer(search, [2.0], [], 1)
    empty = make_search(Repository(search.repository.root), [], "name=empty", "experiments=0")
    with pytest.raises(UserError, match="Nothing was kept"):
        transfer.make_transfer(empty, [2.0], [], 3)


def test_a_rung_has_the_settings_of_the_search_but_its_own_budget_and_data(search: Search) -> None:
    given = transfer.settings(search, transfer.Rung("data tinystories", data="tinystories"))
    assert "data=tinystories" in given and "budget=smoke" in given and "experiments=1" not in given
    larger = transfer.settings(search, transfer.Rung("scale 3", 3.0))
    assert f"budget.amount={3 * 65536}" in larger and "name=x-scale-3" in larger and "tracking=none" in larger


def test_a_search_takes_its_keeps_elsewhere_in_between(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = search.repository
    config = ["experiments=5", "transfer_every=2", "transfer_scales=[2]", "name=y"]
    made = make_search(repository, [0.5, 0.9, 0.2, 0.8, 0.7], *config, measurers={"cpu": Deep()})
    asked = list[tuple[int, tuple[float, ...], int]]()

    def transfers(there: Search, scales: tuple[float, ...], data: object, seeds: int) -> None:
        asked.append((there.state.tried, scales, seeds))
        raise UserError("the machine is busy")

    monkeypatch.setattr(transfer, "make_transfer", transfers)
    assert transfer.run_with_transfers(made)
    assert asked == [(2, (2.0,), 2), (4, (2.0,), 2)] and made.state.tried == 5
    assert made.journal.get(STOPPED) == ""
