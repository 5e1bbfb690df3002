"""One search as plain values: what `status --json` prints and what the report is written from.

Owns the names of these values. Numbers that are not known are None, never 0. Texts are as recorded: whoever
shows them cleans and escapes them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autoresearch.judge import Judge
from autoresearch.report.levels import Standing
from autoresearch.report.phrase import change
from autoresearch.report.standing import History, own_trials, standing
from autoresearch.store.claims import CLAIMS, read_claims
from autoresearch.store.notes import BRIEFS, UNBILLED, read_briefs, read_unbilled
from autoresearch.text import one_line, public
from autoresearch.types import REPORTED_SPLITS, Cost, Experiment, Outcome, VerdictKind

JUDGE = "judge"
FORMAT = 1
"""Version of the dictionary's shape; raised when a key changes its meaning."""

SUMMARIZED = (CLAIMS, JUDGE, BRIEFS, UNBILLED)
"""Notes of the journal that a summary reads."""


def summarize(history: History) -> dict[str, Any]:
    """A search as a JSON-ready dictionary; see the keys below. Linear in the number of trials."""
    info = history.info()
    experiments = history.experiments()
    now = standing(experiments)
    tried = [e for e in experiments if e.number > 0]
    owed = read_unbilled(history)
    cost = _cost(experiments, owed)
    claims = [asdict(record) for record in read_claims(history)]
    tip = now.best.experiment.commit if now.best else info.base_commit
    return {
        "format": FORMAT,
        "search": info.name,
        "branch": info.branch,
        "task": info.task,
        "brief": info.brief,
        "brief_changes": [asdict(brief) for brief in read_briefs(history)[1:]],
        "device": info.device,
        "created": info.created,
        "finished": info.finished,
        "base_commit": info.base_commit,
        "tip_commit": tip,
        "metric": {"name": "val_bpb", "unit": "bits per byte", "lower_is_better": True},
        "baseline": None if now.baseline is None else {"mean": now.baseline.mean, "runs": now.baseline.runs},
        "best": None
        if now.best is None
        else {
            "mean": now.best.level.mean,
            "runs": now.best.level.runs,
            "experiment": now.best.experiment.number,
        },
        "gain": _gain(now),
        "claim": next((c for c in claims if c["tip"] == tip), None),
        "claims": claims,
        "judge": _judge(history),
        "guards": _guards(now),
        "noise": {"sd": now.noise, "degrees_of_freedom": now.freedom},
        "tried": len(tried),
        "verdicts": _verdicts(tried),
        "trials": _trials(experiments),
        "proposers": _proposers(tried, owed),
        "cost": cost | _rates(cost, sum(e.kept for e in tried)),
        "wall_seconds": _last_sign(experiments, info.finished, info.created) - info.created,
        "failures": failures(tried),
        "config": public(dict(info.config)),
        "data": public(dict(info.data)),
        "experiments": [_row(e) for e in experiments],
    }


def failures(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """Crashed and invalid experiments grouped by cause, the most frequent first.

    Causes that differ only in numbers, addresses or quoted names are one.
    """
    groups: dict[tuple[str, str], list[Experiment]] = defaultdict(list)
    for e in experiments:
        if e.verdict and e.verdict.kind in (VerdictKind.CRASH, VerdictKind.INVALID):
            groups[e.verdict.kind.value, signature(cause(e))].append(e)
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [
        {
            "kind": kind,
            "cause": one_line(cause(found[0])),
            "count": len(found),
            "experiments": [e.number for e in found],
        }
        for (kind, _), found in ranked
    ]


def cause(experiment: Experiment) -> str:
    """Why an experiment has no score, as its own trials tell it."""
    reasons = [t.result.reason for t in own_trials(experiment) if t.result and t.result.reason]
    return reasons[-1] if reasons else (experiment.verdict.reason if experiment.verdict else "")


def mean_metrics(experiment: Experiment) -> dict[str, float]:
    """Means over the candidate's scored trials of whatever they measured."""
    values: dict[str, list[float]] = defaultdict(list)
    for trial in own_trials(experiment):
        if trial.result and trial.result.outcome is Outcome.OK:
            for name, value in trial.result.metrics.items():
                values[name].append(float(value))
    return {name: sum(found) / len(found) for name, found in values.items()}


def signature(text: str) -> str:
    """A cause without what differs from one time to the next: numbers, addresses, quoted names."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?|'[^']*'|\"[^\"]*\"", "#", one_line(text, 300).lower())


def _gain(now: Standing) -> dict[str, Any] | None:
    if now.gain is None or now.baseline is None:
        return None
    return {
        "absolute": now.gain,
        "relative": now.gain / now.baseline.mean if now.baseline.mean else None,
        "interval": now.interval,
        "judged": now.start is not None,
    }


def _judge(history: History) -> dict[str, Any] | None:
    """What the judge says about the search as a whole."""
    state = history.get(JUDGE)
    if state is None:
        return None
    report = Judge.from_json(state).report()
    return {
        "name": report.judge,
        "candidates": report.candidates,
        "confirmed": report.confirmed,
        "kept": report.kept,
        "expected_false_keeps": report.expected_false_keeps,
        "drifts": report.drifts,
        "common_luck": report.common_luck,
    }


def _guards(now: Standing) -> list[dict[str, Any]]:
    """What start and tip score on the splits that decide nothing."""
    if len(now.steps) < 2:
        return []
    start, tip = (mean_metrics(step.experiment) for step in (now.steps[0], now.steps[-1]))
    names = [(split, f"{split}_bpb") for split in REPORTED_SPLITS]
    return [
        {"split": split.value, "baseline": start[name], "best": tip[name]}
        for split, name in names
        if name in start and name in tip
    ]


def _verdicts(tried: Sequence[Experiment]) -> dict[str, int]:
    counts = Counter(e.verdict.kind.value if e.verdict else "open" for e in tried)
    return {name: counts[name] for name in [*(k.value for k in VerdictKind), "open"]}


def _trials(experiments: Sequence[Experiment]) -> dict[str, int]:
    """Trials by outcome; "lost" ones were interrupted, or still run."""
    counts: Counter[str] = Counter()
    for e in experiments:
        counts.update(t.result.outcome.value if t.result else "lost" for t in e.trials)
    return {"total": counts.total(), **{name: counts[name] for name in [*(o.value for o in Outcome), "lost"]}}


def _cost(experiments: Sequence[Experiment], owed: Mapping[str, Cost]) -> dict[str, Any]:
    paid = (p.cost for e in experiments for p in (e.proposal, *e.dropped) if p is not None)
    llm = sum((*paid, *owed.values()), Cost())
    seconds = sum(t.finished - t.started for e in experiments for t in e.trials if t.finished is not None)
    return {
        "device_seconds": seconds,
        "llm_calls": llm.calls,
        "input_tokens": llm.input_tokens,
        "output_tokens": llm.output_tokens,
        "dollars": llm.dollars,
        "proposing_seconds": llm.seconds,
    }


def _proposers(tried: Sequence[Experiment], owed: Mapping[str, Cost]) -> dict[str, dict[str, float]]:
    """What each proposer tried, what of it was kept, and what that gained and cost; the busiest first."""
    found = {
        who: {"tried": 0, "kept": 0, "gain": 0.0, "dollars": cost.dollars}
        for who, cost in owed.items()
        if cost.dollars
    }
    for e in tried:
        for p in (e.proposal, *e.dropped):
            if p is not None:
                row = found.setdefault(p.proposer, {"tried": 0, "kept": 0, "gain": 0.0, "dollars": 0.0})
                row["dollars"] += p.cost.dollars
        if e.proposal is not None:
            row = found[e.proposal.proposer]
            row["tried"] += 1
            row["kept"] += e.kept
            row["gain"] += (e.verdict.effect or 0.0) if e.verdict and e.kept else 0.0
    return dict(sorted(found.items(), key=lambda item: -item[1]["tried"]))


def _rates(cost: Mapping[str, Any], kept: int) -> dict[str, float | None]:
    return {
        "device_seconds_per_keep": cost["device_seconds"] / kept if kept else None,
        "dollars_per_keep": cost["dollars"] / kept if kept else None,
    }


def _last_sign(experiments: Sequence[Experiment], finished: float | None, created: float) -> float:
    signs = [t.finished or t.started for e in experiments for t in e.trials]
    return finished or max([created, *signs])


def _row(e: Experiment) -> dict[str, Any]:
    own, verdict, proposal = own_trials(e), e.verdict, e.proposal
    return {
        "number": e.number,
        "state": e.state.value,
        "verdict": verdict.kind.value if verdict else None,
        "reason": (verdict.reason if verdict else ""),
        "hypothesis": proposal.hypothesis if proposal else "",
        "category": proposal.category.value if proposal else None,
        "proposer": proposal.proposer if proposal else None,
        "score": e.score,
        "effect": verdict.effect if verdict else None,
        "interval": verdict.interval if verdict else None,
        "evidence": verdict.evidence if verdict else None,
        "change": change(verdict) if verdict else "",
        "trials": len(own),
        "seeds": [t.seed for t in own],
        "commit": e.commit,
        "parent": e.parent,
        "seconds": sum(t.finished - t.started for t in e.trials if t.finished is not None),
        "metrics": mean_metrics(e),
    }
