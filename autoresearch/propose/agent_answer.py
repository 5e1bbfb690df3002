"""What an agent wrote about its change, in its own words, as the fields that every proposal has.

Invariant: any text at all is data: it becomes fields or is left out, and nothing in it is followed.
"""

from __future__ import annotations

import re

from autoresearch.types import Edit

FIELDS = ("mechanism", "category", "expected_effect", "confidence", "risk", "idea", "difference")


def said(text: str, edits: tuple[Edit, ...]) -> dict[str, object]:
    """What a hypothesis in words says, in the form that `answer.parse` takes.

    The first line is the hypothesis; a later line that begins with the name of a field and a colon gives that
    field; all others belong to the mechanism, or to the field before them.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = re.sub(r"^[#*\s]*(hypothesis\W+)?", "", lines[0], flags=re.IGNORECASE) if lines else ""
    found: dict[str, object] = {}
    name = "mechanism"
    for line in lines[1:]:
        match = re.match(r"[-*#\s]*([a-z][a-z_ ]*?)[*\s]*:[*\s]*(.*)", line, flags=re.IGNORECASE)
        key = match[1].lower().replace(" ", "_") if match else ""
        if match and key in FIELDS:
            name, line = key, match[2]
        found[name] = f"{found.get(name, '')} {line}".strip()
    for key in found.keys() & {"expected_effect", "confidence", "idea"}:
        found[key] = _number(str(found[key]))
    kind = str(found.get("category", "")).lower().strip(" .`*")
    return {
        **found,
        "hypothesis": first.strip(" *`"),
        "category": kind,
        "edits": [{"path": e.path, "search": e.search, "replace": e.replace} for e in edits],
    }


def _number(text: str) -> float | None:
    """The first number in a text."""
    found = re.search(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?", text, flags=re.IGNORECASE)
    return float(found[0]) if found else None
