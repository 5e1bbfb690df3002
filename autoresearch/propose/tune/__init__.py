"""Tuning the knobs of a script: Optuna, and random search as the control."""
