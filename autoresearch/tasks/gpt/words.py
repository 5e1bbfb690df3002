"""What a language model is told of the task: rules, data, scale, limits, and the calls of the harness."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import nanomodel.data
from autoresearch.edit.python import parse
from autoresearch.tasks.base import Dataset, Limit, PromptText
from autoresearch.tasks.gpt.settings import BudgetOptions, TrainingBudget
from autoresearch.text import quoted

SAMPLES, SAMPLE_TOKENS = 3, 80
"""Passages of the training text that are shown, and their length."""

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
FACTS = {
    "curve": "training loss (nats per token) at shares of the budget: {}",
    "reference_seconds": "",
    "score_cpu_seconds": "",
}


def prompt_text(budget: str) -> PromptText:
    """The words for a language model about training scripts; `budget` says what every candidate may use."""
    return PromptText(role=ROLE, rules=RULES, budget=budget, facts=FACTS, scoring=SCORING)


def about(data: Dataset, budget: BudgetOptions, threads: int) -> list[str]:
    """Sections on the data, the scale, and the calls of the harness.

    Args:
        data: The prepared data.
        budget: The configuration group `budget`.
        threads: CPU threads of a training.
    """
    scale = [
        f"A model maps tokens of a vocabulary of {budget.vocab:,}; scoring gives it {budget.context:,} at a "
        "time.",
        f"A training has {threads} CPU thread{'' if threads == 1 else 's'}; "
        + ("`torch.compile` is used." if budget.compile else "`torch.compile` is switched off."),
        TOKENS if budget.kind == "tokens" else SECONDS,
    ]
    found = [_corpus(data), "# The scale\n" + _bullets(scale)]
    return [*found, "# The harness (`run = harness.connect()`)\n" + "\n".join(_calls())]


TOKENS = (
    "A script gets exactly the tokens of its budget, each once, in a fixed order. It may keep a batch and "
    "train on it again; that costs only time, which is limited. A faster step alone gains nothing, but the "
    "time that it saves may be spent on a model that costs more per token."
)
SECONDS = (
    "A script may read tokens as fast as it can, and any of them again. Each token that a faster step adds "
    "counts."
)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _corpus(data: Dataset) -> str:
    """What the corpus is, with samples of the training text alone."""
    prepared = nanomodel.data.open_cache(data.path)
    train, scored = prepared.meta["splits"]["train"], prepared.meta["splits"]["validation"]
    tokens = prepared.tokens("train")
    step = len(tokens) // (SAMPLES + 1)
    passages = [prepared.decode(tokens[step * (i + 1) :][:SAMPLE_TOKENS]) for i in range(SAMPLES)]
    return (
        f"# The data\nThe corpus is {prepared.corpus}. Its training text has {train['documents']:,} "
        f"documents, {train['tokens']:,} tokens and {train['bytes'] / train['tokens']:.2f} bytes per token; "
        f"a document has {train['bytes'] / train['documents']:,.0f} bytes on average. Scores come from "
        f"{scored['tokens']:,} tokens of {scored['documents']:,} other documents. Three passages of the "
        "training text:\n" + "\n".join(map(quoted, passages))
    )


def _calls() -> list[str]:
    """Signature and first sentence of each public part of `nanomodel.harness.Run`, which is not imported."""
    spec = find_spec("nanomodel.harness")
    assert spec is not None and spec.origin is not None
    module = parse(Path(spec.origin).read_text(encoding="utf-8"))
    run = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Run")
    found = []
    for node in run.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            doc = (ast.get_docstring(node) or "").partition("\n")[0]
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if any(decorator.endswith(".setter") for decorator in decorators):
                continue
            arguments = "" if "property" in decorators else f"({_arguments(node)})"
            returns = f" -> {ast.unparse(node.returns)}" if node.returns and arguments else ""
            found.append(f"- `run.{node.name}{arguments}{returns}`: {doc}")
    return found


def _arguments(node: ast.FunctionDef) -> str:
    """The arguments of a method, without `self`."""
    return ast.unparse(node.args).removeprefix("self").removeprefix(", ")


def limits(budget: BudgetOptions, baseline: Mapping[str, float], cpus: int) -> list[Limit]:
    """The limits on the time of a trial.

    Args:
        budget: The configuration group `budget`.
        baseline: See `Task.limits`.
        cpus: See `TrainingBudget.limited`.
    """
    most = TrainingBudget(budget.kind, budget.amount, budget.max_seconds)
    most = most.limited(budget.slowdown, baseline, cpus)
    found = [
        Limit("startup_seconds", "seconds before the clock starts", budget.startup_seconds),
        Limit("train_seconds", "seconds of training", most.late_after),
        Limit("score_seconds", "seconds of scoring", budget.score_seconds),
    ]
    if most.max_cpu_seconds is not None:
        found.append(Limit("cpu_seconds", "CPU seconds of training, on all threads", most.max_cpu_seconds))
    return found
