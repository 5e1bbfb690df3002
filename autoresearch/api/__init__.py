"""One search as an object: the command line, MCP and notebooks read and steer it by the same functions.

What is defined here loads at once, since the command line needs it for its help; the rest is in `handle`.
"""

from enum import StrEnum


class Order(StrEnum):
    """By what a list of experiments is sorted; the best comes last."""

    NUMBER = "number"
    SCORE = "score"
    CHANGE = "change"
