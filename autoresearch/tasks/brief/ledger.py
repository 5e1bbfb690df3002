"""What the searches of one brief tried, by theme: what paid, and what was repeated in vain.

It is shown to whoever improves the brief: as data, since models wrote most of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from autoresearch.text import one_line
from autoresearch.types import Category, Experiment, Metric, VerdictKind

KEPT, VAIN, WORDS, SHORT = 6, 3, 160, 90
"""Kept changes that are told of a theme, failures, characters of each, and of the best in short."""


def ledger(experiments: Sequence[Experiment], metric: Metric) -> str:
    """The themes of experiments, the one that gained most first; a few lines for each.

    Args:
        experiments: Of one search or of several; baselines are left out.
        metric: What they improve.
    """
    lines = []
    for theme, found in _themes(experiments):
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


def in_short(experiments: Sequence[Experiment], metric: Metric) -> str:
    """The same in a few hundred characters, the length at which a prompt shows what a trial printed."""
    parts, best = [], max((e for e in experiments if e.kept), key=_effect, default=None)
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
