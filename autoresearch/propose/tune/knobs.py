"""Tuning as editing: the knobs of a search are a space of points, and a point becomes an ordinary proposal.

Invariant: the space comes from the scripts as they were when the search began, so that it stays the same
while the incumbent moves; a point is applied to the incumbent's scripts, and what `params` say is what
the edited script says. A knob that the incumbent has lost, or turned into something else, is left out.

`RandomProposer` is the control arm: what another proposer gains over it is what that one is worth.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random

from pydantic import validate_call

from autoresearch.edit.knobs import Choice, Space, literal, read_knobs, read_values, same, set_knobs
from autoresearch.errors import Refused
from autoresearch.propose.base import Check, Context, Proposer, ProposerError, up_to
from autoresearch.types import Category, Edit, Knob, Proposal

LARGEST = 1e300
"""No tuner computes with larger numbers."""

FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(\n|$)", re.DOTALL)
SCOPE = re.compile(r"^(?:knobs|scope):[ \t]*(\S.*)$", re.MULTILINE)

Point = Mapping[str, Knob]
"""Knob name -> value."""


@dataclass(frozen=True)
class Tunable:
    """A knob that both the starting script and the incumbent have."""

    path: str
    space: Space
    value: Knob

    def holds(self, value: object) -> bool:
        """Whether a value is of the kind that the space holds."""
        if isinstance(self.space, Choice):
            return any(same(value, option) for option in self.space.options)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < LARGEST  # type: ignore[arg-type]


def scope(brief: str) -> tuple[str, ...]:
    """The knobs that a brief allows, as names with wildcards; empty if it allows all.

    A brief may begin with front matter: lines between two lines of `---`, one of which is
    `knobs: MATRIX_LR, BETA*`, or `scope:` with the same. A constant that is named in full needs no range in
    the script.
    """
    found = FRONT_MATTER.match(brief)
    line = SCOPE.search(found[1]) if found else None
    return tuple(re.split(r"[\s,]+", line[1].strip("[] "))) if line else ()


def tunables(context: Context, column: int) -> dict[str, Tunable]:
    """The knobs that can be tuned now and that the brief allows, by name, with the incumbent's values.

    Raises:
        ProposerError: If there is none.
    """
    allowed = scope(context.brief)
    found: dict[str, Tunable] = {}
    for path, source in sorted(context.baseline_sources.items()):
        if not path.endswith(".py") or path not in context.sources:
            continue
        values = read_values(context.sources[path], column)
        for knob in read_knobs(source, column, allowed):
            if knob.name in found or knob.name not in values:
                continue
            if allowed and not any(fnmatchcase(knob.name, pattern) for pattern in allowed):
                continue
            tunable = Tunable(path, knob.space, values[knob.name])
            if tunable.holds(tunable.value):
                found[knob.name] = tunable
    if not found and allowed:
        raise ProposerError(f"the brief allows no knob of the script, only {', '.join(allowed)}")
    if not found:
        raise ProposerError("the script has no knobs to tune: constants like `LR = 0.02  # x4` at its top")
    return found


class KnobProposer(Proposer):
    """A proposer that tunes knobs; a subclass chooses the points.

    Args:
        column: Which argument of `at(cpu, gpu)` is set: 0 for CPU, 1 for GPU.
        tries: Points chosen in a row before giving up, if all were tried before or are refused.
    """

    instant = True

    def __init__(self, column: int, tries: int) -> None:
        self._column = column
        self._tries = tries

    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        return up_to(n, lambda: self._next(context, check))

    @abstractmethod
    def _point(self, context: Context, knobs: Mapping[str, Tunable], attempt: int) -> Point | None:
        """The point to try; None if the one that was chosen was tried before."""

    def _accepted(self, point: Point) -> None:
        """Take note that a point is proposed."""

    def _next(self, context: Context, check: Check) -> Proposal:
        knobs = tunables(context, self._column)
        for attempt in range(self._tries):
            point = self._point(context, knobs, attempt)
            if point is None:
                continue
            found = proposal(context, knobs, point, self._column, self.name)
            try:
                check(found)
            except Refused:
                continue
            self._accepted(point)
            return found
        raise ProposerError(
            f"{self._tries} points in a row were tried before or refused; the space may be used up"
        )


class RandomProposer(KnobProposer):
    """Draws every knob uniformly at random in its space, whatever happened before.

    Args:
        column: Which argument of `at(cpu, gpu)` is set: 0 for CPU, 1 for GPU.
    """

    name = "random"

    @validate_call
    def __init__(self, *, column: int) -> None:
        super().__init__(column, tries=100)
        self._drawn = 0

    def _point(self, context: Context, knobs: Mapping[str, Tunable], attempt: int) -> Point:
        self._drawn += 1
        draw = Random(f"{context.seed} {len(context.history)} {self._drawn}")
        return {
            name: draw.choice(knob.space.options)
            if isinstance(knob.space, Choice)
            else knob.space.value(draw.random())
            for name, knob in knobs.items()
        }


def proposal(
    context: Context, knobs: Mapping[str, Tunable], point: Point, column: int, name: str
) -> Proposal:
    """The proposal that sets every knob of `point`, with its cost still open.

    Args:
        context: Where the incumbent's scripts are.
        knobs: From `tunables`.
        point: New values; a knob that is absent keeps its value.
        column: Which argument of `at(cpu, gpu)` is set.
        name: Of the proposer.
    """
    changed = {k: v for k, v in point.items() if not same(knobs[k].value, v)}
    edits: list[Edit] = []
    for path in sorted({knobs[k].path for k in changed}):
        values = {k: v for k, v in changed.items() if knobs[k].path == path}
        edits += set_knobs(path, context.sources[path], values, column)
    moves = ", ".join(f"{k} {literal(knobs[k].value)} -> {literal(v)}" for k, v in changed.items())
    return Proposal(
        hypothesis=moves,
        category=Category.KNOBS,
        edits=tuple(edits),
        proposer=name,
        params={k: point.get(k, tunable.value) for k, tunable in knobs.items()},
    )
