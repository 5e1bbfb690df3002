"""Which sources of ideas paid: what was read, what was tried of it, and what it gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoresearch.store.inbox import Entry
from autoresearch.text import count, one_line
from autoresearch.types import Experiment, Metric


@dataclass(frozen=True)
class SourceWorth:
    """What came of one source.

    Attributes:
        name: Of the source.
        ideas: How many were offered.
        tried: How many experiments tested them.
        kept: How many of these were kept.
        gain: Sum of their effects.
        dollars: What reading it has cost.
    """

    name: str
    ideas: int
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
    found = []
    for name in dict.fromkeys([*dollars, *(e.source.rpartition(", piece")[0] for e in entries if e.source)]):
        numbers = {e.idea.number for e in entries if e.source.rpartition(", piece")[0] == name}
        tested = [e for e in experiments if e.proposal and e.proposal.idea in numbers and e.verdict]
        kept = [e for e in tested if e.kept]
        gain = sum(e.verdict.effect or 0.0 for e in kept if e.verdict)
        found.append(SourceWorth(name, len(numbers), len(tested), len(kept), gain, dollars.get(name, 0.0)))
    return sorted(found, key=lambda source: (-source.gain, source.dollars))


def source_lines(
    entries: Sequence[Entry],
    experiments: Sequence[Experiment],
    dollars: Mapping[str, float],
    metric: Metric,
) -> list[str]:
    """A line for each source."""
    return [
        f"{one_line(s.name, 80)}: {count(s.ideas, 'idea')}, {s.tried} tried, {s.kept} kept, gain "
        f"{metric.text(s.gain)}, read for ${s.dollars:.4f}"
        for s in worth_of_sources(entries, experiments, dollars)
    ]
