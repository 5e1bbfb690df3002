"""Small histories of searches, for tests of proposers."""

from autoresearch.propose.base import Context
from autoresearch.tasks.gpt.task import GptTask
from autoresearch.tasks.gpt.words import prompt_text
from autoresearch.types import (
    Category,
    Edit,
    Experiment,
    Measurement,
    Outcome,
    Proposal,
    State,
    Trial,
    Verdict,
    VerdictKind,
)

SOURCE = """\
from nanomodel.harness import at

DEPTH = at(3, 8)      # 2..6
LR = at(0.02, 0.01)   # x4
WARMUP = 0.0          # 0..0.2
ACT = "relu2"         # relu2 | gelu | swiglu


def main():
    train(DEPTH, LR, WARMUP, ACT)


def train(*knobs):
    return knobs
"""


def trial(number, commit, score, curve=(), log="", reason=""):
    outcome = Outcome.OK if score is not None else Outcome.CRASH
    result = Measurement(outcome, score, reason, {"steps": 100.0}, curve, log)
    return Trial(number, number, "screen", number, commit, 0.0, 1.0, result)


def experiment(
    number,
    kind,
    *,
    effect=None,
    scores=(),
    diff="",
    params=None,
    category=Category.OPTIMIZER,
    hypothesis="",
    reason="",
    log="",
    proposer="anthropic:claude-sonnet-5-5",
    **proposal,
):
    """A judged experiment; `scores` are its candidate's."""
    commit = f"c{number:03d}"
    trials = tuple(trial(number * 10 + i, commit, score, log=log) for i, score in enumerate(scores))
    if not scores:
        trials = (trial(number * 10, commit, None, log=log, reason=reason),)
    return Experiment(
        number=number,
        state=State.RECORDED,
        parent="c000",
        created=0.0,
        commit=commit,
        proposal=Proposal(
            hypothesis or f"idea {number}",
            category,
            (Edit("train.py", "a", f"b{number}"),),
            proposer,
            params=params or {},
            **proposal,
        ),
        verdict=Verdict(
            VerdictKind(kind),
            effect,
            None if effect is None else (effect - 0.004, effect + 0.004),
            None if effect is None else effect / 0.002,
            len(scores),
            reason or f"because of {number}",
        ),
        diff=diff,
        finished=1.0,
        trials=trials,
    )


def baseline(score=1.75, curve=((0.0, 7.6), (0.5, 4.0), (1.0, 3.5))):
    return Experiment(
        0, State.RECORDED, "c000", 0.0, "c000", finished=1.0, trials=(trial(1, "c000", score, curve),)
    )


def context(
    history=None, *, source=SOURCE, brief="Find a better optimizer.", score=1.75, noise=0.005, seed=0, **more
):
    history = (baseline(),) if history is None else tuple(history)
    more = {"task": prompt_text(""), "metric": GptTask.metric, **more}
    return Context(
        "night1", brief, {"train.py": source}, {"train.py": SOURCE}, history, score, noise, seed=seed, **more
    )
