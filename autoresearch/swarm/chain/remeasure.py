"""Measures links of a chain again: commit and parent, trained in pairs on seeds that nobody used before.

Where scores depend on something else than at the server, that is told, since then they may differ. A link
holds if its gain agrees with what the server signed, within the noise of both. One that does not hold may be
bad luck at a rate of one in 700; it is to be flagged and measured again, not dropped.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import mean

from autoresearch.clock import now
from autoresearch.finish.trainings import Training, run_trainings, unused_seed
from autoresearch.search.loop import Search
from autoresearch.store.records.notes import read_records, write_records
from autoresearch.swarm.chain.links import Link, digests
from autoresearch.types import Arm, Plain, Split

REMEASURED = "remeasured"
"""Key of the journal's note."""

WORSE = 3.0
"""Standard errors by which a gain may fall short of the signed one."""

Z95 = 1.96


@dataclass(frozen=True)
class Remeasured(Plain):
    """What came of measuring one link again.

    Attributes:
        commit: Of the link.
        signed: The gain that the server signed (positive is better).
        pairs: Seed, score of the parent, score of the commit.
        effect: The gain now; None if a training failed.
        z: By how many standard errors of both it is above what was signed; None if that has no interval.
        holds: Whether the link holds; None if that cannot be told.
        reason: Why a training failed.
        differs: Which digests are others here: "task", "data", "judge", "environment".
        time: Unix time in seconds.
    """

    commit: str
    signed: float | None
    pairs: tuple[tuple[int, float, float], ...]
    effect: float | None
    z: float | None
    holds: bool | None
    reason: str
    differs: tuple[str, ...]
    time: float


def chosen(links: Sequence[Link], count: int, seed: int) -> list[Link]:
    """So many links at random, in their order; all if there are no more."""
    return [links[i] for i in sorted(random.Random(seed).sample(range(len(links)), min(count, len(links))))]


def remeasure(search: Search, links: Sequence[Link], seeds: int) -> list[Remeasured]:
    """Measure links again, several trainings at a time where there is room.

    Args:
        search: An open search of the track's task, in a repository with the commits.
        links: Which.
        seeds: Pairs of trainings for each.

    Raises:
        Stopped: If a person stops it; nothing is recorded then.
    """
    known = read_records(search.journal, REMEASURED, Remeasured)
    first = unused_seed(search, (0, *(seed for one in known for seed, *_ in one.pairs)))
    scores: dict[int, float | None] = {}
    reasons: dict[int, str] = {}

    def planned() -> Iterator[Training]:
        for at, link in enumerate(links):
            for pair in range(seeds):
                for side, commit in enumerate((link.parent, link.commit)):
                    index = 2 * (at * seeds + pair) + side
                    yield Training(
                        index=index,
                        arm=Arm.AUDIT,
                        label=f"link {link.commit[:10]} again, {('parent', 'commit')[side]}",
                        experiment=0,
                        commit=commit,
                        seed=first + pair,
                        splits=(Split.VALIDATION,),
                        items=f"losses/{REMEASURED}-{len(known)}-{index}",
                    )

    for index, result in run_trainings(search, planned()):
        scores[index], reasons[index] = result.score, result.reason
    found, here = [], digests(search, now())
    for at, link in enumerate(links):
        numbers = range(2 * at * seeds, 2 * (at + 1) * seeds)
        pairs = [(first + i, scores[n], scores[n + 1]) for i, n in enumerate(numbers[::2])]
        whole = tuple((seed, a, b) for seed, a, b in pairs if a is not None and b is not None)
        reason = "" if len(whole) == seeds else next(reasons[n] for n in numbers if scores[n] is None)
        differs = tuple(k for k, v in asdict(here).items() if asdict(link.digests)[k] != v)
        found.append(
            _judged(link, [search.task.metric.gain(a, b) for _, a, b in whole], whole, reason, differs)
        )
    write_records(search.journal, REMEASURED, [*known, *found])
    return found


def _judged(
    link: Link,
    gains: Sequence[float],
    pairs: tuple[tuple[int, float, float], ...],
    reason: str,
    differs: tuple[str, ...],
) -> Remeasured:
    effect, z, holds = None if reason else mean(gains), None, None
    if effect is not None and link.interval is not None and link.effect is not None:
        error = (link.interval[1] - link.interval[0]) / (2 * Z95)
        both = error * sqrt(1 + max(len(link.pairs), 1) / len(gains))
        z = (effect - link.effect) / both if both else None
        holds = z > -WORSE if z is not None else effect >= link.effect
    elif effect is not None:
        holds = effect > 0
    return Remeasured(link.commit, link.effect, pairs, effect, z, holds, reason, differs, now())


def remeasured_line(one: Remeasured) -> str:
    """What came of it, for a terminal."""
    signed = "without a signed gain" if one.signed is None else f"signed {one.signed:+.4g}"
    if one.effect is None:
        return f"{one.commit[:10]}: {signed}; it could not be measured ({one.reason})"
    apart = f", {one.z:+.1f} standard errors apart" if one.z is not None else ""
    other = f" (another {', '.join(one.differs)} here)" if one.differs else ""
    says = "it holds" if one.holds else "IT DOES NOT HOLD"
    return (
        f"{one.commit[:10]}: {signed}, now {one.effect:+.4g} in {len(one.pairs)} pairs{apart}: {says}{other}"
    )
