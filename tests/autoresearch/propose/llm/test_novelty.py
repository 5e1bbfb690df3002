"""The same idea in other words is noticed; another idea is not; nothing is forbidden."""

from dataclasses import replace

import pytest

from autoresearch.errors import Refused
from autoresearch.propose.llm.novelty import THRESHOLD, most_like, similarities, with_difference, words
from autoresearch.types import Edit, VerdictKind
from tests.support.histories import baseline, context, experiment

WARMUP = ("Warm the learning rate up over the first 5% of the budget so early steps do not destabilise.",
          "WARMUP = 0.0  # 0..0.2; share", "WARMUP = 0.05  # 0..0.2; share")  # fmt: skip
SWIGLU = ("Replace ReLU squared by SwiGLU in the MLP, which is better per parameter.",
          "x = F.relu(self.up(x)).square()", "x = F.silu(self.gate(x)) * self.up(x)")  # fmt: skip
TIED = ("Tie the output head to the input embedding to save parameters.",
        "self.head = nn.Linear(WIDTH, vocab)", "self.head.weight = self.embed.weight")  # fmt: skip
TRIED = (WARMUP, SWIGLU, TIED)

SAME = [
    (0, "A short linear warmup of 2% of the budget should keep early steps from destabilising the matrices.",
     "WARMUP = 0.0  # 0..0.2; share", "WARMUP = 0.02  # 0..0.2; share"),
    (1, "A gated SiLU MLP (SwiGLU) instead of squared ReLU gives more capacity per parameter.",
     "x = F.relu(self.up(x)).square()", "h = F.silu(self.gate(x)) * self.up(x)"),
    (2, "Share the weights of the embedding and the output head.",
     "self.head = nn.Linear(WIDTH, vocab)", "self.head.weight = self.embed.weight"),
    (0, WARMUP[0], WARMUP[1], "WARMUP = 0.1  # 0..0.2; share"),
]  # fmt: skip

DIFFERENT = [
    ("Add a learned scalar gate to each residual branch, initialised at zero.",
     "x = x + self.attention(norm(x))", "x = x + self.scale * self.attention(norm(x))"),
    ("Raise the Muon momentum late in training.", "MOMENTUM = 0.95", "momentum = 0.95 + 0.02 * progress"),
    ("Use a longer cooldown: let the learning rate fall over 70% of training.",
     "COOLDOWN = 0.5  # 0.2..1.0", "COOLDOWN = 0.7  # 0.2..1.0"),
    ("Double the batch late in training, when gradients are noisy.",
     "rows = ROWS", "rows = ROWS * (2 if run.progress > 0.5 else 1)"),
    ("", "", "x"),
]  # fmt: skip


def tried(kind="discard"):
    diffs = [f"--- a/t\n+++ b/t\n@@ -1 +1 @@\n-{old}\n+{new}\n" for _, old, new in TRIED]
    return [baseline()] + [
        experiment(n, kind, effect=-0.01, scores=(1.76,), hypothesis=words, diff=diff)
        for n, ((words, _, _), diff) in enumerate(zip(TRIED, diffs, strict=True), start=1)
    ]


def proposal(hypothesis, old, new):
    some = tried()[1].proposal
    return replace(some, hypothesis=hypothesis, edits=(Edit("train.py", old, new),), mechanism="It must.")


@pytest.mark.parametrize(("which", "hypothesis", "old", "new"), SAME)
def test_the_same_idea_is_sent_back_until_a_difference_is_stated(which, hypothesis, old, new):
    known, same = context(tried()), proposal(hypothesis, old, new)
    for _ in range(3):
        with pytest.raises(Refused, match=f"much like experiment {which + 1} \\(discard\\)"):
            with_difference(same, "", known)
    told = with_difference(same, "Now the weights are tied first.", known)
    assert told.mechanism == "It must. What is different now: Now the weights are tied first."


def test_one_refusal_does_not_let_another_old_idea_pass():
    known = context(tried())
    for which, hypothesis, old, new in SAME[:2]:
        with pytest.raises(Refused, match=f"experiment {which + 1}"):
            with_difference(proposal(hypothesis, old, new), "", known)


@pytest.mark.parametrize(("which", "hypothesis", "old", "new"), SAME)
def test_a_difference_that_is_stated_at_once_is_enough(which, hypothesis, old, new):
    told = with_difference(proposal(hypothesis, old, new), "Yes.", context(tried()))
    assert "different now" in told.mechanism


@pytest.mark.parametrize(("hypothesis", "old", "new"), DIFFERENT)
def test_another_idea_passes(hypothesis, old, new):
    other = proposal(hypothesis, old, new)
    assert with_difference(other, "", context(tried())) == other


def test_what_was_kept_may_be_built_on():
    same = proposal(*SWIGLU)
    assert with_difference(same, "", context(tried("keep"))) == same
    assert most_like(same, context([baseline()])) is None


@pytest.mark.parametrize(
    ("hypothesis", "old", "new"),
    [
        ("Fewer early steps at a small rate.", "COOLDOWN = 0.5  # 0.2..1.0", "COOLDOWN = 0.3  # 0.2..1.0"),
        ("Squash the activation.", "x = F.relu(self.up(x)).square()", "x = F.relu(self.up(x)).tanh()"),
    ],
)
def test_another_change_of_the_same_line_is_another_idea(hypothesis, old, new):
    earlier = ("Let the rate fall for longer.", "COOLDOWN = 0.5  # 0.2..1.0", "COOLDOWN = 0.7  # 0.2..1.0")
    diff = f"--- a/t\n+++ b/t\n@@ -1 +1 @@\n-{earlier[1]}\n+{earlier[2]}\n"
    past = [*tried(), experiment(4, "discard", effect=-0.01, hypothesis=earlier[0], diff=diff)]
    other = proposal(hypothesis, old, new)
    assert with_difference(other, "", context(past)) == other
    again = proposal("A longer fall of the rate.", earlier[1], "COOLDOWN = 0.65  # 0.2..1.0")
    with pytest.raises(Refused, match="experiment 4"):
        with_difference(again, "", context(past))


def test_an_idea_whose_program_crashed_may_be_tried_again():
    same = proposal(*TIED)
    assert with_difference(same, "", context(tried("crash"))) == same


@pytest.mark.parametrize("kind", ["invalid", "prune", "discard"])
def test_every_kind_of_failure_counts(kind):
    found = most_like(proposal(*TIED), context(tried(kind)))
    assert found is not None and found[0].number == 3 and found[1] > THRESHOLD
    assert found[0].verdict is not None and found[0].verdict.kind is VerdictKind(kind)


def test_likeness_is_a_cosine():
    one, other = words("Raise MATRIX_LR from 0.02 to 0.03"), words("nothing alike")
    assert one == ["raise", "matrix", "lr", "0.02", "0.03"]
    assert similarities(one, [one, other, []]) == pytest.approx([1.0, 0.0, 0.0])
