"""The benchmark of judges on real trainings: planted gains, no changes, judges in processes."""

import random
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoresearch.edit.knobs import read_values
from autoresearch.store.files import losses_folder
from benchmarks.planted import (
    BASELINES,
    BUILT,
    FACTORS,
    KNOB,
    ROOT,
    SCRIPT,
    Curve,
    between,
    divided,
    in_one_search,
    judged,
    planted,
    rolled,
    told,
)
from benchmarks.trainings import Bank, Trial, module_of

SOURCE = (ROOT / SCRIPT).read_text(encoding="utf-8")
CURVE = Curve(tuple(accumulate(0.01 * n for n in range(len(FACTORS)))), noise=0.01)


class Simulated(Bank):
    """A bank whose trainings take no time: what dividing the knob loses, and luck that seeds give all."""

    def measure(self, source: str, seed: int, split: str = "validation") -> Trial:
        rate = read_values(SOURCE, 0)[KNOB] / read_values(source, 0)[KNOB]  # type: ignore[operator]
        lost = between(FACTORS, CURVE.losses, max(1.0, rate))
        luck = random.Random(seed).gauss(0, CURVE.noise) + random.Random(f"{source} {seed}").gauss(0, 0.001)
        trial = Trial(len(self._known) + 1, 2.0 + lost + luck)
        folder = losses_folder(self.folder, trial.number)
        folder.mkdir(parents=True)
        own = np.random.default_rng(trial.number).normal(0, 0.002, 40)
        table = np.column_stack([trial.score + own - own.mean(), np.ones(40), np.arange(40)])
        np.save(folder / "validation.items.npy", table)
        self._known[source, seed, split] = trial
        return trial


def knob(source: str) -> Any:
    return read_values(source, 0)[KNOB]


def test_a_value_lies_between_those_that_were_measured() -> None:
    assert between([0.0, 1.0, 3.0], [1.0, 2.0, 6.0], 2.0) == 4.0
    assert between([0.0, 0.0, 3.0], [1.0, 2.0, 5.0], 0.0) == 1.0, "a factor that loses nothing"
    with pytest.raises(SystemExit, match="ends at 3"):
        between([0.0, 3.0], [1.0, 5.0], 4.0)


def test_planted_gains_are_of_the_size_that_is_said_wherever_the_incumbent_stands() -> None:
    for units, before in ((1.0, 6.0), (3.0, 6.0), (2.0, 2.0)):
        start = divided(SOURCE, CURVE.factor(before))
        better = planted(CURVE, units).change(start)
        assert knob(better) / knob(SOURCE) == pytest.approx(1 / CURVE.factor(before - units), rel=1e-3)
        assert better.count("\n") == start.count("\n")


def test_rolled_weights_are_others_of_the_same_values() -> None:
    text = rolled(1).change(SOURCE)
    assert (
        text != SOURCE
        and text.replace(text[text.index(BUILT) : text.index("    run.flops")], BUILT) == SOURCE
    )
    assert module_of(text).build_model(256, 16) is not None


def test_a_search_has_three_gains_among_candidates_that_change_nothing() -> None:
    start = divided(SOURCE, CURVE.factor(6.0))
    candidates = in_one_search(start, CURVE, 8, seed=1)
    assert sorted(c.units for c in candidates) == [0.0] * 8 + [1.0, 2.0, 3.0]
    incumbent = planted(CURVE, 2.0).change(start)
    texts = [c.change(incumbent) for c in candidates if not c.units]
    assert len({*texts, incumbent}) == 9, "each is another program"
    assert {knob(text) for text in texts} == {knob(incumbent)}, "none undoes what was kept"


@pytest.mark.slow
def test_a_judge_in_a_process_keeps_the_gain_and_not_what_changes_nothing(tmp_path: Path) -> None:
    bank = Simulated(tmp_path / "bank", {"amount": 1})
    start = divided(SOURCE, CURVE.factor(6.0))
    candidates = [rolled(1), rolled(2), planted(CURVE, 6.0), rolled(3)]
    decided = judged(ROOT, bank, start, candidates, first_seed=100)
    assert [d.kept for d in decided] == [False, False, True, False]
    assert decided[2].trials >= 2 and decided[2].asked >= decided[2].trials
    assert "| 0 of 3 | 6: kept after" in told("1, new", decided)
    asked = BASELINES + decided[0].asked + decided[1].asked
    again = Simulated(tmp_path / "again", {"amount": 1})
    cut = judged(ROOT, again, start, candidates, 100, asked + 1)
    assert cut == decided[:2], "the third has no verdict when the trainings are spent"


def test_a_bank_holds_trainings_of_one_budget(tmp_path: Path) -> None:
    Bank(tmp_path, {"amount": 1})
    with pytest.raises(SystemExit, match="another budget"):
        Bank(tmp_path, {"amount": 2})
    assert len(Bank(tmp_path, {"amount": 1})) == 0
