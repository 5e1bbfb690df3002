"""Has a model devise guards: what might the gains of a search exploit, and which slice would show it?

The model is shown what was kept and how much each gained on validation, on the guards and in the claim, and
the small vocabulary of slices that the task declares. Its answer is data, which the task checks; a person
accepts it with one command. Not covered: what becomes of an accepted guard (`search.checks.guards`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoresearch.errors import Refused, UserError
from autoresearch.propose.budget import Capped
from autoresearch.propose.llm.reader import Reader
from autoresearch.report.summary import Summary, summarize
from autoresearch.search.loop import Search
from autoresearch.store.calls import CallLog
from autoresearch.store.inbox import DevisedGuard, Inbox
from autoresearch.store.journal import Journal
from autoresearch.tasks.base import Task
from autoresearch.text import guards_text, one_line
from autoresearch.types import in_order

MOST = 3
"""Guards of one answer at most."""

MOST_DIFF = 4000
"""Characters of each diff that are shown."""

MAX_DOLLARS = 1.0
"""Limit of all that devising may cost a search, its earlier calls included."""

DRIFT = 2.0
"""Standard errors by which the gain on validation must exceed that of a claim for the two to drift apart."""

INSTRUCTIONS = """You review a search that improves a program by a metric. A gain may be real, or may exploit
how the metric is measured (Goodhart's law): it may help the text that is scored and hurt other text, short
contexts and not long ones, frequent words and not rare ones. Say what the kept changes might exploit, and
propose at most {most} guards: slices of the held-out text on which a change that exploits this would lose.
A guard is data, never code. {words}"""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "guards": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "description": "small letters, digits and underscores"},
                    "text": {"type": "string", "description": "what it measures, one line"},
                    "reason": {"type": "string", "description": "what a kept change might exploit"},
                    "definition": {"type": "object", "additionalProperties": {"type": "string"}},
                },
                "required": ["name", "text", "reason", "definition"],
            },
        }
    },
    "required": ["guards"],
}


def devise(
    summary: Summary, task: Task, folder: Path, proposer: Mapping[str, Any]
) -> tuple[list[DevisedGuard], list[str], float]:
    """Ask a model for guards, and leave them in the inbox for a person to decide.

    Args:
        summary: Of the search.
        task: Of the search.
        folder: Of the search.
        proposer: The configuration group `proposer`.

    Returns:
        The guards that were proposed, why others are none, and the dollars that it cost.

    Raises:
        UserError: If the task has no devised guards, nothing was kept, or no answer came.
    """
    if not task.guard_words:
        raise UserError(f"The task {task.name} has no guards that can be devised.")
    if not any(e.kept for e in summary.experiments):
        raise UserError("Nothing was kept, so there is no gain to look into.", "Search on: autoresearch run")
    calls, inbox = CallLog(folder), Inbox(folder)
    reader = Reader("guards", proposer, MAX_DOLLARS, calls.spent("guards"), calls.record)
    known = {guard.metric.name for guard in inbox.guards()} | {guard.name for guard in task.guard_metrics()}
    try:
        words = INSTRUCTIONS.format(most=MOST, words=task.guard_words)
        answer, cost = reader.ask(words, _material(summary), SCHEMA)
    except Refused as error:
        raise UserError(f"The answer of the model cannot be used: {error}.", "Ask once more.") from None
    except Capped as error:
        raise UserError(
            f"No more is spent on guards: {error}.", "Write one yourself, or do without."
        ) from None
    listed = answer.get("guards")
    found, refused = [], []
    for said in listed[:MOST] if isinstance(listed, list) else []:
        try:
            guard = _read(said, task, reader.author, known)
        except Refused as error:
            refused.append(str(error))
            continue
        known.add(guard.metric.name)
        inbox.add_guard(guard)
        found.append(guard)
    return found, refused, cost.dollars


def _read(said: object, task: Task, author: str, known: set[str]) -> DevisedGuard:
    """One guard of an answer.

    Raises:
        Refused: If it is none.
    """
    if not isinstance(said, Mapping) or not isinstance(said.get("definition"), Mapping):
        raise Refused("a guard without a definition")
    name = one_line(str(said.get("name", "")), 32)
    if name in known:
        raise Refused(f"there is a guard {name} already")
    text, reason = (one_line(str(said.get(key, "")), 400) for key in ("text", "reason"))
    return DevisedGuard(task.devised(name, text, said["definition"]), reason, author)


def drifted(summary: Summary) -> str:
    """Whether the gain on validation exceeds that on the sealed test split, in words; empty if not."""
    result = summary.claim.result if summary.claim else None
    if result is None or result.overfit is None or result.overfit <= DRIFT * result.error:
        return ""
    if summary.claim and summary.claim.elsewhere:
        return ""  # the claim is on other data by intention
    text = summary.metric.text
    return (
        f"On validation the models of the claim gain {text(result.effect + result.overfit)}, on the sealed "
        f"test split {text(result.effect)}: the search may exploit its validation data."
    )


def devise_if_drifted(search: Search) -> list[str]:
    """Have guards devised if validation and claim drift apart and `guards.devise` asks for that; in words."""
    summary = summarize(search.journal)
    said = drifted(summary)
    if not said:
        return []
    if not search.config.guards.devise:
        return [said, "What may it exploit? autoresearch guards devise (costs money)"]
    try:
        found = devise(summary, search.task, search.folder, search.config.proposer)
    except UserError as error:
        return [said, f"No guard was devised: {error}"]
    return [said, *devised_lines(*found, Inbox(search.folder))]


def _material(summary: Summary) -> str:
    rows = []
    for e in in_order(summary.experiments):
        if e.kept and e.proposal and e.verdict:
            rows.append(
                {
                    "number": e.number,
                    "hypothesis": e.proposal.hypothesis,
                    "gain": e.verdict.effect,
                    "guards": guards_text(e.verdict),
                    "diff": e.diff[:MOST_DIFF],
                }
            )
    claim = summary.claim.result if summary.claim else None
    about: dict[str, Any] = {"metric": summary.metric.unit, "kept": rows}
    if claim is not None:
        about |= {"gain on the sealed split": claim.effect, "validation minus that": claim.overfit}
    return json.dumps(about, indent=1, default=str)


def devised_lines(found: list[DevisedGuard], refused: list[str], dollars: float, inbox: Inbox) -> list[str]:
    """What came of it, for a terminal."""
    numbers = {guard.metric.name: guard.number for guard in inbox.guards()}
    lines = [guard_line(numbers[guard.metric.name], guard) for guard in found]
    lines += [f"Refused: {reason}." for reason in refused]
    return [*lines, f"It cost ${dollars:.4f}. To use one: autoresearch guards accept N"]


def guard_line(number: int, guard: DevisedGuard) -> str:
    """One proposed guard in a line."""
    what = json.dumps(dict(guard.metric.definition))
    said = f"{guard.metric.name}: {one_line(guard.metric.text, 100)} {what}"
    return (
        f"{number:4d}  {said}  [{guard.state}] {one_line(guard.reason, 160)} ({one_line(guard.author, 60)})"
    )


def summary_of(folder: Path) -> Summary:
    """The summary of a search in a folder."""
    with Journal.of(folder) as journal:
        return summarize(journal)
