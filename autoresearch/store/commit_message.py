"""The message of a candidate's commit: what was tried, and in trailers what came of it.

Text from a proposer is data here: it is flattened to one paragraph, so that it can never pass for a trailer.
"""

from __future__ import annotations

import textwrap

from autoresearch.report.phrase import evidence, phrase
from autoresearch.types import Experiment


def commit_message(experiment: Experiment, run_id: str | None = None) -> str:
    """The commit message of an experiment; without a verdict it carries no result.

    Args:
        experiment: With its proposal, and as much else as is known.
        run_id: The MLflow run that shows it, if there is one.
    """
    proposal = experiment.proposal
    assert proposal, "the baseline is the user's own commit"
    subject = textwrap.shorten(_plain(proposal.hypothesis), 72, placeholder="…")
    body = textwrap.fill(_plain(f"{proposal.hypothesis} {proposal.mechanism}"), 78, break_long_words=False)
    trailers = {"Experiment": str(experiment.number), "Category": proposal.category.value}
    trailers["Proposer"] = _plain(proposal.proposer)
    if verdict := experiment.verdict:
        trailers["Verdict"] = verdict.kind.value
        trailers["Result"] = phrase(verdict)
        trailers["Evidence"] = evidence(verdict)
        if experiment.score is not None:
            trailers["Metric"] = f"val_bpb {experiment.score:.6f}"
        if verdict.effect is not None:
            # The change of the metric: lower is better, so a gain is negative.
            trailers["Delta"] = f"{-verdict.effect:+.6f}"
            if verdict.interval:
                trailers["Delta"] += f" [{-verdict.interval[1]:+.6f}, {-verdict.interval[0]:+.6f}]"
        trailers["Seeds"] = " ".join(
            str(t.seed) for t in experiment.trials if t.arm != "incumbent" and t.result
        )
        trailers["Reason"] = _plain(verdict.reason)
    if run_id:
        trailers["MLflow-Run"] = run_id
    lines = "\n".join(f"{key}: {value}" for key, value in trailers.items() if value)
    return f"{subject}\n\n{body}\n\n{lines}\n"


def _plain(text: str) -> str:
    """One line of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
