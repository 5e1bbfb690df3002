"""Which sources of ideas paid: what was read, what was tried of it, and what it gained.

A source is a paper, a repository, or another search of the task.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoresearch.store.inbox import Entry
from autoresearch.text import count, one_line
from autoresearch.types import Experiment, Metric

PART = re.compile(r", (piece|experiment) \d+$")
"""End of where an idea was read: which part of the source."""


@dataclass(frozen=True)
class SourceWorth:
    """What came of one source.

    Attributes:
        name: Of the source.
        ideas: How many were offered.
        waiting: How many of them have not been taken up.
        tried: How many experiments tested them.
        kept: How many of these were kept.
        gain: Sum of their effects.
        dollars: What reading it has cost.
    """

    name: str
    ideas: int
    waiting: int
    tried: int
    kept: int
    gain: float
    dollars: float


def worth_of_sources(
    entries: Sequence[Entry], experiments: Sequence[Experiment], dollars: Mapping[str, float]
) -> list[SourceWorth]:
    """What came of each source, the most gainful first.

    Args:
        entries: The ideas of the search.
        experiments: What it has tried.
        dollars: Source -> what reading it has cost.
    """
    offered: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.source:
            offered[PART.sub("", entry.source)].append(entry)
    found = []
    for name in dict.fromkeys([*dollars, *offered]):
        numbers = {entry.idea.number for entry in offered[name]}
        tested = [e for e in experiments if e.proposal and e.proposal.idea in numbers and e.verdict]
        kept = [e for e in tested if e.kept]
        found.append(
            SourceWorth(
                name,
                ideas=len(numbers),
                waiting=sum(entry.state == "open" for entry in offered[name]),
                tried=len(tested),
                kept=len(kept),
                gain=sum(e.verdict.effect or 0.0 for e in kept if e.verdict),
                dollars=dollars.get(name, 0.0),
            )
        )
    return sorted(found, key=lambda source: (-source.gain, source.dollars))


def source_lines(
    entries: Sequence[Entry],
    experiments: Sequence[Experiment],
    dollars: Mapping[str, float],
    metric: Metric,
) -> list[str]:
    """A line for each source."""
    return [
        f"{one_line(s.name, 80)}: {count(s.ideas, 'idea')}, {s.waiting} waiting, {s.tried} tried, "
        f"{s.kept} kept, gain {metric.text(s.gain)}" + (f", read for ${s.dollars:.4f}" if s.dollars else "")
        for s in worth_of_sources(entries, experiments, dollars)
    ]
