"""What a person sees while a search runs: in the terminal, on a page, and what other processes read of it."""
