"""Where the time went: what a search did when, and the share of it in which the device was training.

Owns the arithmetic; the spans are the journal's (`Journal.timeline`). A search that was stopped and went on
later has not run in between: a stretch of more than `GAP` seconds in which nothing was done, by anybody, does
not count. Pictures are drawn by `timeplot`, traces by `trace`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoresearch.store.database import Span

ORDER = ("propose", "queue", "startup", "warmup", "train", "score", "judge", "record")
"""Phases as they follow each other; others come after these."""
TRAIN = "train"
BESIDE = ("propose", "queue")
"""Phases that need no device: what of them went on beside a trial cost no time, and does not count."""
TRIAL = ("startup", "warmup", TRAIN, "score")
"""Phases of a trial."""
GAP = 60.0


@dataclass(frozen=True)
class Use:
    """How a search used its time.

    Attributes:
        wall: Seconds in which it ran.
        training: Seconds of training, all devices together.
        devices: Most trainings that ran at the same time.
        phases: Seconds by phase, in order; see `BESIDE`.
        experiments: The same for each experiment, by its number.
    """

    wall: float
    training: float
    devices: int
    phases: dict[str, float]
    experiments: dict[int, dict[str, float]]

    @property
    def busy(self) -> float | None:
        """Share of the time in which a device was training; None if none ever was."""
        return self.training / (self.wall * self.devices) if self.training else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "wall_seconds": self.wall,
            "training_seconds": self.training,
            "devices": self.devices,
            "busy": self.busy,
            "phases": self.phases,
        }


def use(found: Iterable[Span]) -> Use:
    """Add up what was done, in whatever order it is given."""
    phases: defaultdict[str, float] = defaultdict(float)
    each: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    found = list(found)
    trials = _stretches((span for span in found if span.phase in TRIAL), gap=0.0)
    for span in found:
        seconds = max(0.0, span.finished - span.started)
        if span.phase in BESIDE:
            seconds -= _overlap(span, trials)
        phases[span.phase] += seconds
        each[span.experiment][span.phase] += seconds
    return Use(
        wall=sum(end - start for start, end in _stretches(found, GAP)),
        training=phases.get(TRAIN, 0.0),
        devices=max(1, _most_at_once([span for span in found if span.phase == TRAIN])),
        phases=_ordered(phases),
        experiments={number: _ordered(each[number]) for number in sorted(each)},
    )


def _stretches(found: Iterable[Span], gap: float) -> list[tuple[float, float]]:
    """When any of them went on: stretches without a gap longer than that."""
    stretches: list[tuple[float, float]] = []
    for span in sorted(found, key=lambda span: span.started):
        if stretches and span.started - stretches[-1][1] <= gap:
            stretches[-1] = stretches[-1][0], max(stretches[-1][1], span.finished)
        else:
            stretches.append((span.started, max(span.started, span.finished)))
    return stretches


def _overlap(span: Span, stretches: Sequence[tuple[float, float]]) -> float:
    """Seconds of a span that lie in one of the stretches, which are in order and apart."""
    first = max(0, bisect_right(stretches, (span.started, inf)) - 1)
    total = 0.0
    for start, end in stretches[first:]:
        if start >= span.finished:
            break
        total += max(0.0, min(end, span.finished) - max(start, span.started))
    return total


def _most_at_once(found: Iterable[Span]) -> int:
    # Where one ends as another begins, the end comes first.
    events = sorted(event for span in found for event in ((span.started, 1), (span.finished, -1)))
    now = most = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def _ordered(phases: dict[str, float]) -> dict[str, float]:
    rank = {name: i for i, name in enumerate(ORDER)}
    return {name: phases[name] for name in sorted(phases, key=lambda name: (rank.get(name, len(rank)), name))}
