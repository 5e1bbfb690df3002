"""The task `kernel`: make a function faster with exactly the same behaviour."""
