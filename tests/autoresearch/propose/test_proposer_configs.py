"""The shipped settings and briefs fit the code that reads them."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autoresearch.propose import PROPOSERS, create_proposer
from autoresearch.propose.llm.prompt import build
from tests.support.histories import context
from tests.support.services import make_services

CONFIGS = Path(__file__).parents[3] / "configs"
BRIEFS = sorted((CONFIGS / "briefs").glob("*.md"))


def shipped(name):
    return OmegaConf.to_container(OmegaConf.load(CONFIGS / "proposer" / f"{name}.yaml"))


@pytest.mark.parametrize("name", PROPOSERS.names())
def test_the_shipped_settings_make_a_proposer(name, monkeypatch, tmp_path):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    settings = shipped(name)
    if name == "replay":
        assert settings["path"] == "???"
        settings["path"] = tmp_path / "recorded.jsonl"
        settings["path"].write_text("")
    if name == "command":
        settings["argv"][0] = "true"  # an agent that everybody has
    assert create_proposer(**settings, column=0, services=make_services(tmp_path)).name == name


@pytest.mark.parametrize("name", PROPOSERS.names())
def test_the_shipped_fallback_needs_no_network(name):
    assert shipped(name).get("fallback") in (None, "optuna")


def test_every_listed_model_has_a_complete_price():
    settings = shipped("anthropic")
    for model in settings["models"]:
        assert set(settings["prices"][model]) == {"input", "output", "cache_write", "cache_read"}
    for price in settings["prices"].values():
        assert price["cache_write"] == 2 * price["input"], "the one-hour cache"
        assert price["cache_read"] == pytest.approx(price["input"] / 10)


@pytest.mark.parametrize("path", BRIEFS, ids=lambda path: path.stem)
def test_briefs_are_a_page_each_and_stand_in_the_prompt_as_written(path):
    text = path.read_text(encoding="utf-8")
    *_, page = text.rpartition("---\n")  # what comes before says which knobs may be tuned
    assert page.startswith("# Brief: ") and "## Goal" in text and "## How to work" in text
    assert 250 <= len(text.split()) <= 600
    prompt = build(context(brief=text), 5000)
    assert prompt.system[1]["text"] == f"<brief>\n{text.strip()}\n</brief>"


def test_there_are_briefs_of_different_spirit():
    assert {"default", "optimizer", "architecture", "simplify", "throughput"} <= {
        path.stem for path in BRIEFS
    }
