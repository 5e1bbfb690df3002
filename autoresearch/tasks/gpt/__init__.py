"""The task `nanomodel`: a tiny GPT, trained and scored where a candidate can neither do harm nor cheat."""
