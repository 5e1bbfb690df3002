"""Checks values by a model, and says in a sentence what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from autoresearch.config.explain import comment
from autoresearch.errors import UserError

M = TypeVar("M", bound=BaseModel)

WANTED = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_": "a text",
    "path_": "a path",
    "tuple_": "a list in brackets, such as [a,b]",
    "list_": "a list in brackets, such as [a,b]",
    "dict_": "a mapping in braces, such as {{a: 1}}",
    "mapping_": "a mapping in braces, such as {{a: 1}}",
    "model_": "a mapping in braces, such as {{a: 1}}",
    "literal_error": "{expected}",
    "greater_than_equal": "{ge:g} or more",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "{le:g} or less",
    "less_than": "less than {lt:g}",
    "too_short": "a list with {min_length} or more",
}
"""What is wrong with a value, as pydantic calls it -> what is wanted, in words."""


def parse(model: type[M], values: Mapping[str, Any], group: str) -> M:
    """Check the values of one group by a model of the room that they belong to.

    Args:
        model: Types and ranges.
        values: The group, such as `Config.budget`.
        group: Its name, for messages.

    Raises:
        UserError: If a value is missing, unknown, of a wrong type, or out of range.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explained(error, group) from None


def explained(error: ValidationError, group: str = "") -> UserError:
    """The first thing that is wrong with some values, as a sentence.

    Args:
        error: What pydantic says.
        group: Of the keys, such as "proposer".
    """
    first = error.errors()[0]
    key = ".".join(str(part) for part in ([group] if group else []) + list(first["loc"]))
    said = comment(key)
    hint = f"{key}: {said}" if said else f"See what is set: autoresearch config {key.partition('.')[0]}"
    kind, limits = first["type"], first.get("ctx", {})
    if kind == "value_error":
        return UserError(f"{key}={first['input']} {limits['error']}.", hint)
    if key == "name":
        hint = (
            "It names a branch and a folder: letters from a to z, also capitals, digits, dots, hyphens and "
            "underscores, 64 at most, with a letter or a digit first."
        )
        return UserError(f"name={first['input']} is no name for a search.", hint)
    if kind == "missing":
        return UserError(f"{key} is missing.", hint)
    if kind == "extra_forbidden":
        return UserError(f"There is no option {key}.", hint)
    words = next((words for known, words in WANTED.items() if kind.startswith(known)), "")
    wanted = words.format(**limits) if words else first["msg"].lower()
    return UserError(f"{key} must be {wanted}, not {_shown(first['input'])}.", hint)


def _shown(value: Any) -> str:
    """A value as a person writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
