"""The judges that are shipped keep the contract, and `create_judge` refuses what they cannot work with."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from autoresearch.errors import UserError
from autoresearch.judge import Judge, Observation, create_judge
from autoresearch.testing.judges import JudgeContract
from autoresearch.types import Arm, VerdictKind

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs" / "judge"
NAMES = ("default", "strict", "threshold", "greedy")


class TestDefault(JudgeContract):
    def make(self, baseline, tau=0.0):
        return create_judge("default", baseline, tau)


class TestStrict(JudgeContract):
    def make(self, baseline, tau=0.0):
        return create_judge("strict", baseline, tau)


class TestThreshold(JudgeContract):
    def make(self, baseline, tau=0.0):
        return create_judge("threshold", baseline, tau)


class TestGreedy(JudgeContract):
    def make(self, baseline, tau=0.0):
        return create_judge("greedy", baseline, tau)


def test_a_screening_must_be_answered_before_more_is_asked():
    judge = create_judge("default", [(0, 100.0), (1, 101.0)])
    while judge.next().arm is not Arm.SCREEN:
        pass
    assert judge.next() is None


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
def test_a_baseline_too_small_for_a_judge_is_refused_with_the_reason(name, baseline, message):
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
    ],
)
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(ValueError):
        create_judge(name, [(0, 1.0), (1, 1.1)], **options)


def test_unknown_names_and_options_are_told_to_the_user():
    with pytest.raises(UserError, match="oracle") as error:
        create_judge("oracle", [(0, 1.0)])
    assert all(name in error.value.hint for name in NAMES)
    with pytest.raises(UserError, match="ods"):
        create_judge("default", [(0, 1.0), (1, 1.1)], ods=3)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_states_the_defaults(name):
    """The YAML is where a user reads them; Python needs them for callers without a configuration."""
    baseline = [(0, 1.0), (1, 1.1)]
    options = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert options["name"] == name
    assert create_judge(baseline=baseline, **options).options == create_judge(name, baseline).options
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(NAMES)


def test_importing_the_judge_and_making_one_loads_no_numpy():
    code = (
        "import sys; from autoresearch.judge import create_judge;"
        "create_judge('default', [(0, 1.0), (1, 1.1)]); assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# State of a real search as an older version left it in the journal: one keep, one late trial.
OLD_STATE = """{"judge": "default", "state": {
"options": {"odds": 4.0, "refresh": 3, "heartbeat": 20, "limit": 12, "price": 0.005, "margin": 1.0},
"tau": 0.0029392005725605613, "fresh": 7, "complexity": 0.0, "candidates": 12, "confirmed": 2, "failed": 1,
"baseline": [[0, 1.7886572816956914], [1, 1.7792162616617309], [2, 1.7869667735163437]],
"_orders": {"planned": [], "open": [], "answers": [], "late": [["confirm", 6, 11, false]], "issued": 24},
"incumbent": {"runs": [[1, 1.7669764528308967], [2, 1.777609060852827], [0, 1.7782633889171724],
[3, 1.7748453347097626], [4, 1.7715589399198994], [5, 1.782606185936974]],
"correction": 0.00596739372426976, "luck": 0.002928013526254187, "luck_variance": 2.9062343805432916e-06,
"since": 13, "misses": 0, "suspects": [], "drifts": 0, "survived": 11, "moved": 0.0, "moved_variance": 0.0},
"runs": [], "pool": {"ss": 0.0002116066887389346, "df": 6, "cc": 0.00022369025706777166,
"ci": 0.0002083369160082826, "ii": 0.00019991414398857533, "pairs": 6},
"keeps": [{"effect": 0.011009038175948005, "error": 0.00410332977063669, "shrunk": 0.006596637780992884,
"interval": [1.734723475976807e-18, 0.015597250175562814], "trials": 6, "doubt": 0.1903739484246175,
"simplification": false, "suspicious": false, "margin": 0.0}],
"ratio": 1.1626916837906274, "looked": false, "turn": 12, "wish": "", "beside": []}}"""


EXPECTED = [
    (1.7799716512366994, 0.005741266717810805),
    [
        ("screen", 2, 25, False),
        ("confirm", 5, 26, False),
        ("confirm", 4, 27, False),
        ("incumbent", 7, 28, False),
    ],
    VerdictKind.KEEP,
    0.021042436274687812,
]


class TestStatesOfOlderVersions:
    def test_a_search_goes_on_as_it_would_have(self):
        """The requests are those of the version that wrote the state; what pairs share is learned anew."""
        judge = Judge.from_json(OLD_STATE)
        report = judge.report()
        assert (report.candidates, report.kept, report.failed) == (12, 1, 1)
        asked, verdict = [], None
        while verdict is None:
            request = judge.next()
            asked.append((str(request.arm), request.seed, request.number, request.thorough))
            score = 1.7745 if request.arm is Arm.INCUMBENT else 1.75 + 0.0005 * request.seed
            verdict = judge.observe(request, Observation.finished(score))
        assert [(report.incumbent.mean, report.noise), asked, verdict.kind, verdict.effect] == EXPECTED

    def test_a_candidate_that_was_being_judged_goes_on(self):
        """Requests without `probe` and states without `wish` and `beside` are older still."""
        data = json.loads(OLD_STATE)
        state = data["state"]
        del state["wish"], state["beside"]
        state["runs"] = [[1, 1.75]]
        state["_orders"] |= {"open": [["confirm", 5, 25], ["confirm", 4, 26]], "answers": [[26, 1.751]]}
        judge = Judge.from_json(json.dumps(data))
        [open_request] = judge.unanswered
        assert (open_request.seed, open_request.number) == (5, 25)
        assert judge.observe(open_request, Observation.failed()).kind is VerdictKind.DISCARD

    def test_what_it_writes_now_it_reads(self):
        judge = Judge.from_json(OLD_STATE)
        assert Judge.from_json(judge.to_json()).report() == judge.report()
