"""Guards: what a candidate may not blow up to win, because the budget does not price it.

Only numbers that the runner measures count: a candidate's own word is worth nothing here. Not covered: time
of training, which the budget bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

GUARDS = ("held", "other")
"""Splits (see `nanomodel.data`) that show whether a gain is one elsewhere, too. They decide nothing."""

GUARDED = {
    "memory_mb": ("main memory", "MB", 64.0),
    "weights_mb": ("submitted weights", "MB", 1.0),
    "score_seconds": ("time of scoring", "s", 5.0),
}
"""Metric -> what it is, its unit, and an excess that is never held against anybody: it may be chance."""


def breached(
    metrics: Mapping[str, float], baseline: Sequence[Mapping[str, float]], factors: Mapping[str, float | None]
) -> str:
    """The first guard that a trial breaks, in words; empty if none.

    Args:
        metrics: What the runner measured on the candidate.
        baseline: The same of each trial of the starting point.
        factors: Guarded metric -> largest multiple of the baseline's worst; None switches the guard off.
    """
    for name, (what, unit, slack) in GUARDED.items():
        known = [trial[name] for trial in baseline if name in trial]
        factor = factors.get(name)
        if factor is None or name not in metrics or not known:
            continue
        most = max(factor * max(known), max(known) + slack)
        if metrics[name] > most:
            return (
                f"guard: {what} {metrics[name]:.4g} {unit}, more than {factor:g} times the baseline's"
                f" {max(known):.4g} {unit}"
            )
    return ""
