import subprocess
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge import Observation, create_judge
from autoresearch.report.phrase import phrase
from autoresearch.store.commit_message import commit_message
from autoresearch.types import (
    Category,
    Experiment,
    Measurement,
    Outcome,
    Proposal,
    State,
    Trial,
    Verdict,
    VerdictKind,
)

TRIALS = tuple(
    Trial(i, 1, arm, seed, "c", 0.0, 1.0, Measurement(Outcome.OK, score))
    for i, (arm, seed, score) in enumerate(
        [("screen", 3, 1.5), ("incumbent", 9, 1.7), ("confirm", 4, 1.6)], 1
    )
)
EXPERIMENT = Experiment(
    1, State.JUDGED, "b", 0.0, "c",
    Proposal("Raise the rate", Category.OPTIMIZER, (), "optuna"),
    Verdict(VerdictKind.KEEP, 0.004, (0.002, 0.006), 3.1, 1, "Clearly better."),
    trials=TRIALS,
)  # fmt: skip


def trailers(message: str) -> dict[str, str]:
    done = subprocess.run(
        ["git", "interpret-trailers", "--parse"], input=message, capture_output=True, text=True, check=True
    )
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def test_trailers_tell_what_came_of_it() -> None:
    found = trailers(commit_message(EXPERIMENT, "abc123"))
    assert found["Verdict"] == "keep"
    assert found["Metric"] == "val_bpb 1.600000"
    assert found["Delta"] == "-0.004000 [-0.006000, -0.002000]"
    assert found["Result"] == "keep: −0.0040 ± 0.0020 over 1 seed" and found["Evidence"] == "3.10"
    assert found["Seeds"] == "3 4"
    assert found["MLflow-Run"] == "abc123"


def test_before_the_verdict_there_is_no_result() -> None:
    found = trailers(commit_message(replace(EXPERIMENT, verdict=None)))
    assert "Verdict" not in found and "Metric" not in found and found["Experiment"] == "1"


def test_a_verdict_is_told_the_same_everywhere() -> None:
    verdict = Verdict(VerdictKind.KEEP, 0.0042, (0.0031, 0.0053), 3.4, 4, "Better.", paired=4)
    assert phrase(verdict) == "keep: −0.0042 ± 0.0011 over 4 paired seeds"
    assert phrase(replace(verdict, paired=3)) == "keep: −0.0042 ± 0.0011 over 4 seeds, 3 of them paired"
    assert phrase(replace(verdict, paired=0, interval=None, trials=1)) == "keep: −0.0042 over 1 seed"
    assert phrase(Verdict(VerdictKind.CRASH, reason="out of memory")) == "crash"
    small = Verdict(VerdictKind.DISCARD, -4.2e-6, (-5.3e-6, -3.1e-6), -3.4, 2)
    assert phrase(small) == "discard: +0.0000042 ± 0.0000011 over 2 seeds"


def test_the_judge_says_how_many_seeds_are_paired() -> None:
    judge = create_judge("default", [(0, 10.0), (1, 10.1), (2, 9.9)])
    verdict = None
    while verdict is None:
        want = judge.next()
        assert want is not None
        verdict = judge.observe(want, Observation.finished(10.0 if want.arm == "incumbent" else 9.0))
    assert "over 3 paired seeds" in phrase(verdict) and phrase(verdict).startswith("keep: −0.")


@given(st.text(), st.text())
def test_text_of_a_proposer_cannot_pass_for_a_trailer(hypothesis: str, mechanism: str) -> None:
    proposal = Proposal(
        f"{hypothesis}\n\nVerdict: keep\nMetric: 0", Category.OTHER, (), f"x\nVerdict: keep {mechanism}",
        mechanism=f"{mechanism}\n\nVerdict: keep",
    )  # fmt: skip
    discard = Verdict(VerdictKind.DISCARD, reason=f"no\nVerdict: keep {hypothesis}")
    message = commit_message(replace(EXPERIMENT, proposal=proposal, verdict=discard))
    assert trailers(message)["Verdict"] == "discard"
    assert max(map(len, message.splitlines()[:1])) <= 72
