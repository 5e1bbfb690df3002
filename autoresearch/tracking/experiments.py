"""What MLflow shows of one experiment: its run, nested in that of its search, and the note on its page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoresearch.report.markdown import escape, fence, table
from autoresearch.report.summary import experiment_row
from autoresearch.text import clean, duration, evidence_text, one_line, pairs_text, scrub, verdict_text
from autoresearch.tracking.runs import DIGITS, Number, Run, common_tags, metric_name, milliseconds
from autoresearch.types import Experiment, Metric, Trial, VerdictKind

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

STATUS = {
    VerdictKind.KEEP: "FINISHED",
    VerdictKind.DISCARD: "FINISHED",
    VerdictKind.PRUNE: "KILLED",
    VerdictKind.CRASH: "FAILED",
    VerdictKind.INVALID: "FAILED",
}
CURVE_POINTS = 400
MEASURED_METRICS = 40
"""At most this many of the numbers that a trial measured are shown."""
SYSTEM = ("memory_mb", "peak_memory_mb", "cpu_seconds", "clock_mhz", "gpu_", "slowest_clock")
"""How the measured numbers begin that tell of the machine: MLflow shows these on a page of their own."""
DIFF_CHARACTERS = 4000
"""A longer diff is left to the run's artifacts: MLflow cuts notes at 8000 characters."""


def experiment_run(info: SearchInfo, e: Experiment, sources: Mapping[str, str], column: int) -> Run:
    """The child run of an experiment, as far as it has come.

    Args:
        info: Of its search.
        e: The experiment.
        sources: Its editable files: path -> text; may be empty where there are none yet.
        column: Which value of a knob to show where it has one for each device: 0 for CPU, 1 for GPU.
    """
    row = experiment_row(e, info.metric)
    judged = e.verdict is not None or (e.number == 0 and e.score is not None)
    files = {}
    if judged:
        # MLflow shows only files with endings it knows, so the diff is called .txt.
        files = {path: scrub(clean(text)) for path, text in sources.items()}
        files |= {"change.diff.txt": scrub(clean(e.diff))} if e.diff else {}
        files |= {
            f"logs/trial_{t.id}.log": scrub(clean(t.result.log))
            for t in e.trials
            if t.result and t.result.log
        }
    status = STATUS[e.verdict.kind] if e.verdict else ("FINISHED" if judged else "RUNNING")
    finished = e.finished or max([e.created, *(t.finished or 0.0 for t in e.trials)])
    return Run(
        name=_name(row),
        status=status,
        start=milliseconds(e.created),
        end=milliseconds(finished) if judged else None,
        tags={
            **common_tags(info, e.number),
            **_tags(e, row, info.metric),
        },
        params=_params(e, sources, column),
        metrics=tuple(_metrics(e, row, judged, info.metric)),
        files=files,
    )


def _verdict(row: Mapping[str, Any]) -> str:
    return row["verdict"] or ("baseline" if row["number"] == 0 else "")


def _name(row: Mapping[str, Any]) -> str:
    what = one_line(scrub(row["hypothesis"]), 60) or "starting point"
    # Three digits, so that sorting by name is sorting by number.
    return f"{row['number']:03d} {_verdict(row) or 'running'}: {what}"


def _tags(e: Experiment, row: Mapping[str, Any], metric: Metric) -> dict[str, str]:
    tags = {
        "verdict": _verdict(row),
        "commit": row["commit"],
        "parent_commit": row["parent"],
        "mlflow.source.git.commit": row["commit"],
        "seeds": " ".join(map(str, row["seeds"])),
        "reason": row["reason"],
        "guards": row["guards"],
        "result": verdict_text(e.verdict, metric) if e.verdict else "",
        "hypothesis": row["hypothesis"] or "starting point",
        "category": row["category"],
        "proposer": row["proposer"],
        "mlflow.user": row["proposer"],
    }
    note = {"mlflow.note.content": scrub(experiment_note(e, metric))}
    return {k: v for k, v in note.items() if v} | {k: scrub(one_line(v, 1000)) for k, v in tags.items() if v}


def _params(e: Experiment, sources: Mapping[str, str], column: int) -> dict[str, str]:
    from autoresearch.edit.knobs import read_knobs

    params = {str(k): str(v) for k, v in e.proposal.params.items()} if e.proposal else {}
    for text in sources.values():
        try:
            params |= {knob.name: str(knob.value) for knob in read_knobs(text, column)}
        except (SyntaxError, ValueError):
            continue  # a candidate that does not parse has no knobs; its verdict says so
    return {k: scrub(one_line(v, 500)) for k, v in params.items()}


def _metrics(e: Experiment, row: Mapping[str, Any], judged: bool, metric: Metric) -> list[Number]:
    own = [t for t in e.own if t.result is not None]  # the others are lost, and were repeated
    if not own:
        return []
    last = milliseconds(max(t.finished or 0.0 for t in own))
    low, high = row["interval"] or (None, None)
    values = {
        metric.name: row["score"],
        "trials": float(len(own)),
        "effect": row["effect"],
        "effect_low": low,
        "effect_high": high,
        "evidence": row["evidence"],
        "expected_effect": e.proposal.expected_effect if e.proposal else None,
        "cost/llm_dollars": (e.proposal.cost.dollars or None) if e.proposal else None,
    }
    values |= (
        {f"guards/{metric_name(gain.guard)}": gain.gain for gain in e.verdict.guards} if e.verdict else {}
    )
    points = [Number(k, round(v, DIGITS), last) for k, v in values.items() if v is not None]
    scored = [(t.score, milliseconds(t.finished or 0)) for t in own if t.score is not None]
    points += [
        Number(f"each_trial/{metric.name}", round(score, DIGITS), when, i)
        for i, (score, when) in enumerate(scored, start=1)
    ]
    if judged:
        points += _curve(own[0])
    measured = sorted(row["metrics"].items())[:MEASURED_METRICS]
    for key, value in measured:
        section = "system" if key.startswith(SYSTEM) else "measured"
        points.append(Number(f"{section}/{metric_name(key)}", float(f"{value:.6g}"), last))
    return [p for p in points if math.isfinite(p.value)]


def _curve(trial: Trial) -> list[Number]:
    """Training loss; the step is thousandths of the budget, so that all experiments share an axis."""
    if trial.result is None or trial.finished is None:
        return []
    curve = trial.result.curve
    stride = max(1, math.ceil(len(curve) / CURVE_POINTS))
    kept = curve[::stride] if not curve or curve[-1] == curve[::stride][-1] else (*curve[::stride], curve[-1])
    length = trial.seconds
    return [
        Number("curve/train_loss", y, milliseconds(trial.started + x * length), round(1000 * x))
        for x, y in kept
    ]


def experiment_note(e: Experiment, metric: Metric, diff: bool = True) -> str:
    """What a person reads on the page of an experiment's run, in Markdown; a short diff is part of it."""
    from autoresearch.execute.output import excerpt

    parts = []
    if p := e.proposal:
        parts += [f"**{escape(p.hypothesis, 500)}**", escape(p.mechanism, 2000)]
        parts += [f"Risk: {escape(p.risk, 500)}"] if p.risk else []
        parts += [f"Instruction of the brief: {escape(p.instruction, 500)}"] if p.instruction else []
    if v := e.verdict:
        sure = f" (evidence {evidence_text(v)})" if evidence_text(v) else ""
        parts.append(f"Verdict: **{verdict_text(v, metric)}**{sure}. {escape(v.reason, 1000)}")
        parts += [f"As measured: {measured}."] if (measured := pairs_text(v, metric)) else []
    rows = [[str(t.id), t.arm, str(t.seed), _outcome(t, metric), duration(t.seconds)] for t in e.trials]
    head = ["Trial", "Arm", "Seed", metric.name, "Time"]
    parts += [table(head, rows, numeric=(0, 2, 3, 4))] if rows else []
    logs = [(t.id, t.result.log) for t in e.trials if t.result and t.result.reason and t.result.log]
    for number, log in logs[-1:]:
        lines = "\n".join(f"> {escape(line)}  " for line in excerpt(log).splitlines())
        parts.append(f"Trial {number} ended with:\n\n{lines}")
    if diff and 0 < len(e.diff) < DIFF_CHARACTERS:
        parts.append(fence(e.diff, "diff"))
    return "\n\n".join(part for part in parts if part)


def _outcome(trial: Trial, metric: Metric) -> str:
    if trial.result is None:
        return "without a result: it runs, was interrupted, or was no longer needed"
    return metric.text(trial.score) if trial.score is not None else escape(trial.result.reason, 120)
