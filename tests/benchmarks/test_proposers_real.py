"""Parts of the benchmark that compares proposers on the real task."""

import json
from pathlib import Path

import pytest

from autoresearch.edit.apply import apply
from autoresearch.types import Proposal
from benchmarks.no_change import SCRIPT
from benchmarks.proposers_real import ARMS, Found, proposer_of, table
from benchmarks.trainings import ROOT


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_can_start_without_a_key(arm: str, tmp_path: Path) -> None:
    assert proposer_of(arm, 1, tmp_path).name == "portfolio"


def test_the_shelf_has_all_changes_of_code_in_an_order_that_the_seed_draws(tmp_path: Path) -> None:
    source, orders = (ROOT / SCRIPT).read_text(encoding="utf-8"), []
    for seed in (1, 2, 1):
        proposer_of("shelf", seed, tmp_path)
        lines = (tmp_path / "shelf.jsonl").read_text().splitlines()
        found = [Proposal.from_dict(json.loads(line)) for line in lines]
        assert all(apply({SCRIPT: source}, p.edits)[SCRIPT] != source for p in found)
        orders.append([p.hypothesis for p in found])
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(path.stem for path in (ROOT / "configs/shelf").glob("*.patch"))


def test_the_table_compares_each_arm_with_the_portfolio_on_the_same_seeds() -> None:
    gains = {"random": (0.0, 0.01), "portfolio": (0.02, 0.05)}
    found = {seed: {arm: Found(10, 30, ("x",), each[seed]) for arm, each in gains.items()} for seed in (0, 1)}
    lines = table(found).splitlines()
    assert "| random | 2 | 10.0, 1.0 | +0.0050 ± 0.0050 | +0.0300 ± 0.0100 |" in lines
    assert "| portfolio | 2 | 10.0, 1.0 | +0.0350 ± 0.0150 |  |" in lines
