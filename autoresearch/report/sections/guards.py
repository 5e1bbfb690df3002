"""Guards in words: what was kept and what was looked at does to further metrics, and which were accepted."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.report.summary import Summary
from autoresearch.store.records.guards import MeasuredKeeps
from autoresearch.text import duration, one_line
from autoresearch.types import GuardGain


def guard_cell(gain: GuardGain) -> str:
    """What a change does to one guard, such as "−0.012 ± 0.004 loses"."""
    if gain.gain is None:
        return "not measured"
    text = f"{gain.gain:+.4g}"
    if gain.interval is not None:
        text += f" ± {(gain.interval[1] - gain.interval[0]) / 2:.2g}"
    return f"{text} loses" if gain.lost else text


def guard_table(rows: Sequence[tuple[int, Sequence[GuardGain]]]) -> list[list[str]]:
    """Rows of cells: a heading, then one row for each change."""
    names = list(dict.fromkeys(gain.guard for _, gains in rows for gain in gains))
    found = [["change", *names]]
    for number, gains in rows:
        cells = {gain.guard: guard_cell(gain) for gain in gains}
        found.append([f"#{number}", *(cells.get(name, "–") for name in names)])
    return found


def weighed(s: Summary) -> list[list[str]]:
    """What every change that was to be kept does to the guards; a heading alone if there is none."""
    return guard_table(
        [(e.number, e.verdict.guards) for e in s.experiments if e.verdict and e.verdict.guards]
    )


def measured_table(record: MeasuredKeeps) -> list[list[str]]:
    """What the kept history does to the guards, measured anew."""
    return guard_table(list(record.keeps.items()))


def measured_sentence(record: MeasuredKeeps) -> str:
    """How that was measured."""
    return (
        f"Measured anew on {record.seeds} fresh seeds ({duration(record.seconds)} of training); positive is "
        "better, and the intervals hold for all guards together."
    )


def lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table for a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def accepted_lines(s: Summary) -> list[str]:
    """The devised guards that a person has accepted, one line each; what a model wrote is quoted."""
    return [
        f'{guard.metric.name}: {one_line(guard.metric.text, 200)} ("{one_line(guard.reason, 300)}", by '
        f"{one_line(guard.author, 60)})"
        for guard in s.devised
    ]
