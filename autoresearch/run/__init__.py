"""Training and scoring one candidate where it can do no harm and tell no lies."""

from autoresearch.run.trial import Modules, TrialRunner

__all__ = ["Modules", "TrialRunner"]
