"""The worker program, which measures trials on any machine for any engine."""
