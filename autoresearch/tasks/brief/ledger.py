"""What the searches of one brief tried, by theme: what paid, and what was repeated in vain.

It is shown to whoever improves the brief: as data, since models wrote most of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from autoresearch.text import one_line
from autoresearch.types import Category, Experiment, Metric, VerdictKind

KEPT, VAIN, WORDS = 12, 4, 160
"""Kept changes that are told, failures of a theme, and characters of each."""


def ledger(experiments: Sequence[Experiment], metric: Metric) -> str:
    """The themes of experiments, the one that gained most first; a few lines for each.

    Args:
        experiments: Of one search or of several; baselines are left out.
        metric: What they improve.
    """
    themes: dict[Category, list[Experiment]] = defaultdict(list)
    for e in experiments:
        if e.proposal is not None and e.verdict is not None:
            themes[e.proposal.category].append(e)
    lines = []
    for theme, found in sorted(themes.items(), key=lambda item: -gained(item[1])):
        kept = [e for e in found if e.kept]
        broken = sum(_failed(e) for e in found)
        total = f" ({gained(found):+.{metric.digits}f})" if kept else ""
        lines.append(f"{theme}: {len(found)} tried, {len(kept)} kept{total}, {broken} failed")
        best = sorted(kept, key=lambda e: -_effect(e))[:KEPT]
        lines += [f"  paid {_effect(e):+.{metric.digits}f}: {_words(e)}" for e in best]
        vain = [e for e in found if not e.kept]
        lines += [f"  in vain: {_words(e)}{_why(e)}" for e in vain[-VAIN:]]
        if len(vain) > VAIN:
            lines.append(f"  in vain: {len(vain) - VAIN} more")
    return "\n".join(lines) or "nothing was tried"


def gained(experiments: Sequence[Experiment]) -> float:
    """What kept changes gained when they were kept, by the judge's estimates."""
    return sum(_effect(e) for e in experiments if e.kept)


def _effect(experiment: Experiment) -> float:
    return (experiment.verdict.effect or 0.0) if experiment.verdict else 0.0


def _failed(experiment: Experiment) -> bool:
    verdict = experiment.verdict
    return verdict is not None and verdict.kind in (VerdictKind.CRASH, VerdictKind.INVALID)


def _words(experiment: Experiment) -> str:
    return one_line(experiment.proposal.hypothesis, WORDS) if experiment.proposal else ""


def _why(experiment: Experiment) -> str:
    return f" ({experiment.verdict.kind})" if _failed(experiment) and experiment.verdict else ""
