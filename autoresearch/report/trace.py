"""The timeline as a Chrome trace, for Perfetto (ui.perfetto.dev) or chrome://tracing.

One row for each device, one for proposing, one for everything else. Times are in microseconds since the
first span. The format is Google's Trace Event Format: complete events ("X") with a duration, and names of
rows ("M").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoresearch.report.timeline import TRIAL
from autoresearch.text import one_line, scrub
from autoresearch.types import Experiment

if TYPE_CHECKING:
    from autoresearch.store.database import Span

PROCESS = 1
PROPOSING, LOOP, DEVICE = 1, 2, 10
"""Numbers of the rows; devices count up from the last one."""


def trace(name: str, found: Sequence[Span], experiments: Iterable[Experiment]) -> dict[str, Any]:
    """A search as a JSON-ready trace.

    Args:
        name: Of the search.
        found: What was done when, by the time it began.
        experiments: For the words that go with each span.
    """
    words = {e.number: _words(e) for e in experiments}
    origin = min((span.started for span in found), default=0.0)
    rows = _rows(found)
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
    return {"displayTimeUnit": "ms", "traceEvents": [*_names(name, set(rows)), *events]}


def _rows(found: Sequence[Span]) -> list[int]:
    """The row of each span; trials that overlap get rows of their own."""
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
        free = next(
            (i for i, (until, trial) in enumerate(taken) if trial == span.trial or until <= span.started),
            len(taken),
        )
        if free == len(taken):
            taken.append((0.0, None))
        taken[free] = last[span.trial], span.trial
        rows.append(DEVICE + free)
    return rows


def _names(search: str, rows: set[int]) -> list[dict[str, Any]]:
    known = {PROPOSING: "proposing", LOOP: "loop"}
    named = [("process_name", 0, scrub(f"autoresearch/{search}"))]
    named += [("thread_name", row, known.get(row, f"device {row - DEVICE}")) for row in sorted(rows)]
    return [
        {"name": key, "ph": "M", "pid": PROCESS, "tid": row, "args": {"name": value}}
        for key, row, value in named
    ]


def _title(span: Span) -> str:
    return span.phase if span.trial is None else f"{span.phase} (trial {span.trial})"


def _words(e: Experiment) -> Mapping[str, str]:
    found = {}
    if e.proposal:
        found["hypothesis"] = scrub(one_line(e.proposal.hypothesis))
    if e.verdict:
        found["verdict"] = e.verdict.kind.value
    return found
