"""What counts as a win is what the judge would keep."""

import pytest

from autoresearch.config import load
from autoresearch.judge import create_judge, least_gain

BASELINE = [(0, 1.75), (1, 1.752), (2, 1.748)]


@pytest.mark.parametrize("name", ["default", "strict", "threshold"])
def test_a_judge_that_knows_the_noise_wants_more_from_a_noisy_script(name):
    options = load([f"judge={name}"], {}).judge
    quiet = create_judge(baseline=BASELINE, tau=0.0, **options).to_json()
    noisy = create_judge(baseline=[(s, 1.75 + 4 * (x - 1.75)) for s, x in BASELINE], tau=0.0, **options)
    least, more = least_gain(quiet, 1.75, 0.002), least_gain(noisy.to_json(), 1.75, 0.008)
    assert least is not None and more is not None and 0.0005 < least < 0.02
    assert more >= least


def test_nothing_is_said_while_a_candidate_is_judged_or_of_a_judge_that_keeps_nothing():
    judge = create_judge(baseline=BASELINE, tau=0.0, **load([], {}).judge)
    judge.next()
    assert least_gain(judge.to_json(), 1.75, 0.002) is None
    never = create_judge(baseline=BASELINE, tau=0.0, **load(["judge=threshold"], {}).judge)
    assert least_gain(never.to_json(), 1.75, 0.0) is None
