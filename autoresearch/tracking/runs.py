"""What MLflow shows: experiments and searches as names, tags, params, metrics, files and notes.

The same experiment always gives the same values, time stamps included, so that writing it twice changes
nothing. Plain values only; MLflow itself is not needed here. Names that candidates chose never replace ours,
and secrets are removed from every text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoresearch.report.estimates import Moment
from autoresearch.report.markdown import claim_sentence, code, direction, escape, fence, headline, table
from autoresearch.report.sections.transfer import transfer_lines
from autoresearch.report.summary import Summary, experiment_row
from autoresearch.store.calls import shortened
from autoresearch.store.records.notes import Brief
from autoresearch.store.records.transfers import TransferRecord
from autoresearch.text import (
    clean,
    duration,
    evidence_text,
    flatten,
    one_line,
    pairs_text,
    scrub,
    verdict_text,
)
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
DIGITS = 6
"""Decimals of a score: more only fill the columns."""
MEASURED_METRICS = 40
"""At most this many of the numbers that a trial measured are shown."""
SYSTEM = ("memory_mb", "peak_memory_mb", "cpu_seconds", "clock_mhz", "gpu_", "slowest_clock")
"""How the measured numbers begin that tell of the machine: MLflow shows these on a page of their own."""
BRIEF_CHARACTERS = 2500
"""Of a brief that are part of a note; the file `brief.md` has all of it."""
DIFF_CHARACTERS = 4000
"""A longer diff is left to the run's artifacts: MLflow cuts notes at 8000 characters."""


@dataclass(frozen=True)
class Number:
    """One point of a metric.

    Attributes:
        key: Name of the metric.
        value: Finite.
        timestamp: Unix time in milliseconds.
        step: What the point belongs to; its meaning is the metric's.
    """

    key: str
    value: float
    timestamp: int
    step: int = 0


@dataclass(frozen=True)
class Run:
    """Everything an MLflow run shows.

    Attributes:
        name: Shown in lists.
        status: An MLflow run status.
        start: Unix time in milliseconds.
        end: The same; None while it runs.
        tags: Name -> text; the note is among them.
        params: Name -> text; written once, never changed.
        metrics: Points of metrics.
        files: Artifact path -> text.
    """

    name: str
    status: str
    start: int
    end: int | None
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Number, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def search_id(info: SearchInfo) -> str:
    """Distinguishes searches of the same name on a shared tracking server."""
    return f"{info.name}-{round(info.created)}-{info.base_commit[:8]}"


def identity(info: SearchInfo, number: int | None) -> dict[str, str]:
    """The tags by which the run of an experiment (or with None of the whole search) is found again."""
    which = "search" if number is None else str(number)
    return {"autoresearch.id": search_id(info), "autoresearch.experiment": which}


def common_tags(info: SearchInfo, number: int | None) -> dict[str, str]:
    """What a search and each of its experiments have: tags by which they are found, sorted and compared."""
    return {
        **identity(info, number),
        "autoresearch.order": f"{0 if number is None else number + 1:06d}",  # the search, then 0, 1, 2, ...
        "autoresearch.search.loop": info.name,
        "brief": scrub(one_line(info.brief)),
        "brief_hash": Brief(info.created, info.brief, info.brief_text).hash,
    }


def search_run(summary: Summary, moments: Iterable[Moment]) -> Run:
    """The parent run of a search; `moments` are the points of the staircase that are to be written."""
    info = summary.info
    config = {str(k): v for k, v in info.config.items() if k not in ("overrides", "choices")}
    flat = flatten({**config, "brief": scrub(info.brief), "task": info.task})
    params = {key: str(value) for key, value in flat.items() if value is not None}
    return Run(
        name=info.name,
        status="FINISHED" if info.finished else "RUNNING",
        start=_milliseconds(info.created),
        end=_milliseconds(info.finished) if info.finished else None,
        tags={
            **common_tags(info, None),
            "verdict": "search",
            "mlflow.user": "autoresearch",
            "branch": info.branch,
            "device": one_line(info.device),
            **({"trust": info.trust} if info.trust else {}),
            "mlflow.source.name": "autoresearch run",
            "mlflow.source.git.commit": info.base_commit,
            "mlflow.source.git.branch": info.branch,
            "mlflow.note.content": scrub(search_note(summary)),
        },
        params=params,
        metrics=tuple(_search_metrics(summary, moments)),
        files={
            "brief.md": scrub(clean(info.brief_text)),
            "config.json": json.dumps(info.config, indent=2, default=str) + "\n",
            **{f"transfer_{r.tip[:10]}.txt": _transfer_text(r, summary.metric) for r in summary.transfers},
        },
    )


def _transfer_text(record: TransferRecord, metric: Metric) -> str:
    return "\n".join(transfer_lines(record, metric)) + "\n"


def _transfer_metrics(summary: Summary) -> Iterator[Number]:
    """The gain of all kept changes together on each rung of each transfer."""
    for record in summary.transfers:
        if record.finished is None:
            continue
        for rung, gains in zip(record.rungs, record.gains(summary.metric), strict=True):
            if (effect := gains[-1].effect) is not None:
                name = f"transfer/{_metric_name(rung.name)}"
                yield Number(name, round(effect, DIGITS), _milliseconds(record.finished), len(record.keeps))


def _search_metrics(summary: Summary, moments: Iterable[Moment]) -> Iterator[Number]:
    metric, finished, start = summary.metric, summary.info.finished, summary.estimates.baseline
    yield from _transfer_metrics(summary)
    name = metric.name
    for moment in moments:
        e, score, dollars = moment.experiment, moment.experiment.score, moment.dollars
        when = _milliseconds(e.finished or max([e.created, *(t.finished or 0 for t in e.trials)]))
        share = None if start is None else metric.share(metric.gain(start.mean, moment.best), start.mean)
        values = {
            f"progress/best_{name}": moment.best,
            "progress/gain_percent": None if share is None else round(100 * share, DIGITS),
            "progress/tried": moment.tried,
            "progress/kept": moment.kept,
            "progress/failed": moment.failed,
            f"progress/tried_{name}": None if score is None else round(score, DIGITS),
            "cost/llm_dollars": round(dollars, DIGITS) or None,
            "cost/llm_dollars_per_keep": round(dollars / moment.kept, DIGITS) or None
            if moment.kept
            else None,
        }
        for key, value in values.items():
            if value is not None and math.isfinite(value):
                yield Number(key, float(value), when, e.number)
    yield from _answer(summary)
    total = summary.cost.dollars
    if finished and total > 0:  # with what was paid since the last proposal, and led to none
        last = max((e.number for e in summary.experiments), default=0) + 1
        yield Number("cost/llm_dollars", round(total, DIGITS), _milliseconds(finished), last)
    if summary.claim and (claimed := summary.claim.result):
        when = _milliseconds(summary.claim.finished or summary.claim.started)
        low, high = claimed.interval
        for key, value in {"claim/gain": claimed.effect, "claim/low": low, "claim/high": high}.items():
            yield Number(key, value, when)


def _answer(summary: Summary) -> Iterator[Number]:
    """The numbers of the whole search, in the columns of its experiments where these have them, too."""
    experiments, start, best = summary.experiments, summary.estimates.baseline, summary.estimates.best
    if start is None or best is None:
        return
    gain = summary.gain
    low, high = (gain.interval if gain else None) or (None, None)
    values = {
        summary.metric.name: best.estimate.mean,
        f"baseline_{summary.metric.name}": start.mean,
        "effect": gain.absolute if gain else 0.0,
        "effect_low": low,
        "effect_high": high,
        "gain_percent": 0.0 if gain is None else None if gain.relative is None else 100 * gain.relative,
        "noise": summary.estimates.noise,
        "trials": float(summary.trials["total"]),
        "cost/device_hours": summary.cost.device_seconds / 3600,
    }
    times = [t.finished for e in experiments for t in e.trials if t.finished]
    when, last = _milliseconds(max(times, default=summary.info.created)), max(e.number for e in experiments)
    for key, value in values.items():
        if value is not None and math.isfinite(value):
            yield Number(key, round(value, DIGITS), when, last)


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
        start=_milliseconds(e.created),
        end=_milliseconds(finished) if judged else None,
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
    last = _milliseconds(max(t.finished or 0.0 for t in own))
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
        {f"guards/{_metric_name(gain.guard)}": gain.gain for gain in e.verdict.guards} if e.verdict else {}
    )
    points = [Number(k, round(v, DIGITS), last) for k, v in values.items() if v is not None]
    scored = [(t.score, _milliseconds(t.finished or 0)) for t in own if t.score is not None]
    points += [
        Number(f"each_trial/{metric.name}", round(score, DIGITS), when, i)
        for i, (score, when) in enumerate(scored, start=1)
    ]
    if judged:
        points += _curve(own[0])
    measured = sorted(row["metrics"].items())[:MEASURED_METRICS]
    for key, value in measured:
        section = "system" if key.startswith(SYSTEM) else "measured"
        points.append(Number(f"{section}/{_metric_name(key)}", float(f"{value:.6g}"), last))
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
        Number("curve/train_loss", y, _milliseconds(trial.started + x * length), round(1000 * x))
        for x, y in kept
    ]


def _metric_name(name: str) -> str:
    """A name that MLflow accepts and that cannot name a section of its charts."""
    return re.sub(r"[^A-Za-z0-9_.\- ]", "_", name)[:100] or "_"


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


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


def search_note(summary: Summary) -> str:
    """What a person reads on the page of a search's run, in Markdown."""
    info, metric = summary.info, summary.metric
    digest = Brief(info.created, info.brief, info.brief_text).hash
    return "\n\n".join(
        [
            f"**{escape(info.branch)}: {headline(summary)}**",
            *([claim_sentence(summary.claim, metric)] if summary.claim else []),
            f"Brief {code(info.brief)} (`{digest}`, its text is below) on {escape(info.device)}.",
            f"Each experiment is a child run: tag `verdict`; metric `{metric.name}`, {metric.unit} on the "
            f"validation set, {direction(metric)} is better; metric `effect`, the gain over the incumbent of "
            "its time.",
            f"On this run, `{metric.name}` is the estimate of the tip, and `effect` the whole gain.",
            f"Charts of this run, by experiment: `progress/best_{metric.name}` is the staircase, "
            f"`progress/tried_{metric.name}` the score of each experiment. In the children, the steps of "
            "`curve/train_loss` are thousandths of the budget, so that runs of any budget lie on each other; "
            "`progress/gain_percent` compares searches whose scores have nothing in common.",
            fence(scrub(shortened(info.brief_text, BRIEF_CHARACTERS)), "markdown"),
        ]
    )
