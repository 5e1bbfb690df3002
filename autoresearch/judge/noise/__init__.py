"""How much scores vary: over seeds, between two programs on a common seed, and over documents."""
