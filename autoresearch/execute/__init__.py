"""Where trials run: processes on this machine, their limits, their health, their sandbox."""
