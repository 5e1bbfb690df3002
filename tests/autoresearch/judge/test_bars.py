"""What a gain must be is what the judge would do with it."""

import pytest

from autoresearch.config import load
from autoresearch.judge import Observation, bars, create_judge
from autoresearch.types import VerdictKind

START = [(0, 1.7887), (1, 1.7792), (2, 1.787)]
BASELINE = [(0, 1.75), (1, 1.752), (2, 1.748)]


@pytest.mark.parametrize("name", ["default", "strict", "threshold"])
def test_a_judge_that_knows_the_noise_wants_more_from_a_noisy_script(name):
    options = load([f"judge={name}"], {}).judge
    quiet = create_judge(baseline=BASELINE, tau=0.0, **options).to_json()
    noisy = create_judge(baseline=[(s, 1.75 + 4 * (x - 1.75)) for s, x in BASELINE], tau=0.0, **options)
    least, more = bars(quiet, 1.75, 0.002), bars(noisy.to_json(), 1.75, 0.008)
    assert least is not None and more is not None and 0.0005 < least.ever < 0.02
    assert more.ever >= least.ever
    assert least.second_run <= least.ever


def test_the_three_numbers_are_those_at_which_the_judge_turns():
    judge = create_judge(baseline=START, tau=0.0, **load([], {}).judge)
    told = bars(judge.to_json(), 1.785, 0.005)
    assert told is not None and told.three_runs is not None
    assert told.second_run < told.ever < told.three_runs

    def trials(gain):
        judge = create_judge(baseline=START, tau=0.0, **load([], {}).judge)
        verdict, runs = None, 0
        while verdict is None:
            want = judge.next()
            score, scatter = judge.expected(want.seed)
            if want.arm != "incumbent":
                score, runs = score - gain + (0.0, 1.0, -1.0)[runs % 3] * scatter, runs + 1
            verdict = judge.observe(want, Observation.finished(score))
        return verdict

    assert trials(0.95 * told.second_run).trials == 1
    assert trials(0.95 * told.ever).kind is VerdictKind.DISCARD
    late, soon = trials(1.01 * told.ever), trials(1.01 * told.three_runs)
    assert late.kind is soon.kind is VerdictKind.KEEP and late.trials > 3 == soon.trials


def test_nothing_is_said_while_a_candidate_is_judged_or_of_a_judge_that_keeps_nothing():
    judge = create_judge(baseline=BASELINE, tau=0.0, **load([], {}).judge)
    judge.next()
    assert bars(judge.to_json(), 1.75, 0.002) is None
    never = create_judge(baseline=BASELINE, tau=0.0, **load(["judge=threshold"], {}).judge)
    assert bars(never.to_json(), 1.75, 0.0) is None
