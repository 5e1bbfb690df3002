"""Compares a proposal with earlier failures: is it an old idea in other words?

The likeness is the mean of two cosines of TF-IDF vectors (Salton & Buckley 1988; smoothed as in
scikit-learn): of the hypotheses, and of what the changes do. What a change does are the words that it takes
out and puts in, not the lines that it touches, and for a number whether it rises or falls. Names are split
into words, and words cut to their stems. An idea whose program crashed was not tested, so it is compared with
nothing.

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
"""Above this similarity two ideas count as the same. Paraphrases of one idea have 0.6 to 1, other ideas less
than 0.1, also where they change the same line (see the tests). A false alarm costs a call, a miss costs a
training."""

STEM = 6
"""Letters kept of a word, so that `increase` and `increasing` are the same."""

NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"

NOT_COMPARED = (VerdictKind.KEEP, VerdictKind.CRASH)
"""Verdicts that say nothing against an idea."""

MOST_COMPARED = 1000
"""Latest experiments with which an idea is compared, which takes a tenth of a second: older failures were on
top of other scripts."""

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
    if context.without_history:
        return proposal
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
    latest = context.history[-MOST_COMPARED:]
    failed = [e for e in latest if e.proposal and e.verdict and e.verdict.kind not in NOT_COMPARED]
    if not failed:
        return None
    said = similarities(
        words(proposal.hypothesis), [words(e.proposal.hypothesis) for e in failed if e.proposal]
    )
    done = similarities(
        effects(*_changed(proposal, context.sources)), [effects(*changed_lines(e)) for e in failed]
    )
    likeness = [(a + b) / 2 for a, b in zip(said, done, strict=True)]
    best = max(range(len(failed)), key=likeness.__getitem__)
    return failed[best], likeness[best]


def similarities(new: Sequence[str], old: Sequence[Sequence[str]]) -> list[float]:
    """Cosines of the TF-IDF vectors of one text with others."""
    texts = [new, *old]
    found = Counter(word for text in texts for word in set(text))
    rarity = {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in found.items()}
    vectors = [_vector(text, rarity) for text in texts]
    return [sum(value * other.get(word, 0.0) for word, value in vectors[0].items()) for other in vectors[1:]]


def words(text: str) -> list[str]:
    """Words of a text: names split, numbers kept, endings cut."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)
    found = re.findall(rf"{NUMBER}|[^\W\d_]+", text.lower())
    return [word if word[0].isdigit() else word[:STEM] for word in found if word not in STOP]


def effects(removed: Sequence[str], added: Sequence[str]) -> list[str]:
    """What a change does: words that it takes out and puts in, and names of numbers that rise or fall.

    Args:
        removed: Lines that it removes.
        added: Lines that it adds.
    """
    removed, added = (_code(lines) for lines in (removed, added))
    found: list[str] = []
    left: list[str] = []
    right: list[str] = []
    same = dict(zip(removed, added, strict=False)) if len(removed) == len(added) else {}
    for old, new in same.items():
        moved = _moved(old, new)
        found += [f"{word} {moved}" for word in words(old) if moved and not word[0].isdigit()]
        if not moved:
            left, right = [*left, old], [*right, new]
    if not same:
        left, right = list(removed), list(added)
    out, into = (Counter(words(" ".join(lines))) for lines in (left, right))
    found += [f"-{word}" for word in (out - into).elements()]
    return found + [f"+{word}" for word in (into - out).elements()]


def _code(lines: Sequence[str]) -> list[str]:
    """The first lines without their comments, as far as a `#` tells."""
    return [line.partition("#")[0].strip() for line in lines[:MAX_LINES]]


def _moved(old: str, new: str) -> str:
    """Whether numbers of a line rise or fall, and nothing else changes; empty if that is not so."""
    before, after = (re.findall(NUMBER, line.lower()) for line in (old, new))
    if re.sub(NUMBER, "#", old.lower()) != re.sub(NUMBER, "#", new.lower()) or len(before) != len(after):
        return ""
    signs = {float(b) > float(a) for a, b in zip(before, after, strict=True) if float(a) != float(b)}
    return ("up" if signs.pop() else "down") if len(signs) == 1 else ""


def _vector(text: Sequence[str], rarity: Mapping[str, float]) -> Vector:
    weights = {word: (1 + math.log(count)) * rarity[word] for word, count in Counter(text).items()}
    length = math.sqrt(sum(value * value for value in weights.values()))
    return {word: value / length for word, value in weights.items()} if length else {}


def _changed(proposal: Proposal, sources: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Lines that the edits really remove and add; an edit quotes its surroundings too."""
    removed: list[str] = []
    added: list[str] = []
    for edit in proposal.edits:
        old = (edit.search or sources.get(edit.path, "")).splitlines()
        new = edit.replace.splitlines()
        for tag, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag != "equal":
                removed += [line.strip() for line in old[a:b] if line.strip()]
                added += [line.strip() for line in new[c:d] if line.strip()]
    return removed, added
