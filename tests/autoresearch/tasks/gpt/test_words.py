"""What a model is told of data, scale, harness and limits."""

import pytest

import nanomodel.data
from autoresearch.config import load, parse
from autoresearch.tasks.base import Dataset
from autoresearch.tasks.gpt.settings import BudgetOptions, TrainingBudget, TrialPlan
from autoresearch.tasks.gpt.words import about, limits
from tests.support import toy


def budget(*overrides):
    return parse(BudgetOptions, load(["name=x", "budget=smoke", *overrides], {}).budget, "budget")


@pytest.fixture
def dataset(tmp_path):
    path = toy.write_cache(tmp_path / "cache", train=5_000, validation=1_501)
    return Dataset(path, {}, frozenset())


def test_the_corpus_is_shown_by_its_training_text_alone(dataset):
    data, scale, harness = about(dataset, budget(), threads=2)
    prepared = nanomodel.data.open_cache(dataset.path)
    assert f"{prepared.meta['splits']['train']['tokens']:,} tokens" in data
    assert data.count("<data-") == 3 and "bytes per token" in data
    passage = prepared.decode(prepared.tokens("train")[1250:][:80])
    assert passage.strip()[:20].replace("<", "\u2039") in data
    assert "A training has 2 CPU threads" in scale and "each once" in scale
    assert "any of them again" in about(dataset, budget("budget.kind=seconds"), 1)[1]
    assert "- `run.batch(rows: int, length: int, aligned: float=0.0)" in harness
    assert "- `run.progress`: Share of the budget used" in harness and "run._" not in harness


def test_limits_are_those_of_a_trial():
    known = {
        limit.name: limit.most for limit in limits(budget("budget.slowdown=2"), {"train_seconds": 10}, 2)
    }
    assert known["train_seconds"] == 21 and known["cpu_seconds"] == 2 * budget().max_seconds
    timed = {limit.name: limit.most for limit in limits(budget("budget.kind=seconds"), {}, 0)}
    assert timed["train_seconds"] == pytest.approx(budget().amount * 1.005)


@pytest.mark.parametrize(
    ("usual", "most", "found"), [(0.0, 90.0, 20.0), (12.0, 90.0, 36.0), (60.0, 90.0, 90.0)]
)
def test_the_limit_of_a_tryout_follows_what_scoring_takes_here(usual, most, found):
    plan = TrialPlan(0, TrainingBudget("steps", 4, 9.0), False, 9.0, (), 16, tryout=True)
    assert TrialPlan(**{**vars(plan), "usual_score_seconds": usual}).score_seconds(most) == found
