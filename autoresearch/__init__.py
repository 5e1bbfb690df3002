"""Autonomous machine-learning research whose results can be believed."""

__version__ = "0.1.0"
