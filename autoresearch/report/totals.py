"""Totals over the experiments of a search: verdicts, trials, what was spent, proposers, kinds, failures."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoresearch.text import one_line
from autoresearch.types import MODEL_DOLLARS, Cost, Experiment, Outcome, Proposal, VerdictKind


@dataclass(frozen=True)
class Spending:
    """What a search cost so far; rates are None while nothing was kept.

    Attributes:
        dollars: For proposals.
        trial_dollars: For language models that trials asked, as inner searches do.
    """

    device_seconds: float
    llm_calls: int
    input_tokens: int
    output_tokens: int
    dollars: float
    proposing_seconds: float
    device_seconds_per_keep: float | None
    dollars_per_keep: float | None
    trial_dollars: float = 0.0


@dataclass
class ProposerTotal:
    """What one proposer tried, what of it was kept, and what that gained and cost."""

    tried: int = 0
    kept: int = 0
    gain: float = 0.0
    dollars: float = 0.0


@dataclass
class KindTotal:
    """What came of one kind of proposal.

    Attributes:
        best: The largest estimated gain, kept or not; None if none was estimated.
    """

    tried: int = 0
    scored: int = 0
    kept: int = 0
    failed: int = 0
    best: float | None = None


@dataclass(frozen=True)
class Failure:
    """Experiments that failed from the same cause."""

    kind: str
    cause: str
    count: int
    experiments: list[int]


def count_verdicts(tried: Sequence[Experiment]) -> dict[str, int]:
    """Number of experiments by verdict; "open" ones have none yet."""
    counts = Counter(e.verdict.kind.value if e.verdict else "open" for e in tried)
    return {name: counts[name] for name in [*(k.value for k in VerdictKind), "open"]}


def count_trials(experiments: Sequence[Experiment]) -> dict[str, int]:
    """Number of trials by outcome; "lost" ones were interrupted or still run."""
    counts: Counter[str] = Counter()
    for e in experiments:
        counts.update(t.result.outcome.value if t.result else "lost" for t in e.trials)
    return {"total": counts.total(), **{name: counts[name] for name in [*(o.value for o in Outcome), "lost"]}}


def spending(
    experiments: Sequence[Experiment],
    proposed: Sequence[Proposal],
    after: float,
    unbilled: Mapping[str, Cost],
    paid_after: float = 0.0,
) -> Spending:
    """What a search has cost.

    Args:
        experiments: All of them.
        proposed: All proposals that were paid for.
        after: Device seconds of work after the search, such as a claim.
        unbilled: Cost of answers without a proposal, by proposer.
        paid_after: Dollars that work after the search paid for language models.
    """
    results = [trial.result for e in experiments for trial in e.trials if trial.result]
    paid = sum(result.metrics.get(MODEL_DOLLARS, 0.0) for result in results) + paid_after
    llm = sum((*(p.cost for p in proposed), *unbilled.values()), Cost())
    kept = sum(e.kept for e in experiments if e.number > 0)
    seconds = sum(map(device_seconds, experiments)) + after
    return Spending(
        device_seconds=seconds,
        llm_calls=llm.calls,
        input_tokens=llm.input_tokens,
        output_tokens=llm.output_tokens,
        dollars=llm.dollars,
        proposing_seconds=llm.seconds,
        device_seconds_per_keep=seconds / kept if kept else None,
        dollars_per_keep=(llm.dollars + paid) / kept if kept else None,
        trial_dollars=paid,
    )


def proposers(
    tried: Sequence[Experiment], proposed: Sequence[Proposal], unbilled: Mapping[str, Cost]
) -> dict[str, ProposerTotal]:
    """Summaries by name of the proposer, the busiest first; for arguments see `spending`."""
    paid = {who: cost.dollars for who, cost in unbilled.items() if cost.dollars}
    found = {who: ProposerTotal(dollars=dollars) for who, dollars in paid.items()}
    for p in proposed:
        found.setdefault(p.proposer, ProposerTotal()).dollars += p.cost.dollars
    for e in tried:
        if e.proposal is not None:
            row = found[e.proposal.proposer]
            row.tried += 1
            row.kept += e.kept
            row.gain += e.gain
    return dict(sorted(found.items(), key=lambda item: -item[1].tried))


def kinds(tried: Sequence[Experiment]) -> dict[str, KindTotal]:
    """Summaries by category of the proposals, the busiest first."""
    found: dict[str, KindTotal] = {}
    for e in tried:
        if e.proposal is None:
            continue
        row = found.setdefault(e.proposal.category.value, KindTotal())
        row.tried += 1
        row.scored += e.score is not None
        row.kept += e.kept
        row.failed += e.failed
        if e.verdict is not None and (effect := e.verdict.effect) is not None:
            row.best = effect if row.best is None else max(row.best, effect)
    return dict(sorted(found.items(), key=lambda item: -item[1].tried))


def device_seconds(e: Experiment) -> float:
    """Seconds for which the trials of an experiment kept devices busy."""
    return sum(t.seconds for t in (*e.trials, *e.diagnoses))


def failures(experiments: Sequence[Experiment]) -> list[Failure]:
    """Crashed and invalid experiments grouped by cause, the most frequent first.

    Causes that differ only in numbers, addresses or quoted names count as one.
    """
    groups: dict[tuple[str, str], list[Experiment]] = defaultdict(list)
    for e in experiments:
        if e.verdict and e.failed:
            groups[e.verdict.kind.value, signature(cause(e))].append(e)
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [
        Failure(kind, one_line(cause(found[0])), len(found), [e.number for e in found])
        for (kind, _), found in ranked
    ]


def cause(experiment: Experiment) -> str:
    """Why an experiment has no score, as its own trials tell it."""
    reasons = [t.result.reason for t in experiment.own if t.result and t.result.reason]
    return reasons[-1] if reasons else (experiment.verdict.reason if experiment.verdict else "")


def signature(text: str) -> str:
    """A cause without what differs from one time to the next: numbers, addresses, quoted names."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?|'[^']*'|\"[^\"]*\"", "#", one_line(text, 300).lower())


def mean_metrics(experiment: Experiment) -> dict[str, float]:
    """Means over the candidate's scored trials of whatever they measured."""
    values: dict[str, list[float]] = defaultdict(list)
    for trial in experiment.own:
        if trial.result and trial.result.outcome is Outcome.OK:
            for name, value in trial.result.metrics.items():
                values[name].append(float(value))
    return {name: sum(found) / len(found) for name, found in values.items()}
