"""Defines the model's answer, one strict tool call, and makes a proposal from it.

Invariant: no part of an answer is guessed. The parts that an experiment needs (hypothesis, edits) are right,
or refused with a reason for the model. Commentary (effect, confidence, risk) is dropped if it is unusable,
because another call would cost more than it is worth.

Not covered: whether the edits apply and the candidate obeys the rules (the `check` of the search).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from autoresearch.errors import Refused
from autoresearch.propose.base import Check, Context
from autoresearch.propose.llm.novelty import with_difference
from autoresearch.propose.llm.providers.formats import unpacked
from autoresearch.propose.tune.request import MAX_POINTS, first_point
from autoresearch.types import Category, Edit, Metric, Proposal

TOOL_NAME = "propose"
"""Name of the answer with edits; an answer without a name counts as this one."""

MAX_VARIANTS = 4
"""Variants of an idea that one answer may hold besides the first."""

MAX_TUNE = 2000
"""Characters that say what is to be tuned."""

MAX_SENTENCE = 600
"""Characters kept of each prose field."""


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has all of these properties and no others, as strict tools demand."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _of(kind: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "description": description, **more}


_EDIT = _object(
    path=_of("string", "File to change."),
    search=_of(
        "string",
        "Passage to replace, copied exactly from the file as shown, without line numbers; it must occur "
        "once. Empty: `replace` is the whole new file.",
    ),
    replace=_of("string", "What stands there afterwards. Empty deletes the passage."),
)
_VARIANT = _object(
    hypothesis=_of("string", "One sentence: what this variant does otherwise."),
    edits={"type": "array", "items": _EDIT},
)


def tool(metric: Metric) -> dict[str, Any]:
    """The definition of the tool, for `tools=[...]`; the same bytes every time for a metric."""
    idea = {
        "hypothesis": _of("string", "One sentence: what is changed and what it should do to the score."),
        "mechanism": _of("string", "Why you expect this, in two or three sentences."),
        "category": {"type": "string", "enum": [category.value for category in Category]},
        "expected_effect": _of("number", f"Expected gain in {metric.unit}; positive is better."),
        "confidence": _of("number", "Probability from 0 to 1 that the gain is real."),
        "risk": _of("string", "What is most likely to go wrong."),
        "idea": _of(
            "integer",
            "Number of the open idea of a person that this tests; 0 for an idea of your own.",
        ),
        "instruction": _of(
            "string",
            "The one instruction of the brief that this follows most, in the brief's words (the first ones "
            "are enough). Empty if it follows none.",
        ),
        "difference": _of(
            "string",
            "If an earlier experiment that failed was much like this: what is different now, and why that "
            "should matter. Else empty.",
        ),
    }
    change = {
        "edits": _of(
            "array",
            "The change: at least one edit, unless `tune` names constants of the script.",
            items=_EDIT,
        ),
        "tune": _of(
            "string",
            "Constants whose numbers are to be tuned on top of the edits, each with its space: "
            "`LR 0.005..0.05 log; DEPTH 2..6; ACT relu | gelu`. One constant with listed values is a sweep: "
            "`WARMUP 0.0 | 0.05 | 0.1`. Usually empty.",
        ),
        "diagnose": _of(
            "boolean",
            "True: the edits only print something about the current script, as the hypothesis says; nothing "
            "is judged. Usually false.",
        ),
        "points": _of(
            "integer",
            f"Points of the tuning, each an experiment: 2 to {MAX_POINTS}; 0 without one.",
        ),
        "variants": _of(
            "array",
            "Other ways to carry out the same idea, if the request asks for some; else empty.",
            items=_VARIANT,
        ),
    }
    return {
        "name": TOOL_NAME,
        "description": "Propose the next experiment: a hypothesis and the exact edits that test it.",
        "strict": True,
        "input_schema": _object(**idea, **change),
    }


class CutOff(Refused):
    """The answer reached its limit and was cut off."""

    def __init__(self) -> None:
        super().__init__("the answer was cut off before it was complete")


@dataclass(frozen=True)
class Answered:
    """An answer as received: the named tool, and the input, which may be any value."""

    tool: str
    input: object


def accept(answered: Answered, author: str, context: Context, check: Check, n: int = 1) -> list[Proposal]:
    """Turn an answer into proposals (without their cost) that can become experiments.

    Args:
        answered: The answer of the author.
        author: The author, as in `Proposal.proposer`.
        context: The context that the author got.
        check: The check of the search.
        n: Largest number of proposals.

    Returns:
        The proposal, and those of its variants that can be tried; of a tuning the first point.

    Raises:
        Refused: With the reason, for the author, if the first of them cannot be tried.
    """
    proposal = parse(answered, author, [idea.number for idea in context.ideas])
    if proposal.diagnostic:
        check(proposal)
        return [proposal]
    if tune := _words(mapping(answered.input).get("tune")):
        points = _number(mapping(answered.input).get("points"))
        proposal = first_point(proposal, tune, None if points is None else int(points), context)
    proposal = with_difference(proposal, difference(answered.input), context)
    check(proposal)
    found = [proposal]
    if proposal.tuning:
        return found
    for edits, hypothesis in _variants(answered.input)[: MAX_VARIANTS if n > 1 else 0]:
        variant = replace(proposal, edits=edits, hypothesis=hypothesis or proposal.hypothesis)
        if len(found) < n and all(edits != known.edits for known in found):
            with suppress(Refused):  # the others are worth a training without it
                check(variant)
                found.append(variant)
    return found


def _variants(answer: object) -> list[tuple[tuple[Edit, ...], str]]:
    """Edits and hypothesis of each variant that is complete."""
    value = mapping(answer).get("variants")
    found = []
    for item in value if isinstance(value, list) else []:
        problems: list[str] = []
        edits = _edits(mapping(item).get("edits"), problems)
        if not problems:
            found.append((edits, _prose(mapping(item).get("hypothesis"))))
    return found


def parse(answered: Answered, proposer: str, ideas: Collection[int] = ()) -> Proposal:
    """Read the fields of an answer.

    Args:
        answered: The answer; it may be any value.
        proposer: Its author.
        ideas: Numbers of the open ideas; any other number is dropped.

    Raises:
        Refused: If there is no such tool; otherwise it names all parts that are missing or of the wrong kind.
    """
    if answered.tool != TOOL_NAME:
        raise Refused(f"there is no tool {answered.tool!r}; call `{TOOL_NAME}` once, with complete edits")
    answer = answered.input
    if not isinstance(answer, Mapping):
        raise Refused("the input of the tool call is not an object with the fields of the schema")
    problems: list[str] = []
    hypothesis = _prose(answer.get("hypothesis"))
    if not hypothesis:
        problems.append("hypothesis must be a sentence")
    written = unpacked(answer.get("edits"), "edits")
    edits = _edits(written, problems) if written or not _words(answer.get("tune")) else ()
    if problems:
        raise Refused("the tool call is not complete: " + "; ".join(problems))
    confidence, idea = _number(answer.get("confidence")), _number(answer.get("idea"))
    category = str(answer.get("category")).strip().lower()
    return Proposal(
        hypothesis=hypothesis,
        category=Category(category) if category in list(Category) else Category.OTHER,
        edits=edits,
        proposer=proposer,
        mechanism=_prose(answer.get("mechanism")),
        expected_effect=_number(answer.get("expected_effect")),
        confidence=confidence if confidence is not None and 0 <= confidence <= 1 else None,
        risk=_prose(answer.get("risk")),
        idea=int(idea) if idea in ideas and idea is not None else None,
        instruction=_prose(answer.get("instruction")),
        diagnostic=str(answer.get("diagnose")).strip().lower() in ("true", "yes", "1"),
    )


def difference(answer: object) -> str:
    """How an answer says it differs from an earlier experiment; empty if it does not say."""
    return _prose(mapping(answer).get("difference"))


def _edits(value: object, problems: list[str]) -> tuple[Edit, ...]:
    value = [value] if isinstance(value, Mapping) else value
    if not isinstance(value, list) or not value:
        problems.append("edits must be a list with at least one edit")
        return ()
    edits = []
    for number, item in enumerate(value, start=1):
        fields = [mapping(item).get(name) for name in ("path", "search", "replace")]
        texts = [field for field in fields if isinstance(field, str)]
        if len(texts) != 3:
            problems.append(f"edit {number} must have the texts path, search and replace")
        elif not all(_encodable(text) for text in texts):
            problems.append(f"edit {number} holds characters that cannot be written as UTF-8")
        else:
            edits.append(Edit(*texts))
    return tuple(edits)


def _words(value: object) -> str:
    """What is to be tuned, in words; empty if that is not said."""
    return as_utf8(value).strip()[:MAX_TUNE] if isinstance(value, str) else ""


def _prose(value: object) -> str:
    """A text on one line, of limited length; empty if it is not text."""
    text = value if isinstance(value, str) else ""
    return " ".join(as_utf8(text).split())[:MAX_SENTENCE]


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_utf8(text: str) -> str:
    """The text, with lone surrogates replaced, since UTF-8 cannot encode them."""
    return text.encode("utf-8", "replace").decode()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.strip().lstrip("#") if isinstance(value, str) else value)
    except (OverflowError, ValueError):  # an integer of hundreds of digits, or words
        return None
    return number if math.isfinite(number) else None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
