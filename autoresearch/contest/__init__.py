"""Contests of briefs, and what is made of them: a ranking, evidence, a better brief."""
