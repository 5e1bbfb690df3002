"""What an inner search came to, read from its journal, and by theme what the searches of a brief tried.

The themes are shown to whoever improves the brief: as data, since models wrote most of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

from autoresearch.store.calls import CallLog
from autoresearch.store.connection import holds_search
from autoresearch.store.journal import Journal
from autoresearch.store.records.claims import read_claims
from autoresearch.store.records.notes import read_unbilled, seconds_after
from autoresearch.store.searches import STOPPED
from autoresearch.text import one_line
from autoresearch.types import Category, Cost, Experiment, Metric, in_order

KEPT, VAIN, WORDS, SHORT = 6, 3, 160, 90
"""Kept changes that are told of a theme, failures, characters of each, and of the best in short."""


@dataclass(frozen=True)
class Result:
    """What an inner search came to.

    Attributes:
        name: Its name.
        gain: Of its tip over its start on the sealed split, in the unit of its metric; positive is better.
        error: Standard error of `gain`; 0 if nothing was kept.
        tried: Its experiments.
        kept: How many of them were kept.
        dollars: What it paid for language models.
        device_seconds: For how long its trials kept devices busy.
        void: Why there is no claim although something was kept; empty if there is one.
        experiments: All of them, the baseline first.
        roles: What the calls of each role of the brief cost; those of the proposer are its own.
    """

    name: str
    gain: float
    error: float
    tried: int
    kept: int
    dollars: float
    device_seconds: float
    void: str
    experiments: tuple[Experiment, ...]
    roles: Mapping[str, Cost] = field(default_factory=dict)

    def score(self, device_hour: float | None) -> float:
        """Its gain; with the price of an hour of a device, the gain per dollar, 0 if it was free."""
        if device_hour is None:
            return self.gain
        dollars = self.dollars + self.device_seconds / 3600 * device_hour
        return self.gain / dollars if dollars else 0.0


def read_result(folder: Path) -> Result | None:
    """What the search in a folder came to; None while it has not ended, its claim included."""
    if not holds_search(folder):
        return None
    with Journal.of(folder) as journal:
        if journal.info().finished is None or journal.get(STOPPED) or journal.runner() is not None:
            return None
        experiments = journal.experiments()
        kept = [e for e in in_order(experiments) if e.kept]
        claim = next((c for c in read_claims(journal) if kept and c.tip == kept[-1].commit), None)
        if kept and (claim is None or claim.finished is None):
            return None
        gain = error = 0.0
        if claim is not None and claim.result is not None:
            low, high = claim.result.interval
            gain, error = claim.result.effect, (high - low) / 2 / NormalDist().inv_cdf(0.975)
        return Result(
            name=folder.name,
            gain=gain,
            error=error,
            tried=len(experiments) - 1,
            kept=len(kept),
            dollars=_dollars(journal, experiments),
            device_seconds=sum(t.seconds for e in experiments for t in e.trials) + seconds_after(journal),
            void=claim.void if claim else "",
            experiments=experiments,
            roles=CallLog(folder).by_role(),
        )


def _dollars(journal: Journal, experiments: Sequence[Experiment]) -> float:
    """What a search paid for language models, for what was never tried as well."""
    paid = [p.cost for e in experiments for p in (e.proposal, *e.dropped) if p is not None]
    paid += [draft.proposal.cost for draft in journal.drafts()]
    return sum((*paid, *read_unbilled(journal).values()), Cost()).dollars


def ledger(experiments: Sequence[Experiment], metric: Metric) -> str:
    """The themes of experiments, the one that gained most first; a few lines for each.

    Args:
        experiments: Of one search or of several; baselines are left out.
        metric: What they improve.
    """
    lines = []
    for theme, found in _themes(experiments):
        kept = [e for e in found if e.kept]
        broken = sum(e.failed for e in found)
        total = f" ({gained(found):+.{metric.digits}f})" if kept else ""
        lines.append(f"{theme}: {len(found)} tried, {len(kept)} kept{total}, {broken} failed")
        best = sorted(kept, key=lambda e: -e.gain)[:KEPT]
        lines += [f"  paid {e.gain:+.{metric.digits}f}: {_words(e)}" for e in best]
        vain = [e for e in found if not e.kept]
        lines += [f"  in vain: {_words(e)}{_why(e)}" for e in vain[-VAIN:]]
        if len(vain) > VAIN:
            lines.append(f"  in vain: {len(vain) - VAIN} more")
    return "\n".join(lines) or "nothing was tried"


def in_short(experiments: Sequence[Experiment], metric: Metric) -> str:
    """The same in a few hundred characters, the length at which a prompt shows what a trial printed."""
    parts, best = [], max((e for e in experiments if e.kept), key=lambda e: e.gain, default=None)
    for theme, found in _themes(experiments):
        kept = sum(e.kept for e in found)
        total = f" ({gained(found):+.{metric.digits}f})" if kept else ""
        parts.append(f"{theme} {kept} of {len(found)}{total}")
    told = f"kept: {', '.join(parts) or 'nothing was tried'}"
    return f"{told}; best: {_words(best)[:SHORT]}" if best else told


def _themes(experiments: Sequence[Experiment]) -> list[tuple[Category, list[Experiment]]]:
    """Experiments with a verdict by theme, the theme that gained most first."""
    themes: dict[Category, list[Experiment]] = defaultdict(list)
    for e in experiments:
        if e.proposal is not None and e.verdict is not None:
            themes[e.proposal.category].append(e)
    return sorted(themes.items(), key=lambda item: -gained(item[1]))


def gained(experiments: Sequence[Experiment]) -> float:
    """What kept changes gained when they were kept, by the judge's estimates."""
    return sum(e.gain for e in experiments)


def _words(experiment: Experiment) -> str:
    return one_line(experiment.proposal.hypothesis, WORDS) if experiment.proposal else ""


def _why(experiment: Experiment) -> str:
    return f" ({experiment.verdict.kind})" if experiment.verdict and experiment.failed else ""
