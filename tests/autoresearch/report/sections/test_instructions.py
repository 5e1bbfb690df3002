"""Instructions of a brief are found again in what proposals say they follow, and add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.config import BRIEFS
from autoresearch.report.sections.instructions import SILENT, UNKNOWN, as_text, instructions, meant, shares
from autoresearch.types import Cost, Experiment, VerdictKind
from tests.support.searches import METRIC, baseline, tried

BRIEF = """---
knobs: LR
---
# Brief: a title

## Where gains are

1. **Learning rates and schedule.** Short budgets
   favour higher peaks.
2. The optimizer: momentum, weight decay.

- Remove what does not matter.

Start with what is large.
"""


def following(
    number: int, words: str, kind: VerdictKind = VerdictKind.DISCARD, effect: float = 0.0
) -> Experiment:
    made = tried(number, kind, ("screen", 1.0), effect=effect)
    assert made.proposal is not None
    return replace(made, proposal=replace(made.proposal, instruction=words, cost=Cost(dollars=0.5)))


def test_items_and_paragraphs_are_instructions() -> None:
    assert instructions(BRIEF) == [
        "Learning rates and schedule. Short budgets favour higher peaks.",
        "The optimizer: momentum, weight decay.",
        "Remove what does not matter.",
        "Start with what is large.",
    ]


@pytest.mark.parametrize(
    "said, found",
    [
        ("Learning rates and schedule", 0),
        ("1. **Learning rates and schedule.** Short budgets favour", 0),
        ("the optimizer", 1),
        ("remove what doesn't matter", 2),
        ("Try a convolution in front of each block", None),
        ("?!", None),
    ],
)
def test_what_is_said_is_found_again(said: str, found: int | None) -> None:
    known = instructions(BRIEF)
    assert meant(said, known) == (None if found is None else known[found])


@pytest.mark.parametrize("path", sorted(BRIEFS.glob("*.md")), ids=lambda path: path.stem)
def test_the_first_words_of_each_instruction_of_a_shipped_brief_are_enough(path) -> None:
    known = instructions(path.read_text(encoding="utf-8"))
    assert len(known) >= 5
    for text in known:
        assert meant(" ".join(text.split()[:8]), known) == text


def test_shares_add_up_and_say_what_was_never_followed() -> None:
    found = shares(
        [
            baseline(1.0, 1.0),
            following(1, "learning rates and schedule", VerdictKind.KEEP, 0.02),
            following(2, "Learning rates", VerdictKind.CRASH),
            following(3, "be lucky"),
            following(4, ""),
        ],
        [BRIEF, BRIEF],
    )
    first = found[0]
    assert (first.tried, first.kept, first.failed, first.gain, first.dollars) == (2, 1, 1, 0.02, 1.0)
    by_name = {share.instruction: share.tried for share in found}
    assert by_name[UNKNOWN] == by_name[SILENT] == 1 and by_name["Start with what is large."] == 0
    assert "+0.0200" in as_text(found, METRIC)
    assert shares([baseline(1.0), following(1, "")], [BRIEF]) == []
    assert "only language models" in as_text([], METRIC)


@given(st.text(), st.lists(st.text()))
def test_any_text_is_survived(brief: str, said: list[str]) -> None:
    found = shares([following(n, text) for n, text in enumerate(said, 1)], [brief])
    assert sum(share.tried for share in found) in (0, len(said))
