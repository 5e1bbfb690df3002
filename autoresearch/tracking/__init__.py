"""MLflow shows what the journal holds: a mirror that can always be rebuilt."""
