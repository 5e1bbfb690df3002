"""The words for what may be wrong with a gain: the guards, and changes of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS = {"held": "on a slice held back", "other": "on text of another kind"}


def guarded(s: Mapping[str, Any]) -> str:
    """A sentence for the report; empty if nothing was measured."""
    parts, worse = [], []
    for guard in s["guards"]:
        where, gain = WORDS[guard["split"]], guard["baseline"] - guard["best"]
        parts.append(f"{where} {guard['baseline']:.4f} became {guard['best']:.4f} ({gain:+.4f})")
        worse += [where] if gain < 0 else []
    if not parts:
        return ""
    text = f"Guards, which decide nothing: {'; '.join(parts)}."
    return text + (f" **It got worse {' and '.join(worse)}: the gain may not carry over.**" if worse else "")


def drifted(s: Mapping[str, Any]) -> str:
    """A sentence for the report and for `status`; empty if the machine was the same all the time."""
    if not s["judge"] or not (drifts := s["judge"]["drifts"]):
        return ""
    times = "once" if drifts == 1 else f"{drifts} times"
    return (
        f"The machine changed {times}: the incumbent's re-runs did not score as before. Runs from before "
        "that no longer count, and the starting point is told as it would score now."
    )
