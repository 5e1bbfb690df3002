"""Which instructions of the brief proposals followed, as they say, and how each paid.

A model that proposes copies the instruction that it follows. Here it is found again in the brief, whatever
was shortened or reworded on the way. What stands in no brief of the search is counted as such. This is what
models say: it tells what a proposal was for, not what made it succeed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from autoresearch.config.roles import for_proposer
from autoresearch.text import one_line
from autoresearch.types import Experiment, Metric

ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
ALIKE = 0.6
"""Least likeness of two texts (`difflib`), or share of the words said, that make them one instruction."""
UNKNOWN, SILENT = "(not in the brief)", "(none named)"
SHOWN = 90


@dataclass
class Share:
    """What came of the proposals that follow one instruction.

    Attributes:
        instruction: Its text, or `UNKNOWN`, or `SILENT` for proposals that name none.
        tried: Proposals with a verdict.
        kept: Of them.
        gain: What these gained when they were kept, by the judge's estimates.
        failed: Crashed or invalid ones.
        dollars: What all of them cost.
    """

    instruction: str
    tried: int = 0
    kept: int = 0
    gain: float = 0.0
    failed: int = 0
    dollars: float = 0.0


def instructions(brief: str) -> list[str]:
    """The items and paragraphs of a brief, each on one line; headings and front matter are none."""
    body = re.sub(r"\A---\n.*?\n---\n", "", brief, flags=re.DOTALL)
    found: list[str] = []
    going_on = False
    for line in body.splitlines():
        item, text = ITEM.match(line), ITEM.sub("", line, count=1).strip()
        if not text or text.startswith("#"):
            going_on = False
        elif going_on and not item:
            found[-1] += f" {text}"
        else:
            found.append(text)
            going_on = True
    return [text.replace("**", "") for text in found]


def shares(experiments: Iterable[Experiment], briefs: Sequence[str]) -> list[Share]:
    """How each instruction paid, the one that gained most first; empty if no proposal names one.

    Args:
        experiments: Of one search, or of several with the same briefs.
        briefs: The texts of the brief, if it was changed meanwhile.
    """
    known = list(dict.fromkeys(text for brief in briefs for text in instructions(for_proposer(brief))))
    found: dict[str, Share] = {}
    for e in experiments:
        if e.proposal is None or e.verdict is None:
            continue
        said = e.proposal.instruction
        name = (meant(said, known) or UNKNOWN) if said else SILENT
        share = found.setdefault(name, Share(name))
        share.tried += 1
        share.kept += e.kept
        share.gain += e.gain
        share.failed += e.failed
        share.dollars += e.proposal.cost.dollars
    if set(found) <= {SILENT}:
        return []
    for text in known:
        found.setdefault(text, Share(text))
    return sorted(found.values(), key=lambda share: (-share.gain, -share.tried))


def meant(said: str, known: Sequence[str]) -> str | None:
    """The instruction that words stand for; None if there is none like them."""
    best = max(known, key=lambda text: _likeness(said, text), default=None)
    return best if best is not None and _likeness(said, best) >= ALIKE else None


def _likeness(said: str, text: str) -> float:
    one, other = _plain(said), _plain(text)
    if not one:
        return 0.0
    words = set(one.split())
    within = len(words & set(other.split())) / len(words) if len(words) > 2 else 0.0
    return max(SequenceMatcher(None, one, other, autojunk=False).ratio(), within, float(one in other))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def as_text(found: Sequence[Share], metric: Metric) -> str:
    """A table for a terminal."""
    if not found:
        return "No proposal names an instruction of the brief: only language models do."
    lines = [f"tried  kept  failed  {'gain':>8}  dollars  instruction"]
    lines += [
        f"{s.tried:5}  {s.kept:4}  {s.failed:6}  {s.gain:+8.{metric.digits}f}  {s.dollars:7.2f}  "
        f"{one_line(s.instruction, SHOWN)}"
        for s in found
    ]
    return "\n".join(lines)
