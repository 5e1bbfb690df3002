"""The chain of a track: what was kept, who found it, and how anyone checks it in a clone."""
