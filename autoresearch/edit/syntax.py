"""Syntax trees, made by one thread at a time.

Before 3.11.8 and 3.12.2 CPython counts the depth of all trees under construction in one place: where a
collection of garbage lets another thread in, `ast.parse` may end with a SystemError (python/cpython#106905).
A proposer's thread and the search's both parse.
"""

from __future__ import annotations

import ast
import threading

ALONE = threading.RLock()
"""To be held by whoever calls what makes a syntax tree from text."""

UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
"""What CPython raises for text that is not a program, or is nested too deeply."""


def parse(source: str) -> ast.Module:
    """The syntax tree of a program.

    Raises:
        UNPARSABLE: If it is none.
    """
    with ALONE:
        return ast.parse(source)
