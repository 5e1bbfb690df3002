"""Tunings and sweeps that the author of a change asks for, so that its numbers get a fair chance.

An answer may name constants, those of the script or new ones of its edit, with a space for each and a number
of points. The first point is the change as it was written. Optuna chooses each further one on top of the
change, told of the earlier points; a sweep takes the listed values of one constant in turn. Every point is an
ordinary experiment with a trial, so the judge counts it as a candidate, and keeps it only after further runs
on other seeds: that the best of several points was chosen makes no keep easier.

Invariant: everything is read from the history, so a killed search goes on with the next point. A tuning ends
when its points are used up, when the change no longer applies to the incumbent, when a point broke a rule, or
when its first two points crashed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random

from autoresearch.edit.apply import apply
from autoresearch.edit.knob_lines import set_in, values_in
from autoresearch.edit.knobs import Choice, Space, literal, same, space_of
from autoresearch.edit.patch import edits_between
from autoresearch.edit.python import UNPARSABLE
from autoresearch.errors import Refused
from autoresearch.propose.base import Check, Context
from autoresearch.propose.tune.knobs import Point, Tunable, anywhere
from autoresearch.propose.tune.optuna import distributions, equal, noise_of, sampled
from autoresearch.propose.tune.study import Observation
from autoresearch.text import raw_gain, tuning_text, tunings
from autoresearch.types import (
    Category,
    Cost,
    Edit,
    Experiment,
    Knob,
    Metric,
    Proposal,
    Tuning,
    Verdict,
    VerdictKind,
)

USUAL_POINTS, MAX_POINTS, MAX_KNOBS = 4, 8, 6
"""Points of a tuning whose author does not say how many, the most of any, and the most knobs of one."""

NEAR = 0.05
"""Points that differ by less than this share of every range are twins."""

TRIES = 20
"""Points that the sampler may choose in a row that were tried before."""

HOW = "write `NAME SPACE; NAME SPACE`, with spaces such as 2..6, 0.001..0.1 log, x4 or relu | gelu"

_ENTRY = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*[:=\s]\s*(\S.*?)\s*")

Record = Callable[[Proposal, str], None]
"""Records that a point was refused for good, and why."""


def first_point(proposal: Proposal, words: str, points: int | None, context: Context) -> Proposal:
    """The first point of a tuning, with its cost still open.

    Args:
        proposal: The change, as its author wrote it; without edits, constants of the script are tuned.
        words: What is tuned: "LR 0.01..0.1 log; DEPTH 2..6".
        points: How many points its author asks for.
        context: What the author was told.

    Raises:
        Refused: With the reason, for the author.
    """
    after = apply(context.sources, proposal.edits) if proposal.edits else dict(context.sources)
    knobs = _tunables(after, _entries(words), context.column)
    here = {name: knob.value for name, knob in knobs.items()}
    spaces = {name: _spelled(knob.space) for name, knob in knobs.items()}
    count = min(max(points or USUAL_POINTS, 2), MAX_POINTS)
    if len(knobs) == 1 and isinstance(space := next(iter(knobs.values())).space, Choice):
        new = [option for option in space.options if proposal.edits or not same(option, *here.values())]
        if not 2 <= (count := len(new)) <= MAX_POINTS:
            raise Refused(f"tune: a sweep needs 2 to {MAX_POINTS} values, without that of the script; {HOW}")
        spaces = {name: _spelled(Choice(tuple(new))) for name in knobs}
    name = Random(f"{context.seed} {len(context.paid)} {proposal.hypothesis}").randbytes(6).hex()
    tuning = Tuning(name, 1, count, spaces, here, proposal.edits, proposal.hypothesis)
    if not proposal.edits:
        values = _choose(tuning, knobs, [], [], context)
        if values is None:
            raise Refused("tune: the script has the only value already")
        tuning, proposal = replace(tuning, values=values), replace(proposal, category=Category.KNOBS)
    return _at(tuning, proposal, after, knobs, context)


def next_points(context: Context, check: Check, n: int, wait: bool, refused: Record) -> list[Proposal]:
    """The next points of the oldest tuning that can go on; empty if there is none.

    Args:
        context: What may be known now.
        check: The check of the search; a point that it refuses is recorded, and used up.
        n: Largest number of points.
        wait: Whether a tuning waits until its points under way are judged, unless places are free.
        refused: Records a point that is refused.
    """
    found: list[Proposal] = []
    for group in tunings((*context.history, *context.under_way)):
        first = group[0][1]
        open_points = [e for e, _ in group if e.verdict is None]
        if not group[0][0].commit or (wait and n == 1 and open_points and first.kind == "tuning"):
            continue
        made = [p.tuning for p in context.paid if p.tuning and p.tuning.name == first.name]
        number = max(t.point for t in made)
        if number >= first.points or _hopeless([e for e, _ in group]):
            continue
        for point in _more([e for e, _ in group], [t.values for t in made], number, context):
            try:
                check(point)
            except Refused as error:
                refused(point, str(error))
                continue
            found.append(point)
            if len(found) == n:
                return found
    return found


def with_tuning(verdict: Verdict, number: int, experiments: Sequence[Experiment], metric: Metric) -> Verdict:
    """The verdict on a point of a tuning, which says so, and what the tuning found up to it.

    Args:
        verdict: Of the judge.
        number: Of the experiment.
        experiments: Of the search.
        metric: Its metric.
    """
    proposal = next(e.proposal for e in reversed(experiments) if e.number == number)
    if proposal is None or (this := proposal.tuning) is None:
        return verdict
    known = (replace(e, verdict=verdict) if e.number == number else e for e in experiments)
    points = (e for e in known if e.verdict and e.proposal and e.proposal.tuning)
    [group] = [points for points in tunings(points) if points[0][1].name == this.name]
    reason = f"{verdict.reason}; {this.words}, as measured: {tuning_text(group, metric)}"
    return replace(verdict, reason=reason)


def _more(
    group: Sequence[Experiment], tried: list[Point], number: int, context: Context
) -> Iterator[Proposal]:
    """The points that follow, as far as they can be made now."""
    first = group[0]
    assert first.proposal and first.proposal.tuning
    tuning = replace(first.proposal.tuning, of=first.number)
    try:
        after, knobs = _program(tuning, group, context.sources, context.column)
    except Refused:
        return
    while number < tuning.points:
        values = _choose(tuning, knobs, group, tried, context)
        if values is None:
            return
        number += 1
        tried.append(values)
        yield _at(replace(tuning, point=number, values=values), first.proposal, after, knobs, context)


def remade(
    proposal: Proposal, experiments: Sequence[Experiment], sources: Mapping[str, str], column: int
) -> Proposal:
    """A point that was made for an earlier incumbent, with edits of the present one.

    Args:
        proposal: The point.
        experiments: Of the search.
        sources: The incumbent's files.
        column: See `Context.column`.

    Raises:
        Refused: If the change does not apply as it was written, or a constant is gone.
    """
    tuning = proposal.tuning
    assert tuning, "only a point of a tuning is made again"
    group = [e for points in tunings(experiments) for e, t in points if t.name == tuning.name]
    after, knobs = _program(tuning, group, sources, column)
    return replace(proposal, edits=_edits(tuning, after, knobs, sources, column))


def _program(
    tuning: Tuning, group: Sequence[Experiment], sources: Mapping[str, str], column: int
) -> tuple[dict[str, str], dict[str, Tunable]]:
    """The incumbent's files with the change of a tuning, and what is tuned there."""
    kept = any(e.kept for e in group)  # then the change is in the script already
    after = dict(sources) if kept or not tuning.change else apply(sources, tuning.change)
    return after, _tunables(after, tuning.knobs, column)


def _hopeless(group: Sequence[Experiment]) -> bool:
    """Whether nothing more is to be expected of a tuning: a point cheated, or the first two crashed."""
    judged = [e for e in group if e.verdict]
    cheated = any(e.verdict.kind is VerdictKind.INVALID for e in judged if e.verdict)
    crashed = [e for e in judged if e.verdict and e.verdict.kind is VerdictKind.CRASH]
    return cheated or len(crashed) == len(judged) >= 2


def _entries(words: str) -> dict[str, str]:
    """Name -> space, as the author wrote them."""
    found = {}
    for entry in filter(str.strip, re.split(r"[;\n]", words)):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise Refused(f"tune: {entry.strip()[:100]!r} is not clear; {HOW}")
        found[match[1]] = match[2]
    if not 1 <= len(found) <= MAX_KNOBS:
        raise Refused(f"tune: name 1 to {MAX_KNOBS} constants; {HOW}")
    return found


def _tunables(after: Mapping[str, str], spaces: Mapping[str, str], column: int) -> dict[str, Tunable]:
    """The constants of a program with the spaces that were named for them."""
    found: dict[str, Tunable] = {}
    for name, words in spaces.items():
        for path, text in sorted(after.items()):
            try:
                values = values_in(path, text, column)
            except UNPARSABLE as error:
                raise Refused(f"{path} cannot be read with the edits made: {error}") from None
            if name in values:
                space = _space(words, values[name])
                if space is None:
                    raise Refused(f"tune: {words[:100]!r} is no space for {name} = {values[name]!r}; {HOW}")
                found[name] = Tunable(path, space, values[name], name)
                break
        else:
            raise Refused(
                f"tune: with the edits made there is no constant {name}. It must stand alone on a line, "
                "once, at the top of the module, as NAME = VALUE"
            )
    return found


def _space(words: str, value: Knob) -> Space | None:
    """The space that words describe; where a number is real, so are the options `0 | 0.5`."""
    space = space_of(words, value)
    if not isinstance(space, Choice) or not isinstance(value, float):
        return space
    options = (float(o) if isinstance(o, int) and not isinstance(o, bool) else o for o in space.options)
    unique = tuple(dict.fromkeys(options))
    return Choice(unique) if len(unique) > 1 else None


def _spelled(space: Space) -> str:
    """A space in words that do not depend on the present value."""
    if isinstance(space, Choice):
        return " | ".join(map(literal, space.options))
    low, high = (round(end) if space.integer else float(end) for end in (space.low, space.high))
    return f"{low}..{high}{' log' if space.log else ''}"


def _values(knobs: Mapping[str, Tunable]) -> list[Point]:
    """The points of a sweep, in order."""
    [(name, knob)] = knobs.items()
    assert isinstance(knob.space, Choice)
    return [{name: option} for option in knob.space.options]


def _choose(
    tuning: Tuning,
    knobs: Mapping[str, Tunable],
    group: Sequence[Experiment],
    tried: Sequence[Point],
    context: Context,
) -> Point | None:
    """The values of the next point; None if all have been tried."""
    here = {name: knob.value for name, knob in knobs.items()}
    if not tuning.change:
        tried = [here, *tried]  # the incumbent has a score already
    if tuning.kind == "sweep":
        return next((p for p in _values(knobs) if not any(equal(p, other) for other in tried)), None)
    from autoresearch.propose.tune.local_sampler import LocalSampler

    seen = [] if tuning.change else [Observation(here, 0.0)]
    seen += _observed(group, context)
    best = min((one for one in seen if not one.failed), key=lambda one: one.score, default=None)
    start = best.point if best else here
    around = {name: replace(knob, value=start[name]) for name, knob in knobs.items()}
    usual = best.score if best else 0.0
    known = seen or [Observation(here, 0.0)]

    def draw(space: Mapping[str, Tunable], random: Random) -> Point:
        """A random point that is no twin of one that was tried, where there is room."""
        points = (anywhere(space, random) for _ in range(TRIES))
        point = next(points)
        while any(_twins(space, point, other) for other in tried) and (more := next(points, None)):
            point = more
        return point

    for attempt in range(TRIES):
        seed = Random(f"{context.seed} {tuning.name} {len(tried)} {attempt}").randrange(2**31)
        sampler = LocalSampler(distributions(knobs), around, usual, noise_of(context), seed, draw)
        point = sampled(sampler, around, known)
        if not any(equal(point, other) for other in tried):
            return point
    return None


def _twins(knobs: Mapping[str, Tunable], a: Point, b: Point) -> bool:
    """Whether two points are so near each other that the second would tell next to nothing."""
    for name, knob in knobs.items():
        if name not in b:
            return False
        if isinstance(knob.space, Choice):
            if not same(a[name], b[name]):
                return False
        elif abs(knob.space.unit(a[name]) - knob.space.unit(b[name])) >= NEAR:
            return False
    return True


def _observed(group: Sequence[Experiment], context: Context) -> list[Observation]:
    """The points of a tuning as losses on one level: that of the incumbent of the first point.

    A point that failed counts as the worst one, and marks its neighbourhood as failing; one that was
    withdrawn counts for nothing. A point under way counts as an average one (the constant liar of
    Ginsbourger, Le Riche & Carraro, 2010).
    """
    ours = {e.number for e in group}
    gained, begun, found, waiting = 0.0, False, list[Observation](), list[Point]()
    for e in (*context.history, *context.under_way):  # in the order of the verdicts
        tuning = e.proposal.tuning if e.proposal and e.number in ours else None
        gain = raw_gain(e.verdict, context.metric) if e.verdict else None
        if tuning and e.verdict is None:
            waiting.append(tuning.values)
        elif tuning and (gain is not None or (e.verdict and e.verdict.kind is not VerdictKind.DISCARD)):
            found.append(Observation(tuning.values, -(gain or 0.0) - gained, gain is None, e.number))
        begun |= tuning is not None
        if begun:
            gained += e.gain
    scores = [one.score for one in found if not one.failed] or [0.0]
    found = [one._replace(score=max(*scores, 0.0)) if one.failed else one for one in found]
    return [*found, *(Observation(point, sum(scores) / len(scores)) for point in waiting)]


def _at(
    tuning: Tuning,
    proposal: Proposal,
    after: Mapping[str, str],
    knobs: Mapping[str, Tunable],
    context: Context,
) -> Proposal:
    """The proposal that is a point."""
    edits = _edits(tuning, after, knobs, context.sources, context.column)
    words = f"{tuning.words.capitalize()} ({tuning.where}): {tuning.about}"
    if tuning.point == 1:
        unchanged = equal(tuning.values, {name: knob.value for name, knob in knobs.items()})
        return replace(
            proposal, hypothesis=words, edits=proposal.edits if unchanged else edits, tuning=tuning
        )
    return replace(proposal, hypothesis=words, edits=edits, tuning=tuning, cost=Cost(), conversation="")


def _edits(
    tuning: Tuning,
    after: Mapping[str, str],
    knobs: Mapping[str, Tunable],
    sources: Mapping[str, str],
    column: int,
) -> tuple[Edit, ...]:
    """Edits of the incumbent that make a point."""
    new = dict(after)
    for name, value in tuning.values.items():
        path = knobs[name].path
        if setting := set_in(path, new[path], {name: value}, column):
            new = apply(new, setting)
    return edits_between(sources, new)
