"""Recording: the journal, git, MLflow, the report, and what is shown while a search runs."""
