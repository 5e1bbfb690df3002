"""Did models, their history, and sources of ideas pay for themselves?

A source is a paper, a repository, or another search of the task. Models are compared with the controls of a
portfolio. What is compared is confirmed gain per dollar, where the time of devices has a price too. The
interval is a bootstrap over experiments (Efron 1979), with a seed of its own, so that a page is the same each
time. With few experiments it is wide, and a group that never gained says little: then nothing is called
established.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from autoresearch.propose.bandit import INDEPENDENT
from autoresearch.store.inbox import Entry
from autoresearch.text import count, one_line
from autoresearch.types import Experiment, Metric

DRAWS, LEAST = 2000, 5
"""Number of resamples, and of experiments in each group without which nothing is compared."""

GainAndCost = tuple[float, float]


PART = re.compile(r", (piece|experiment) \d+$")
"""End of where an idea was read: which part of the source."""


@dataclass(frozen=True)
class Comparison:
    """Gain per dollar of two groups of experiments.

    Attributes:
        first: The group in question, in words.
        second: Its control, in words.
        rates: Gain per dollar of both.
        counts: Experiments of both.
        interval: 95% interval of the difference.
    """

    first: str
    second: str
    rates: tuple[float, float]
    counts: tuple[int, int]
    interval: tuple[float, float]

    def sentence(self, metric: Metric) -> str:
        """For a person."""
        digits, (low, high) = metric.digits, self.interval
        sure = "this is not established" if low <= 0 <= high else "this is established"
        more = f"{self.rates[0] - self.rates[1]:+.{digits}f}"
        return (
            f"{self.first} gained {self.rates[0]:.{digits}f} {metric.unit} per dollar in {self.counts[0]} "
            f"experiments, {self.second} {self.rates[1]:.{digits}f} in {self.counts[1]}, device time "
            f"included: a difference of {more} (95%: {low:+.{digits}f} to {high:+.{digits}f}), so {sure}."
        )


def comparisons(experiments: Sequence[Experiment], device_hour: float) -> list[Comparison]:
    """Models against plain tuning, and models with the history against those without.

    Args:
        experiments: Of a search.
        device_hour: What an hour of a device is worth, in dollars.
    """
    models, tuning, alone = [], [], []
    for experiment in experiments:
        proposal = experiment.proposal
        if proposal is None or experiment.verdict is None:
            continue
        found = max(experiment.gain, 0.0), experiment.dollars(device_hour)
        if proposal.kind == INDEPENDENT:
            alone.append(found)
        elif proposal.kind:
            models.append(found)
        elif proposal.params:
            tuning.append(found)
    pairs = (
        ("Models", "plain tuning", models, tuning),
        ("Models that know the history", "those that do not", models, alone),
    )
    return [_compared(*pair) for pair in pairs if min(len(pair[2]), len(pair[3])) >= LEAST]


def _compared(first: str, second: str, one: list[GainAndCost], two: list[GainAndCost]) -> Comparison:
    draw = Random(f"{len(one)} {len(two)}")
    differences = sorted(
        _rate(draw.choices(one, k=len(one))) - _rate(draw.choices(two, k=len(two))) for _ in range(DRAWS)
    )
    interval = differences[int(0.025 * DRAWS)], differences[int(0.975 * DRAWS)]
    return Comparison(first, second, (_rate(one), _rate(two)), (len(one), len(two)), interval)


def _rate(found: Sequence[GainAndCost]) -> float:
    """Gain per dollar; 0 if nothing was spent."""
    cost = sum(cost for _, cost in found)
    return sum(gain for gain, _ in found) / cost if cost else 0.0


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
                gain=sum(e.gain for e in kept),
                dollars=dollars.get(name, 0.0),
            )
        )
    return sorted(found, key=lambda source: (-source.gain, source.dollars))


def source_lines(
    entries: Sequence[Entry], experiments: Sequence[Experiment], dollars: Mapping[str, float], metric: Metric
) -> list[str]:
    """A line for each source."""
    return [
        f"{one_line(s.name, 80)}: {count(s.ideas, 'idea')}, {s.waiting} waiting, {s.tried} tried, "
        f"{s.kept} kept, gain {metric.text(s.gain)}" + (f", read for ${s.dollars:.4f}" if s.dollars else "")
        for s in worth_of_sources(entries, experiments, dollars)
    ]
