"""What every judge promises, whatever its method."""

import math
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.errors import UserError
from autoresearch.judge import JUDGES, Judge, create_judge
from autoresearch.types import VerdictKind
from tests.autoresearch.judge.lab import NAMES, Lab, parallel, serial

CONFIGS = Path(__file__).parents[3] / "configs" / "judge"

names = st.sampled_from(NAMES)
seeds = st.integers(0, 10**6)


def mixture(seed: int, count: int = 30) -> list[float]:
    """A plausible stream of candidates: some gains, some no-ops, much harm."""
    rng = random.Random(seed)
    return [rng.choice([3.0, 1.5, 0.0, 0.0, -1.0, -4.0, -8.0]) for _ in range(count)]


def failures(seed: int, share: float):
    return lambda number, want: random.Random(f"{seed}/{number}/{want.arm}/{want.seed}").random() < share


@settings(max_examples=40, deadline=None)
@given(names, seeds, st.integers(2, 8), st.sampled_from([0.0, 0.15]))
def test_the_order_of_arrival_and_the_number_of_devices_change_nothing(name, seed, devices, share):
    def lab() -> Lab:
        return Lab(mixture(seed), seed=seed, failing=failures(seed, share))

    one, many = create_judge(name, lab().baseline()), create_judge(name, lab().baseline())
    assert parallel(many, lab(), devices, random.Random(seed)) == serial(one, lab())
    assert many.report() == one.report()


@settings(max_examples=30, deadline=None)
@given(names, seeds, st.sampled_from([0.0, 0.15]))
def test_a_judge_restored_from_json_at_any_point_decides_the_same(name, seed, share):
    def lab() -> Lab:
        sizes = [random.Random(seed + i).choice([-40, 0, 60]) for i in range(30)]
        return Lab(mixture(seed), seed=seed, failing=failures(seed, share), complexity=sizes)

    whole = serial(create_judge(name, lab().baseline(), tau=0.2), lab())
    assert serial(create_judge(name, lab().baseline(), tau=0.2), lab(), reload=True) == whole


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["default", "strict"]), seeds, st.integers(1, 12))
def test_answers_under_way_survive_json_too(name, seed, stop):
    """Two judges part at a random moment, with wants open and answers buffered, and stay the same."""
    lab = Lab([4.0], seed=seed)
    first, rng = create_judge(name, lab.baseline()), random.Random(seed)
    lab.begin(1, first)
    running = []
    for _ in range(stop):
        if (want := first.next()) is not None:
            running.append(want)
        if running and rng.random() < 0.6:
            want = running.pop(rng.randrange(len(running)))
            first.observe(want, lab.answer(1, want))
    second = Judge.from_json(first.to_json())
    assert second.unanswered == first.unanswered
    rng.shuffle(running)
    for want in running:
        score = lab.answer(1, want)
        assert first.observe(want, score) == second.observe(want, score)
    for _ in range(10):
        want = first.next()
        assert want == second.next()
        if want is not None:
            assert first.observe(want, 99.0) == second.observe(want, 99.0)
    assert first.to_json() == second.to_json()


@settings(max_examples=40, deadline=None)
@given(names, seeds, st.one_of(st.integers(-40, 40).map(lambda p: 2.0**p), st.floats(1e-6, 1e6)))
def test_the_unit_of_the_score_changes_no_decision(name, seed, factor):
    plain, scaled = Lab(mixture(seed), seed=seed), Lab(mixture(seed), seed=seed, sigma=factor)
    a = serial(create_judge(name, plain.baseline(), tau=0.1), plain)
    b = serial(create_judge(name, scaled.baseline(), tau=0.1 * factor), scaled)
    assert [v.kind for v in a] == [v.kind for v in b]
    assert [v.trials for v in a] == [v.trials for v in b]
    for x, y in zip(a, b, strict=True):
        assert y.effect == pytest.approx(x.effect * factor, rel=1e-6, abs=1e-9 * factor)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
def test_a_failed_screening_is_a_discard_and_the_search_goes_on(name, score):
    judge = create_judge(name, Lab([]).baseline())
    want = judge.next()
    verdict = judge.observe(want, score)
    assert verdict is not None and verdict.kind is VerdictKind.DISCARD
    assert verdict.effect is None and "failed" in verdict.reason
    assert judge.next().arm == "screen"
    assert judge.report().failed == 1 and judge.report().kept == 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["default", "strict"]), seeds, st.integers(2, 40))
def test_failures_at_any_point_lose_neither_the_search_nor_its_estimates(name, seed, nth):
    """Every nth trial fails, whichever arm it is, from the baselines on."""
    count = 0

    def failing(number, want):
        nonlocal count
        count += 1
        return count % nth == 0

    lab = Lab(mixture(seed, 20), seed=seed, failing=failing)
    judge = create_judge(name, lab.baseline())
    assert len(serial(judge, lab, trials=2000)) == 20
    report = judge.report()
    assert math.isfinite(report.incumbent.mean) and report.noise > 0
    assert report.candidates == 20


@pytest.mark.parametrize("name", ["default", "strict"])
def test_an_incumbent_that_always_fails_does_not_stop_the_search(name):
    lab = Lab([4.0, 0.0] * 20, failing=lambda number, want: want.arm == "incumbent")
    judge = create_judge(name, lab.baseline(2))
    verdicts = serial(judge, lab, trials=1000)
    assert len(verdicts) == 40
    assert any(v.kind is VerdictKind.KEEP for v in verdicts)


def test_wants_are_taken_once_and_only_if_asked_for():
    judge = create_judge("default", Lab([]).baseline())
    want = judge.next()
    assert judge.next() is None, "the screening must be answered first"
    judge.observe(want, 200.0)
    with pytest.raises(ValueError, match="asked for"):
        judge.observe(want, 200.0)


@pytest.mark.parametrize(
    ("name", "baseline", "message"),
    [
        ("default", [(0, 1.0)], "at least 2"),
        ("strict", [(0, 1.0)], "at least 2"),
        ("greedy", [], "at least 1"),
        ("default", [(0, 1.0), (0, 1.1)], "same seed"),
        ("default", [(0, 1.0), (1, math.nan)], "no finite score"),
    ],
)
def test_a_baseline_that_cannot_carry_a_search_is_refused(name, baseline, message):
    with pytest.raises(ValueError, match=message):
        create_judge(name, baseline)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("default", {"odds": 0}),
        ("default", {"limit": 2}),
        ("default", {"refresh": 1}),
        ("default", {"heartbeat": 2.5}),
        ("default", {"price": -1}),
        ("default", {"margin": math.inf}),
        ("strict", {"rate": 1.0}),
        ("strict", {"horizon": 0}),
        ("threshold", {"sigmas": -1}),
        ("default", {"tau": -0.1}),
    ],
)
def test_values_out_of_range_are_refused(name, options):
    with pytest.raises(ValueError):
        create_judge(name, [(0, 1.0), (1, 1.1)], **options)


def test_unknown_names_and_options_are_told_to_the_user():
    with pytest.raises(UserError, match="oracle"):
        create_judge("oracle", [(0, 1.0)])
    with pytest.raises(UserError, match="ods"):
        create_judge("default", [(0, 1.0), (1, 1.1)], ods=3)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_states_the_defaults(name):
    """The YAML is where a user reads them; Python needs them for whoever calls without."""
    baseline = [(0, 1.0), (1, 1.1)]
    options = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert options["name"] == name
    assert create_judge(baseline=baseline, **options).options == create_judge(name, baseline).options
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(JUDGES)


@given(st.integers(0, 10_000), st.sampled_from(sorted(JUDGES)), st.integers(1, 3))
def test_what_comes_if_all_is_discarded_is_known_and_knowing_it_changes_nothing(seed, name, count):
    chance = random.Random(seed)
    judge = create_judge(name, [(i, 1.0 + chance.gauss(0, 0.01)) for i in range(3)], tau=0.001)
    for _ in range(chance.randrange(30)):  # somewhere in a search
        want = judge.next()
        judge.observe(want, 1.0 + chance.gauss(0, 0.01))
    want = judge.next()
    before = judge.to_json()
    upcoming = judge.upcoming(count)
    assert judge.to_json() == before
    for expected in upcoming:
        while judge.observe(want, None) is None:
            want = judge.next()
        want = judge.next()
        assert (want.arm, want.seed) == ("screen", expected.seed) == (expected.arm, expected.seed)
