"""Tuning as editing: the knobs of a search are a space of points, and a point becomes an ordinary proposal.

Invariant: the space of a knob is the one that it was first declared with, in the files as they were when the
search began or by a kept change, so that it stays the same while the incumbent moves; a kept change may add,
remove, rename or redeclare knobs. A point is applied to the incumbent's files, and what `params` say is what
the edited files say. A knob that the incumbent has lost, or turned into something else, is left out.

`RandomProposer` is the control arm: what another proposer gains over it is what that one is worth.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random

from pydantic import validate_call

from autoresearch.edit.knob_lines import knobs_in, set_in, values_in
from autoresearch.edit.knobs import Choice, Space, literal, same
from autoresearch.edit.knobs import Knob as Declared
from autoresearch.edit.python import UNPARSABLE
from autoresearch.errors import Refused
from autoresearch.propose.base import Check, Context, Proposer, ProposerError, up_to
from autoresearch.types import Category, Edit, Experiment, Knob, Proposal

LARGEST = 1e300
"""No tuner computes with larger numbers."""

FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?)\n---[ \t]*(\n|$)", re.DOTALL)
SCOPE = re.compile(r"^(?:knobs|scope):[ \t]*(\S.*)$", re.MULTILINE)

Point = Mapping[str, Knob]
"""Knob name -> value."""


@dataclass(frozen=True)
class Tunable:
    """A knob of the incumbent.

    Attributes:
        path: Its file.
        space: Its search space.
        value: What the incumbent says.
        name: What the file calls it.
    """

    path: str
    space: Space
    value: Knob
    name: str = ""

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

    A name that several files have stands for that of the first; the others have their path before it.

    Raises:
        ProposerError: If there is none.
    """
    allowed, changes = scope(context.brief), knob_changes(context.history, column)
    found: dict[str, Tunable] = {}
    for path, source in sorted(context.sources.items()):
        values = values_in(path, source, column)
        now = {knob.name: knob for knob in knobs_in(path, source, column, allowed)}
        start = context.baseline_sources.get(path, "")
        first = {knob.name: knob for knob in knobs_in(path, start, column, allowed)}
        for name in [*first, *(name for name in now if name not in first)]:
            if name not in values or not _allowed(name, allowed):
                continue
            space = _space(path, first.get(name), now.get(name), changes)
            key = name if name not in found else f"{path}:{name}"
            tunable = Tunable(path, space, values[name], name)
            if tunable.holds(tunable.value):
                found[key] = tunable
    if not found and allowed:
        raise ProposerError(f"the brief allows no knob of the script, only {', '.join(allowed)}")
    if not found:
        raise ProposerError("the script has no knobs to tune: constants like `LR = 0.02  # x4` at its top")
    return found


def _allowed(name: str, allowed: Sequence[str]) -> bool:
    return not allowed or any(fnmatchcase(name, pattern) for pattern in allowed)


def _space(path: str, first: Declared | None, now: Declared | None, changes: Sequence[KnobChange]) -> Space:
    """The space of a knob: the one of the start, unless a kept change has declared it otherwise since."""
    if first is not None and (now is None or now.declared == first.declared):
        return first.space
    assert now is not None
    added = (c.added for c in changes if c.path == path)
    same_words = (knobs[now.name] for knobs in added if now.name in knobs)
    return next((knob.space for knob in same_words if knob.declared == now.declared), now.space)


@dataclass(frozen=True)
class KnobChange:
    """What a kept change did to the knobs of a file: those of lines that it removed and added, by name."""

    number: int
    path: str
    removed: Mapping[str, Declared]
    added: Mapping[str, Declared]

    @property
    def renamed(self) -> dict[str, str]:
        """Old name -> new name of each knob that keeps its value and its space."""
        gone = [knob for name, knob in self.removed.items() if name not in self.added]
        new = [knob for name, knob in self.added.items() if name not in self.removed]
        found = {}
        for old in gone:
            alike = [k for k in new if k.declared == old.declared and same(k.value, old.value)]
            if len(alike) == 1:
                found[old.name] = alike[0].name
        return found


def point_of(proposal: Proposal | None) -> Point:
    """The knobs that a proposal sets if it changes nothing else; empty if it is another change."""
    if proposal is None:
        return {}
    alone = proposal.tuning is not None and not proposal.tuning.change
    return proposal.tuning.values if alone and proposal.tuning else proposal.params


def knob_changes(history: Sequence[Experiment], column: int) -> list[KnobChange]:
    """What kept changes did to the declarations of knobs, oldest first, from their diffs."""
    found = []
    for experiment in history:
        if not experiment.kept or not experiment.diff or point_of(experiment.proposal):
            continue
        path, lines = "", dict[tuple[str, str], dict[str, Declared]]()
        for line in experiment.diff.splitlines():
            if line.startswith("+++ "):
                path = line[4:].removeprefix("b/")
            elif line[:1] in ("+", "-") and not line.startswith("--- "):
                with suppress(*UNPARSABLE):
                    side = lines.setdefault((path, line[0]), {})
                    side |= {knob.name: knob for knob in knobs_in(path, line[1:], column)}
        for path in dict.fromkeys(path for path, _ in lines):
            sides = (lines.get((path, sign), {}) for sign in "-+")
            found.append(KnobChange(experiment.number, path, *sides))
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

    @classmethod
    def followed(cls, brief: str) -> str:
        """The knobs that it allows."""
        return ", ".join(sorted(scope(brief)))

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
        return anywhere(knobs, draw)


def anywhere(knobs: Mapping[str, Tunable], draw: Random) -> Point:
    """A point that is uniformly random in the space."""
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
        values = {knobs[k].name: v for k, v in changed.items() if knobs[k].path == path}
        edits += set_in(path, context.sources[path], values, column)
    moves = ", ".join(f"{k} {literal(knobs[k].value)} -> {literal(v)}" for k, v in changed.items())
    return Proposal(
        hypothesis=moves,
        category=Category.KNOBS,
        edits=tuple(edits),
        proposer=name,
        params={k: point.get(k, tunable.value) for k, tunable in knobs.items()},
    )
