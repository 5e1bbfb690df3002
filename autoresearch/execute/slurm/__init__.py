"""Trials in jobs of a Slurm cluster: its commands, the files between a job and the search, the executor."""
