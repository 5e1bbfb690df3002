"""Guards: further metrics beside the deciding one, on which a kept change may not lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.types.choices import Direction
from autoresearch.types.plain import Plain


@dataclass(frozen=True)
class GuardMetric(Plain):
    """A further metric, which a trusted scorer measures.

    Attributes:
        name: Such as "rare".
        text: What it measures, in words.
        metric: Its name among the metrics of a measurement.
        items: Name of the file with its losses of single items; empty: it has none.
        definition: What the task is asked to measure, as data; empty: it measures that anyway.
        direction: Which way is better.
        margin: Share of its value that a change may cost without being a loss.
    """

    name: str
    text: str
    metric: str
    items: str = ""
    definition: Mapping[str, Any] = field(default_factory=dict)
    direction: Direction = Direction.MINIMIZE
    margin: float = 0.0

    @property
    def sign(self) -> int:
        """By which a value is multiplied so that lower is better."""
        return 1 if self.direction is Direction.MINIMIZE else -1


@dataclass(frozen=True)
class GuardGain(Plain):
    """What a change does to a guard.

    Attributes:
        guard: Its name.
        gain: Positive is better; None if it was not measured.
        interval: Of `gain`, wide enough for all guards together; None if the noise is not known.
        runs: Runs of the candidate with this metric.
        lost: Whether the change loses beyond the noise and the margin.
    """

    guard: str
    gain: float | None = None
    interval: tuple[float, float] | None = None
    runs: int = 0
    lost: bool = False
