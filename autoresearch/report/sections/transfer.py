"""A transfer in words: which kept changes hold, fade or reverse at larger scales and on other data."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.judge.finished.transfer import Extrapolated, Gain
from autoresearch.store.records.transfers import TransferRecord
from autoresearch.text import count, duration
from autoresearch.types import Experiment, Metric

COLUMN = 34
"""Width of a rung's column in a terminal."""


def transfer_table(record: TransferRecord, metric: Metric) -> list[list[str]]:
    """Rows of cells: a heading, then one row for each kept change, and last all of them together."""
    found = record.gains(metric)
    names = [f"#{number}" for number in record.keeps] + ["all"]
    rows = [["change", *(rung.name for rung in record.rungs)]]
    return rows + [[name, *(_cell(rung[i], metric) for rung in found)] for i, name in enumerate(names)]


def transfer_lines(record: TransferRecord, metric: Metric) -> list[str]:
    """A transfer in lines for a terminal; gains are in the metric's unit, so positive is better."""
    rows = transfer_table(record, metric)
    text = ["".join(f"{cell:{COLUMN if i else 8}}" for i, cell in enumerate(row)).rstrip() for row in rows]
    return [*text, *statements(record, metric)]


def change_words(record: TransferRecord, metric: Metric) -> list[list[str]]:
    """For each kept change in order: what became of its gain on each rung, a line for each."""
    found = record.gains(metric)
    return [
        [f"{rung.name}: {_cell(gains[i], metric)}" for rung, gains in zip(record.rungs, found, strict=True)]
        for i in range(len(record.keeps))
    ]


def for_prompt(records: Sequence[TransferRecord], experiments: Sequence[Experiment], metric: Metric) -> str:
    """Which kinds of change carried over, as a model is told it; empty if nothing was measured."""
    kinds = {e.number: e.proposal.category.value for e in experiments if e.proposal}
    lines = []
    for record in records[-1:]:
        marks = [[gain.mark for gain in gains] for gains in record.gains(metric)]
        for i, number in enumerate(record.keeps):
            said = [f"{rung.name} {marks[r][i]}" for r, rung in enumerate(record.rungs) if r]
            lines.append(f"- experiment {number} ({kinds.get(number, 'other')}): {', '.join(said)}")
    if not lines:
        return ""
    head = (
        "# What of the kept changes carried over\nGains on larger models and other data, with fresh seeds. A "
    )
    return f"{head}change that holds there is worth more than one that fades or reverses.\n" + "\n".join(
        lines
    )


def statements(record: TransferRecord, metric: Metric) -> list[str]:
    """What stands below the table, one sentence each."""
    said = [
        f"Gains in {metric.unit}, with 95% intervals, from {_trainings(record)} on common fresh seeds; "
        "the first column is the scale of the search, measured anew.",
    ]
    if any(rung.scale != 1.0 for rung in record.rungs):
        said.append(f"How the task grows: {record.rule}.")
    if record.retune:
        found = ", ".join(
            f"{rung.name} times {record.rates(i, metric):.3g}" for i, rung in enumerate(record.rungs) if i
        )
        said.append(
            "All learning rates are multiplied by one factor on each rung, the best of "
            f"{count(record.retune, 'Optuna trial')} of start and tip together: {found}."
        )
    beyond = record.beyond(metric)
    if isinstance(beyond, Extrapolated):
        low, high = (f"{end:+.{metric.digits}f}" for end in beyond.interval)
        said.append(
            f"At scale {beyond.scale:.3g}, which was not run, all together would gain "
            f"{beyond.effect:+.{metric.digits}f} ({low} to {high})."
        )
    elif any(rung.scale != 1.0 for rung in record.rungs):
        said.append(f"Of a scale that was not run nothing can be said: {beyond}.")
    return [*said, *failed(record)]


def failed(record: TransferRecord) -> list[str]:
    """Why trainings have no score, one sentence for each reason."""
    reasons = dict.fromkeys((record.rungs[run.rung].name, run.reason) for run in record.runs if run.reason)
    return [f"No score at {rung}: {reason}." for rung, reason in reasons]


def _trainings(record: TransferRecord) -> str:
    done = sum(run.score is not None for run in record.runs)
    return f"{done} trainings ({duration(record.seconds)})"


def _cell(gain: Gain, metric: Metric) -> str:
    if gain.effect is None:
        return gain.mark
    text = f"{gain.effect:+.{metric.digits}f}"
    if gain.interval is not None:
        text += f" ± {(gain.interval[1] - gain.interval[0]) / 2:.{metric.digits}f}"
    return f"{text} {gain.mark}"
