"""Screen, confirm, refresh: what the judges share that know the noise."""
