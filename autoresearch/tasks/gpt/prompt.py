"""Describes the first task to a language model: a tiny GPT, trained from scratch under a budget."""

from __future__ import annotations

from autoresearch.tasks.base import PromptText

ROLE = (
    "You are a careful machine-learning researcher. A program trains a tiny language model from scratch, "
    "again and again, under a fixed budget, and asks you for one experiment at a time."
)

SCORING = (
    "It is computed on validation data by another process, from the logits of the trained model; what the "
    "script prints counts for nothing.",
    "The budget (wall time, or training tokens) is the same for every candidate. The clock starts when "
    "training data is handed over, so compilation and warm-up are free; a candidate that submits too late "
    "has no score.",
    "A candidate that crashes, runs out of memory, looks at future tokens, or answers differently when asked "
    "twice costs an experiment and gains nothing.",
)

RULES = (
    "Keep the script's contract with the rest: the functions that others call, and the calls to the harness "
    "(data, time, logging, submitting the weights).",
    "No network, no files, no packages beyond PyTorch, NumPy and the standard library.",
    "Shapes and dtypes must be right on the device in use.",
)

FACTS = {"curve": "training loss (nats per token) at shares of the budget: {}"}


def prompt_text(budget: str) -> PromptText:
    """The words of the task; `budget` says what every candidate may use."""
    return PromptText(role=ROLE, rules=RULES, budget=budget, facts=FACTS, scoring=SCORING)
