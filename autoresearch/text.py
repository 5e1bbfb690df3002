"""Text from candidates and LLMs, made fit to be shown.

Owns the invariant that nothing a candidate printed or a proposer wrote can move a terminal's cursor, turn
text around, or carry one of this process's secrets into a page or a tracking store. Escaping for a format
(HTML, Markdown, Rich markup, TeX) is the business of whoever writes that format.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from itertools import pairwise

_SECRET_NAME = re.compile(
    r"(^|_)(api_?key|secret|password|passwd|token|credentials?|authorization)$", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)", re.DOTALL)
_KEPT = "\n\t"


def clean(text: str) -> str:
    """Text without control, bidirectional and other invisible characters; newlines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    text = _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    # Cc control, Cf format (bidi overrides, zero width), Cs lone surrogates, Co/Cn private and unassigned.
    return "".join(c for c in text if c in _KEPT or unicodedata.category(c)[0] != "C")


def one_line(text: str, limit: int = 200) -> str:
    """Clean text on one line of at most `limit` characters; an ellipsis shows that something was cut."""
    line = " ".join(clean(text).split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    head, space, tail = cut.rpartition(" ")
    return (head if space and len(tail) < limit // 4 else cut).rstrip() + "…"


def spelled(text: str, encoding: str) -> str:
    """Text as far as an encoding has it; a sign never turns into a question mark."""
    for sign, plain in (("−", "-"), ("±", "+/-")):
        if sign in text and sign.encode(encoding, "replace") == b"?":
            text = text.replace(sign, plain)
    return text.encode(encoding, "replace").decode(encoding, "replace")


def secrets(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Values in the environment that must not be written anywhere, longest first."""
    environment = os.environ if environment is None else environment
    found = {v for k, v in environment.items() if _SECRET_NAME.search(k) and len(v) >= 8}
    return tuple(sorted(found, key=len, reverse=True))


def scrub(text: str, hidden: tuple[str, ...] | None = None) -> str:
    """Text with passwords in URLs and the values of secret environment variables blotted out."""
    for secret in secrets() if hidden is None else hidden:
        text = text.replace(secret, "[secret]")
    return _USERINFO.sub("[secret]", text)


def public(tree: object) -> object:
    """A configuration tree without its secrets: URLs lose their passwords, secret keys their text."""
    if isinstance(tree, Mapping):
        return {
            str(k): "[secret]" if isinstance(v, str) and v and _SECRET_NAME.search(str(k)) else public(v)
            for k, v in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [public(v) for v in tree]
    return scrub(tree) if isinstance(tree, str) else tree


def flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, with dotted keys: {"budget": {"amount": 5}} -> {"budget.amount": 5}."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 20 s", "5 h 12 min", "2 d 3 h"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for (size, name), (lesser, lesser_name) in pairwise(units):
        if whole >= size:
            rest = whole % size // lesser
            return f"{whole // size} {name}" + (f" {rest} {lesser_name}" if rest else "")
    return f"{whole} s"
