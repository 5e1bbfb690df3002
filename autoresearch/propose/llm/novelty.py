"""Compares a proposal with earlier failures: is it an old idea in other words?

The likeness is the cosine of TF-IDF vectors (Salton & Buckley 1988; smoothed as in scikit-learn) of the
hypothesis and the changed lines, after splitting names into words and cutting words to their stems.

Invariant: this never forbids an idea. An idea that is similar to a failed one goes back until its
author says what is different; any answer is accepted. The search itself refuses a repeated program.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from autoresearch.errors import Refused
from autoresearch.propose.base import Context
from autoresearch.propose.llm.history import change_line, changed_lines
from autoresearch.types import Experiment, Proposal, VerdictKind

THRESHOLD = 0.5
"""Above this similarity two ideas count as the same. Paraphrases of one idea have 0.45 to 0.8, other ideas
less than 0.35 unless they change the same line (see the tests). A false alarm costs a call, a miss costs a
training."""

STEM = 6
"""Letters kept of a word, so that `increase` and `increasing` are the same."""

MAX_LINES = 60
"""Changed lines that are compared; more lines of a rewritten file say nothing about the idea."""

STOP = frozenset(
    re.findall(r"\w+", "a an and as at be by for from in into is it its of on or than that the this to with")
)

Vector = Mapping[str, float]


def with_difference(proposal: Proposal, difference: str, context: Context) -> Proposal:
    """The proposal, with its difference from earlier ones added to its mechanism.

    Args:
        proposal: A new one.
        difference: The author's words about it.
        context: Its history is what the proposal is compared with.

    Raises:
        Refused: If it is similar to a failed one, and the author does not say how it differs.
    """
    if difference:
        why = f"{proposal.mechanism} What is different now: {difference}".strip()
        return replace(proposal, mechanism=why)
    alike = most_like(proposal, context)
    if alike is None or alike[1] < THRESHOLD:
        return proposal
    old = alike[0]
    assert old.proposal and old.verdict
    raise Refused(
        f"this is much like experiment {old.number} ({old.verdict.kind}): "
        f"{old.proposal.hypothesis[:300]} [{change_line(old)[:300]}]. Either say in `difference` what is "
        "different now and why that should matter, or propose something else"
    )


def most_like(proposal: Proposal, context: Context) -> tuple[Experiment, float] | None:
    """The failed experiment that is most similar to a proposal, and the similarity in [0, 1]."""
    failed = [
        e for e in context.history if e.proposal and e.verdict and e.verdict.kind is not VerdictKind.KEEP
    ]
    if not failed:
        return None
    new = words(proposal.hypothesis, _changed(proposal, context.sources))
    old = [words(e.proposal.hypothesis, _lines(e)) for e in failed if e.proposal]
    likeness = similarities(new, old)
    best = max(range(len(failed)), key=likeness.__getitem__)
    return failed[best], likeness[best]


def similarities(new: Sequence[str], old: Sequence[Sequence[str]]) -> list[float]:
    """Cosines of the TF-IDF vectors of one text with others."""
    texts = [new, *old]
    found = Counter(word for text in texts for word in set(text))
    rarity = {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in found.items()}
    vectors = [_vector(text, rarity) for text in texts]
    return [sum(value * other.get(word, 0.0) for word, value in vectors[0].items()) for other in vectors[1:]]


def words(hypothesis: str, lines: Sequence[str] = ()) -> list[str]:
    """Words of a sentence and of changed lines: names split, numbers kept, endings cut."""
    text = " ".join([hypothesis, *lines[:MAX_LINES]])
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)
    found = re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?|[^\W\d_]+", text.lower())
    return [word if word[0].isdigit() else word[:STEM] for word in found if word not in STOP]


def _vector(text: Sequence[str], rarity: Mapping[str, float]) -> Vector:
    weights = {word: (1 + math.log(count)) * rarity[word] for word, count in Counter(text).items()}
    length = math.sqrt(sum(value * value for value in weights.values()))
    return {word: value / length for word, value in weights.items()} if length else {}


def _lines(experiment: Experiment) -> list[str]:
    removed, added = changed_lines(experiment)
    return [*removed, *added]


def _changed(proposal: Proposal, sources: Mapping[str, str]) -> list[str]:
    """Lines that the edits really change; an edit quotes its surroundings too."""
    found: list[str] = []
    for edit in proposal.edits:
        old = (edit.search or sources.get(edit.path, "")).splitlines()
        new = edit.replace.splitlines()
        for tag, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag != "equal":
                found += [*old[a:b], *new[c:d]]
    return [line.strip() for line in found if line.strip()]
