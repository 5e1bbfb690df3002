"""A search in git: its candidates as commits, and its branch."""
