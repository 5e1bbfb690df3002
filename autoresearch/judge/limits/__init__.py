"""Limits on a single trial: when it is stopped early, and what resources it may use."""
