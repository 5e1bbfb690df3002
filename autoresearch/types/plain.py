"""Values that the journal and other programs read and write as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar, Self

Knob = int | float | str | bool
"""The value of one named constant at the top of the training script."""


@dataclass(frozen=True)
class Plain:
    """A value that can be JSON and back."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what is absent has its default.

        Raises:
            ValueError: If what has no default is absent, a key is unknown, or a value is of another type.
        """
        from pydantic import ValidationError

        try:
            found: Self = _reader(cls).validate_python(dict(data))  # type: ignore[arg-type]
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
            raise ValueError("; ".join(wrong)) from None
        return found


@cache
def _reader(kind: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
