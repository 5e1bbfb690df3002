"""A verdict in a few words, for callers that do not know the metric yet; see `autoresearch.text`."""

from __future__ import annotations

from autoresearch.text import change_text, evidence_text, verdict_text
from autoresearch.types import Metric, Verdict

_METRIC = Metric("val_bpb", "bits per byte", per_item=True)

evidence = evidence_text


def phrase(verdict: Verdict) -> str:
    """The decision, and what was measured, if anything was."""
    return verdict_text(verdict, _METRIC)


def change(verdict: Verdict) -> str:
    """The change of the score; empty if it was not measured."""
    return change_text(verdict, _METRIC)
