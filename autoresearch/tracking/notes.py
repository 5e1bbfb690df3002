"""The notes that MLflow shows on the page of a run, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoresearch.report.claim_text import sentence
from autoresearch.report.page import code, escape, fence, table
from autoresearch.report.phrase import evidence, phrase
from autoresearch.report.report import headline
from autoresearch.text import duration
from autoresearch.types import Experiment, Trial

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

DIFF_CHARACTERS = 4000
"""A longer diff is left to the run's artifacts: MLflow cuts notes at 8000 characters."""


def experiment_note(e: Experiment) -> str:
    """What a person reads on the page of an experiment's run, in Markdown."""
    from autoresearch.execute.crash import excerpt

    parts = []
    if p := e.proposal:
        parts += [f"**{escape(p.hypothesis, 500)}**", escape(p.mechanism, 2000)]
        parts += [f"Risk: {escape(p.risk, 500)}"] if p.risk else []
    if v := e.verdict:
        sure = f" (evidence {evidence(v)})" if evidence(v) else ""
        parts.append(f"Verdict: **{phrase(v)}**{sure}. {escape(v.reason, 1000)}")
    rows = [
        [str(t.id), t.arm, str(t.seed), _outcome(t), duration((t.finished or t.started) - t.started)]
        for t in e.trials
    ]
    parts += [table(["Trial", "Arm", "Seed", "val_bpb", "Time"], rows, numeric=(0, 2, 3, 4))] if rows else []
    failed = [t for t in e.trials if t.result and t.result.reason and t.result.log]
    parts += [
        f"Trial {t.id} ended with:\n\n{_quoted(excerpt(t.result.log))}" for t in failed[-1:] if t.result
    ]
    if 0 < len(e.diff) < DIFF_CHARACTERS:
        parts.append(fence(e.diff, "diff"))
    return "\n\n".join(part for part in parts if part)


def _quoted(text: str) -> str:
    """Foreign lines as a quotation, one below the other."""
    return "\n".join(f"> {escape(line)}  " for line in text.splitlines())


def _outcome(trial: Trial) -> str:
    if trial.result is None:
        return "running or lost"
    return f"{trial.score:.4f}" if trial.score is not None else escape(trial.result.reason, 120)


def search_note(info: SearchInfo, summary: Mapping[str, Any]) -> str:
    """What a person reads on the page of a search's run, in Markdown."""
    return "\n\n".join(
        [
            f"**{escape(info.branch)}: {headline(summary)}**",
            *([sentence(summary["claim"])] if summary["claim"] else []),
            f"Brief {code(info.brief)} on {escape(info.device)}.",
            "Each experiment is a child run: tag `verdict`; metric `val_bpb`, validation bits per byte, "
            "lower is better; metric `effect`, the gain over the incumbent of its moment.",
            "Charts of this run, by experiment: `best_val_bpb` is the staircase, `tried_val_bpb` what each "
            "one scored. In the children, `train_loss` runs over thousandths of the budget.",
        ]
    )
