"""A dry run says what would be run, and neither starts nor writes anything."""

from dataclasses import replace

import pytest

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.search.setup.plan import make_plan
from autoresearch.store.journal import Journal
from autoresearch.types import Measurement, Outcome
from tests.support.searches import INFO
from tests.support.stub import make_repository


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = make_repository(tmp_path / "repo").root
    monkeypatch.chdir(root)
    return root


def plan(root, *overrides):
    return dict(make_plan(["name=x", "executor.device=cpu", *overrides], root))


def test_it_writes_nothing(root):
    before = sorted(path for path in root.rglob("*") if ".git/" not in str(path))
    lines = plan(root, "experiments=10", "budget=smoke")
    assert sorted(path for path in root.rglob("*") if ".git/" not in str(path)) == before
    assert lines["search"] == "autoresearch/x, new" and lines["experiments"] == "10 more"
    assert lines["trainings"].startswith("about 13 to 54, 3 of them") and "not known yet" in lines["time"]
    assert lines["claim"].startswith("16 of them at the end")
    fewer = plan(root, "experiments=10", "budget=smoke", "claim=0")
    assert "claim" not in fewer and fewer["trainings"].startswith("about 13 to 38")
    assert lines["proposer"] == "optuna" and lines["model cost"] == "$0"


def test_the_time_comes_from_an_earlier_search_with_the_same_budget(root):
    config = load(["budget=smoke", "executor.device=cpu"], {})
    info = replace(INFO, name="before", config=config.model_dump(mode="json"), device="cpu, 2 threads")
    journal = Journal.create(root / "runs" / "before" / "journal.db", info)
    for seed in range(2):
        trial = journal.start_trial(0, "baseline", seed, "b" * 40)
        journal.finish_trial(trial, Measurement(Outcome.OK, 1.7))
    journal.close()
    assert "as in the search before" in plan(root, "budget=smoke")["time"]
    assert "5 min each" in plan(root, "budget=gpu_5min")["time"], "another budget, another pace"


def test_models_have_a_range_of_costs_within_the_caps(root, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    lines = plan(root, "proposer=anthropic", "experiments=200", "proposer.max_dollars=5")
    assert lines["cost"].startswith("about $") and lines["cost"].endswith("never more than $5")
    assert lines["caps"] == "max_dollars=5" and "claude-sonnet-5-5" in lines["proposer"]
    low, high = (float(part.strip("$")) for part in lines["cost"].split()[1:4:2])
    assert 0 < low < high
    fewer = plan(root, "proposer=anthropic", "experiments=2")["cost"]
    assert float(fewer.split()[1].strip("$")) < low / 20
    assert "no price is set" in plan(root, "proposer=openai")["cost"]
    assert plan(root, "proposer=anthropic", "experiments=0")["cost"].startswith("nothing for 0 proposals")
    several = plan(root, "proposer=portfolio", "experiments=2")
    assert several["cost"].startswith("about $") and several["caps"] == "max_dollars=10"


def test_what_would_keep_it_from_starting_is_said(root, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY is not set"):
        plan(root, "proposer=anthropic")
    with pytest.raises(UserError, match="no program"):
        plan(root, "proposer=command", "proposer.argv=[no-such-agent]")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("brief=nowhere.md", "no brief"),
        ("brief=nothing", "no brief"),
        ("ideas=nowhere", "no patches"),
        ("judge.odds=abc", "odds"),
        ("judge.odds=-1", "odds"),
        ("sandbox.limits.memory_gb=abc", "memory_gb"),
        ("sandbox.limits.memory_gb=-1", "memory_gb"),
        ("data.validation_fraction=2", "validation_fraction"),
        ("data.other_path=nowhere.txt", "no nowhere.txt"),
        ("name=x.", "no branch"),
        ("name=con..x", "no branch"),
        ("name=a.lock", "no branch"),
        ("name=cache", "something else"),
        ("executor.devices=[0]", "names GPUs"),
        ("runs=/dev/null/x", "cannot be written"),
        ("data.other_path=*.nothing", "no \\*.nothing"),
        ("tracking.uri=foo://x", "no address of an MLflow store"),
        ("sandbox.limits=abc", "a mapping in braces"),
    ],
)
def test_it_refuses_what_a_run_refuses(root, setting, says):
    with pytest.raises(UserError, match=says):
        plan(root, "budget=smoke", setting)
    with pytest.raises(UserError, match=r"no nowhere\.txt"):
        plan(root, "budget=smoke", "data=file", "data.path=nowhere.txt")
    assert not (root / "runs").exists()


def test_it_names_the_search_that_a_run_would_take(root):
    lines = dict(make_plan(["executor.device=cpu", "budget=smoke"], root))
    assert lines["search"].endswith("new") and "/x," not in lines["search"]
