"""Warnings about a successful training: it was not compiled as it should be, or had too little text.

Needs no torch. These warnings are for people; the runner does not use them.
"""

from __future__ import annotations

from collections.abc import Mapping

EPOCHS = 4.0
"""Text that is read more often than this teaches less and less (Muennighoff et al. 2023)."""


def compile_warnings(metrics: Mapping[str, float]) -> list[str]:
    """One sentence for each problem in compiling; torch continues without it, but much slower.

    Args:
        metrics: What the harness reported of a training that was to be compiled.
    """
    if not metrics.get("compiled_graphs"):
        return ["Nothing was compiled, though it was to be."]
    causes = {
        "compile_failures": "{:.0f} functions could not be compiled.",
        "graph_breaks": "The compiled step has {:.0f} graph breaks.",
        "recompiles": "{:.0f} functions were compiled again after the clock had started.",
    }
    return [text.format(metrics[name]) for name, text in causes.items() if metrics.get(name)]


def repetition_warnings(metrics: Mapping[str, float]) -> list[str]:
    """Say if the training data was too small for the budget: one sentence, or none."""
    epochs = metrics.get("epochs", 0.0)
    if epochs <= EPOCHS:
        return []
    return [
        f"The training data was read {epochs:.0f} times over, so changes that help to memorise it win. "
        "Prepare more text (data=file data.path=..., or data=climbmix), or train for less time."
    ]
