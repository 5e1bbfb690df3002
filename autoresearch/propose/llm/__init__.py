"""Language models as proposers: prompts, conversations, answers."""
