"""What MLflow shows of a search: its run as name, tags, params, metrics, files and a note.

The same journal always gives the same values, time stamps included, so that writing them twice changes
nothing. Plain values only; MLflow itself is not needed here. Names that candidates chose never replace ours,
and secrets are removed from every text. Not covered: the runs of its experiments (`experiments`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoresearch.report.estimates import Moment
from autoresearch.report.markdown import claim_sentence, code, direction, escape, fence, headline
from autoresearch.report.sections.transfer import transfer_lines
from autoresearch.report.summary import Summary
from autoresearch.store.calls import shortened
from autoresearch.store.records.notes import Brief
from autoresearch.store.records.transfers import TransferRecord
from autoresearch.text import clean, flatten, one_line, scrub
from autoresearch.types import Metric

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

DIGITS = 6
"""Decimals of a score: more only fill the columns."""
BRIEF_CHARACTERS = 2500
"""Of a brief that are part of a note; the file `brief.md` has all of it."""


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
        start=milliseconds(info.created),
        end=milliseconds(info.finished) if info.finished else None,
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
                name = f"transfer/{metric_name(rung.name)}"
                yield Number(name, round(effect, DIGITS), milliseconds(record.finished), len(record.keeps))


def _search_metrics(summary: Summary, moments: Iterable[Moment]) -> Iterator[Number]:
    metric, finished, start = summary.metric, summary.info.finished, summary.estimates.baseline
    yield from _transfer_metrics(summary)
    name = metric.name
    for moment in moments:
        e, score, dollars = moment.experiment, moment.experiment.score, moment.dollars
        when = milliseconds(e.finished or max([e.created, *(t.finished or 0 for t in e.trials)]))
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
        yield Number("cost/llm_dollars", round(total, DIGITS), milliseconds(finished), last)
    if summary.claim and (claimed := summary.claim.result):
        when = milliseconds(summary.claim.finished or summary.claim.started)
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
    when, last = milliseconds(max(times, default=summary.info.created)), max(e.number for e in experiments)
    for key, value in values.items():
        if value is not None and math.isfinite(value):
            yield Number(key, round(value, DIGITS), when, last)


def metric_name(name: str) -> str:
    """A name that MLflow accepts and that cannot name a section of its charts."""
    return re.sub(r"[^A-Za-z0-9_.\- ]", "_", name)[:100] or "_"


def milliseconds(seconds: float) -> int:
    """Unix time as MLflow takes it."""
    return round(1000 * seconds)


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
