"""Where the time went: what a search did when, the share of it spent training, and the same as a trace.

The spans come from the journal (`Journal.timeline`). A stretch of more than `GAP` seconds in which nothing
was done does not count: the search was stopped in between. A trace is for Perfetto (ui.perfetto.dev) or
chrome://tracing, in Google's Trace Event Format: complete events ("X") with times in microseconds since the
first span, and names of rows ("M"). Not covered: the picture (`plot`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from autoresearch.text import one_line, scrub
from autoresearch.types import Experiment, Trial

if TYPE_CHECKING:
    from autoresearch.store.database import Span

ORDER = ("propose", "queue", "startup", "warmup", "train", "score", "judge", "record")
"""Phases in their usual order; others come after these."""
TRAIN = "train"
BESIDE = ("propose", "queue")
"""Phases that need no device: the part of them that overlaps a trial costs no time, and does not count."""
TRIAL = ("startup", "warmup", TRAIN, "score")
"""Phases of a trial."""
GAP = 60.0

PROCESS = 1
PROPOSING, LOOP, DEVICE = 1, 2, 10
"""Numbers of a trace's rows; further devices count up from `DEVICE`."""


@dataclass(frozen=True)
class TimeUse:
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


def time_use(found: Iterable[Span]) -> TimeUse:
    """Add up what was done; spans may come in any order."""
    phases: defaultdict[str, float] = defaultdict(float)
    each: defaultdict[int, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    found = list(found)
    trials = _stretches((span for span in found if span.phase in TRIAL), gap=0.0)
    for span in found:
        seconds = max(0.0, span.finished - span.started)
        if span.phase in BESIDE:
            seconds -= _overlap(span, trials)
        phases[span.phase] += seconds
        if span.experiment >= 0:  # not after the search
            each[span.experiment][span.phase] += seconds
    return TimeUse(
        wall=sum(end - start for start, end in _stretches(found, GAP)),
        training=phases.get(TRAIN, 0.0),
        devices=max(1, _most_at_once([span for span in found if span.phase == TRAIN])),
        phases=_ordered(phases),
        experiments={number: _ordered(each[number]) for number in sorted(each)},
    )


def _stretches(found: Iterable[Span], gap: float) -> list[tuple[float, float]]:
    """Intervals covered by the spans, joined where the gap between them is at most `gap` seconds."""
    stretches: list[tuple[float, float]] = []
    for span in sorted(found, key=lambda span: span.started):
        if stretches and span.started - stretches[-1][1] <= gap:
            stretches[-1] = stretches[-1][0], max(stretches[-1][1], span.finished)
        else:
            stretches.append((span.started, max(span.started, span.finished)))
    return stretches


def _overlap(span: Span, stretches: Sequence[tuple[float, float]]) -> float:
    """Seconds of a span that lie in one of the stretches, which are sorted and disjoint."""
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


def trace(name: str, found: Sequence[Span], experiments: Iterable[Experiment]) -> dict[str, Any]:
    """A search as a JSON-ready trace: a row for each device, one for proposing, one for everything else.

    Args:
        name: Of the search.
        found: What was done when, sorted by start.
        experiments: For the hypothesis and the verdict shown with each span.
    """
    experiments = list(experiments)
    words = {e.number: _event_words(e) for e in experiments}
    places = {t.id: _place(t) for e in experiments for t in (*e.trials, *e.diagnoses)}
    origin = min((span.started for span in found), default=0.0)
    lanes = sorted(set(filter(None, places.values())))
    rows = _rows(found, {trial: lanes.index(place) for trial, place in places.items() if place})
    events = [
        {
            "name": _title(span),
            "cat": span.phase,
            "ph": "X",
            "ts": round(1e6 * (span.started - origin)),
            "dur": max(0, round(1e6 * (span.finished - span.started))),
            "pid": PROCESS,
            "tid": row,
            "args": {"experiment": span.experiment, "trial": span.trial, **words.get(span.experiment, {})},
        }
        for span, row in zip(found, rows, strict=True)
    ]
    return {"displayTimeUnit": "ms", "traceEvents": [*_row_names(name, set(rows), lanes), *events]}


def _place(trial: Trial) -> str:
    """Where a trial ran, if that is known; it may be another place than it was started at."""
    return (trial.result.provenance.place if trial.result else "") or trial.place


def _rows(found: Sequence[Span], lanes: Mapping[int, int]) -> list[int]:
    """The row of each span: that of its trial's place, or one where no other trial of unknown place runs.

    Args:
        found: Sorted by start.
        lanes: Trial -> number of its place.
    """
    known = len(set(lanes.values()))
    last: dict[int | None, float] = {}
    for span in found:
        if span.phase in TRIAL:
            last[span.trial] = max(last.get(span.trial, span.finished), span.finished)
    taken: list[tuple[float, int | None]] = []  # for each device: until when, and by which trial
    rows = []
    for span in found:
        if span.phase not in TRIAL:
            rows.append(PROPOSING if span.phase == "propose" else LOOP)
            continue
        if span.trial is not None and span.trial in lanes:
            rows.append(DEVICE + lanes[span.trial])
            continue
        free = next(
            (i for i, (until, trial) in enumerate(taken) if trial == span.trial or until <= span.started),
            len(taken),
        )
        if free == len(taken):
            taken.append((0.0, None))
        taken[free] = last[span.trial], span.trial
        rows.append(DEVICE + known + free)
    return rows


def _row_names(search: str, rows: set[int], lanes: Sequence[str]) -> list[dict[str, Any]]:
    known = {PROPOSING: "proposing", LOOP: "loop"}
    known |= {DEVICE + number: scrub(place) for number, place in enumerate(lanes)}
    named = [("process_name", 0, scrub(f"autoresearch/{search}"))]
    named += [("thread_name", row, known.get(row, f"device {row - DEVICE}")) for row in sorted(rows)]
    return [
        {"name": key, "ph": "M", "pid": PROCESS, "tid": row, "args": {"name": value}}
        for key, row, value in named
    ]


def _title(span: Span) -> str:
    return span.phase if span.trial is None else f"{span.phase} (trial {span.trial})"


def _event_words(e: Experiment) -> Mapping[str, str]:
    found = {}
    if e.proposal:
        found["hypothesis"] = scrub(one_line(e.proposal.hypothesis))
    if e.verdict:
        found["verdict"] = e.verdict.kind.value
    return found
