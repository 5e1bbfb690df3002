"""Limits on the resources that a candidate may use.

They are multiples of the baseline's, because the budget does not price them. Only numbers that the runner
measures count. Not covered: time of training (the budget bounds it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """A resource that a candidate may not use much more of than the baseline.

    Attributes:
        what: The resource, in words.
        unit: Its unit.
        slack: An excess over the baseline that is always allowed, since it may be chance.
    """

    what: str
    unit: str
    slack: float


GUARDS = {
    "memory_mb": Guard("main memory", "MB", 64.0),
    "weights_mb": Guard("submitted weights", "MB", 1.0),
    "score_seconds": Guard("time of scoring", "s", 5.0),
    "startup_cpu_seconds": Guard("CPU time before the clock starts", "s", 2.0),
}
"""Guarded metric -> the resource that it measures."""
WITHOUT_LOAD = {"score_seconds": ("score_cpu_seconds", 2.0)}
"""Guarded metric -> the same without what other programs add to it, which counts where it is known, and its
slack. Ten honest scorings took 1.34 to 1.63 s of CPU time on a machine with a load of six times its cores."""


def guarded(baseline: Sequence[Mapping[str, float]], factors: Mapping[str, float | None]) -> dict[str, float]:
    """How much a candidate may use of each guarded resource that is known of the baseline.

    Args:
        baseline: What the runner measured in each trial of the starting point.
        factors: See `broken_guard`.

    Returns:
        Guarded metric -> limit.
    """
    found = {}
    for name, guard in GUARDS.items():
        factor, known = factors.get(name), [trial[name] for trial in baseline if name in trial]
        if factor is not None and known:
            found[name] = _most(factor, max(known), guard.slack)
    return found


def _most(factor: float, known: float, slack: float) -> float:
    return max(factor * known, known + slack)


def broken_guard(
    metrics: Mapping[str, float], baseline: Sequence[Mapping[str, float]], factors: Mapping[str, float | None]
) -> str:
    """The first guard that a trial breaks, in words; empty if none.

    Args:
        metrics: What the runner measured on the candidate.
        baseline: The same of each trial of the starting point.
        factors: Guarded metric -> largest multiple of the baseline's worst; None switches the guard off.
    """
    for name, guard in GUARDS.items():
        factor, slack = factors.get(name), guard.slack
        exact, least = WITHOUT_LOAD.get(name, (name, slack))
        if all(exact in trial for trial in (metrics, *baseline)):
            name, slack = exact, least
        known = [trial[name] for trial in baseline if name in trial]
        if factor is None or name not in metrics or not known:
            continue
        if metrics[name] > _most(factor, max(known), slack):
            return (
                f"guard: {guard.what} {metrics[name]:.4g} {guard.unit}, more than {factor:g} times the"
                f" baseline's {max(known):.4g} {guard.unit}"
            )
    return ""
