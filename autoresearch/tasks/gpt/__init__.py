"""Training and scoring one candidate where it can do no harm and tell no lies."""

from autoresearch.tasks.gpt.measure import Modules, TrialRunner

__all__ = ["Modules", "TrialRunner"]
