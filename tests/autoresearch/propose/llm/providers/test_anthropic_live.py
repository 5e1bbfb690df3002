"""One real call, behind a key: `python -m pytest -m live tests/autoresearch/propose`. Costs a few cents."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autoresearch.edit.apply import apply
from autoresearch.edit.rules import check as check_rules
from autoresearch.propose import create_proposer
from tests.support.histories import SOURCE, context

CONFIG = Path(__file__).parents[5] / "configs" / "proposer" / "anthropic.yaml"


@pytest.mark.live
@pytest.mark.skipif(not os.environ.get("ANTHROPIC_API_KEY"), reason="needs ANTHROPIC_API_KEY")
def test_a_real_model_makes_an_acceptable_proposal():
    settings = OmegaConf.to_container(OmegaConf.load(CONFIG)) | {"max_dollars": 0.5, "effort": "low"}

    def check(proposal):
        sources = {"train.py": SOURCE}
        check_rules(sources, apply(sources, proposal.edits), ["train.py"])

    proposal = create_proposer(**settings, column=0).ask(context(), check)[0]
    assert proposal.hypothesis and proposal.cost.dollars > 0
