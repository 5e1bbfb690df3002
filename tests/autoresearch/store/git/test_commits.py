import subprocess
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoresearch.store.git.commits import commit_message
from autoresearch.types import (
    Category,
    Direction,
    Experiment,
    Measurement,
    Metric,
    Outcome,
    Proposal,
    State,
    Trial,
    Verdict,
    VerdictKind,
)

METRIC = Metric("val_bpb", "bits per byte")
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


def test_trailers_contain_verdict_and_result() -> None:
    found = trailers(commit_message(EXPERIMENT, METRIC))
    assert found["Verdict"] == "keep"
    assert found["Metric"] == "val_bpb 1.600000"
    assert found["Delta"] == "-0.004000 [-0.006000, -0.002000]"
    assert found["Result"] == "keep: −0.0040 ± 0.0020 over 1 seed" and found["Evidence"] == "3.10"
    assert found["Seeds"] == "3 4"


def test_before_the_verdict_the_message_has_no_result() -> None:
    found = trailers(commit_message(replace(EXPERIMENT, verdict=None), METRIC))
    assert "Verdict" not in found and "Metric" not in found and found["Experiment"] == "1"


def test_a_gain_of_a_maximised_metric_is_positive() -> None:
    found = trailers(commit_message(EXPERIMENT, Metric("accuracy", "share", Direction.MAXIMIZE, digits=3)))
    assert found["Metric"] == "accuracy 1.600000"
    assert found["Delta"] == "+0.004000 [+0.002000, +0.006000]"
    assert found["Result"] == "keep: +0.0040 ± 0.0020 over 1 seed"


@given(st.text(), st.text())
def test_text_of_a_proposer_cannot_pass_for_a_trailer(hypothesis: str, mechanism: str) -> None:
    proposal = Proposal(
        f"{hypothesis}\n\nVerdict: keep\nMetric: 0", Category.OTHER, (), f"x\nVerdict: keep {mechanism}",
        mechanism=f"{mechanism}\n\nVerdict: keep",
    )  # fmt: skip
    discard = Verdict(VerdictKind.DISCARD, reason=f"no\nVerdict: keep {hypothesis}")
    message = commit_message(replace(EXPERIMENT, proposal=proposal, verdict=discard), METRIC)
    assert trailers(message)["Verdict"] == "discard"
    assert max(map(len, message.splitlines()[:1])) <= 72


def test_a_commit_says_who_computed_its_score() -> None:
    assert trailers(commit_message(EXPERIMENT, METRIC, "printed"))["Trust"] == "printed"
    assert "Trust" not in trailers(commit_message(EXPERIMENT, METRIC)), "as commits of older versions"
    assert "Trust" not in trailers(commit_message(replace(EXPERIMENT, verdict=None), METRIC, "printed"))
