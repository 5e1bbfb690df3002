"""Tasks: what is improved, how a candidate is measured, and what is trusted."""
