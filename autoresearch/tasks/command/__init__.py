"""The task `command`: anything that a command in a git repository makes better."""
