import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch import config as config_module
from autoresearch.config import BRIEFS, CONFIGS, has_gpu, load, resume
from autoresearch.errors import UserError


def test_defaults_compose_and_are_typed() -> None:
    config = load(["name=x", "executor.device=cpu"], {})
    assert config.budget["kind"] in ("tokens", "seconds")
    assert config.data["vocab"] == config.budget["vocab"]
    assert config.choices["proposer"] == "optuna"


@pytest.mark.parametrize(
    "group", sorted(p.name for p in CONFIGS.iterdir() if p.is_dir() and p.name != "briefs")
)
def test_every_choice_of_every_group_composes(group: str) -> None:
    for path in (CONFIGS / group).glob("*.yaml"):
        assert load([f"{group}={path.stem}"], {}).choices[group] == path.stem


def test_a_key_makes_the_llm_the_default_proposer_and_a_choice_wins_over_it() -> None:
    environment = {"ANTHROPIC_API_KEY": "sk-test"}
    assert load([], environment).choices["proposer"] == "anthropic"
    assert load(["proposer=optuna"], environment).choices["proposer"] == "optuna"
    assert "sk-test" not in str(load([], environment))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("experimets=3", "experiments"),
        ("budget.amont=3", "budget.amount"),
        ("budget=smok", "smoke"),
        ("brief=defualt", "default"),
        ("experiments=-1", "experiments"),
        ("experiments=many", "experiments"),
        ("baselines=1", "baselines"),
        ("name=../x", "name"),
        ("+foo=1", "cannot be added"),
        ("experiments", "key=value"),
        ("budget.amount=[", "configs/"),
        ("data.path=x.txt", "belongs to data=file or data=prepared"),
    ],
)
def test_what_is_wrong_is_refused_with_what_to_do(override: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        load([override], {}).brief_path  # noqa: B018
    assert says in f"{error.value} {error.value.hint}"


@given(st.text(min_size=1, max_size=30))
def test_no_override_makes_it_fall_over(text: str) -> None:
    with contextlib.suppress(UserError):
        load([text], {})


def test_resuming_may_ask_for_more_but_not_change_what_a_score_means() -> None:
    begun = load(["name=x", "budget=smoke", "experiments=3"], {})
    assert resume(begun, ["experiments=9"]).experiments == 9
    assert resume(begun, ["experiments=9"]).budget == begun.budget
    with pytest.raises(UserError, match="budget"):
        resume(begun, ["budget.amount=1000"])


def test_a_price_of_ones_own_is_added() -> None:
    price = "proposer.prices={my-model: {input: 2, output: 8}}"
    assert load(["proposer=openai", price], {}).proposer["prices"] == {"my-model": {"input": 2, "output": 8}}
    kept = load(["proposer=anthropic", r"proposer.prices={a\:b: {input: 1}}"], {}).proposer["prices"]
    assert "claude-sonnet-5-5" in kept and kept["a:b"] == {"input": 1}


def test_another_proposer_may_go_on_without_the_options_of_the_first() -> None:
    begun = load(["name=x", "proposer=command", "proposer.argv=[ls]", "seed=3"], {})
    on = resume(begun, ["proposer=openai"])
    assert on.proposer["name"] == "openai" and on.seed == 3
    assert resume(begun, ["proposer=command"]).proposer["argv"] == ["ls"]


def test_briefs_differ_and_can_be_any_file(tmp_path: Path) -> None:
    assert len({p.read_text() for p in BRIEFS.glob("*.md")}) >= 5
    mine = tmp_path / "mine.md"
    mine.write_text("# Mine")
    assert load([f"brief={mine}"], {}).brief_path == mine


@pytest.mark.parametrize(
    ("nodes", "shown", "there"),
    [
        (["nvidia0", "nvidiactl"], None, True),
        (["nvidia3", "nvidiactl"], "GPU-ab", True),
        (["kfd"], None, True),
        (["nvidiactl", "nvidia-uvm"], None, False),
        (["nvidia0"], "", False),
        (["nvidia0"], "-1", False),
    ],
)
def test_a_gpu_is_found_by_any_number_unless_it_is_hidden(
    nodes: list[str], shown: str | None, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "DEV", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    for node in nodes:
        (tmp_path / node).touch()
    assert has_gpu() is there
    assert (load(["name=x"], {}).choices["budget"] == "gpu_5min") is there
