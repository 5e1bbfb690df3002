"""One contest: a fixed set of briefs, run in rounds of equal budgets until their ranking is established.

The plan is written first. After that the inner searches are the only state: what is run next follows from
the plan and from what has ended, so a contest that was killed goes on where it was. In each round every brief
that is still in the race is run once, with the same search seed. The order rotates from round to round: what
drifts on the machine meets all alike. Not covered: what the plan may be (`plan`), the statistics (`race`),
and the page (`page`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from autoresearch.config import load
from autoresearch.config.files import replaced
from autoresearch.contest import race
from autoresearch.contest.plan import Plan, goes_on
from autoresearch.contest.race import Difference
from autoresearch.errors import UserError
from autoresearch.propose import followed
from autoresearch.report.summary import Summary, summarize
from autoresearch.store.connection import holds_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.lock import lock
from autoresearch.store.searches import PLAN
from autoresearch.tasks import create_task
from autoresearch.tasks.brief.inner import Inner, Searches
from autoresearch.tasks.brief.result import Result
from autoresearch.tasks.brief.settings import check_settings
from autoresearch.types import Metric

FIRST_SEED = 1


@dataclass(frozen=True)
class Standing:
    """Where a contest stands.

    Attributes:
        results: Brief -> round -> what its inner search came to.
        pairs: What is known of each two briefs.
        racing: Briefs that the next round runs; empty if the ranking is established.
        rounds: Rounds that are complete.
        missing: (brief, round) of what the round that has begun still lacks.
        device_hour: As in the plan.
    """

    results: Mapping[str, Mapping[int, Result]]
    pairs: tuple[Difference, ...]
    racing: tuple[str, ...]
    rounds: int
    missing: tuple[tuple[str, int], ...]
    device_hour: float | None = None

    @property
    def gains(self) -> dict[str, dict[int, float]]:
        """Brief -> round -> gain, of complete rounds."""
        return _scores(self.results, self.rounds)

    @property
    def scores(self) -> dict[str, dict[int, float]]:
        """Brief -> round -> what is raced: the gain, or the gain per dollar; of complete rounds."""
        return _scores(self.results, self.rounds, self.device_hour)

    @property
    def ranking(self) -> list[str]:
        """The briefs by their mean score, the best first."""
        return race.standing(self.scores)

    @property
    def winner(self) -> str | None:
        """The brief that is established to be the best."""
        return race.winner(self.scores)


class Contest:
    """A contest in its folder."""

    def __init__(self, folder: Path) -> None:
        """Open a contest.

        Raises:
            UserError: If there is none.
        """
        self.folder = folder
        try:
            read = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            self.plan = Plan.from_dict(read)
        except (OSError, ValueError) as error:
            raise UserError(
                f"There is no contest in {folder}: {error}.", "Begin one: autoresearch contest A.md B.md"
            ) from None

    @classmethod
    def begin(cls, folder: Path, plan: Plan) -> Contest:
        """Write the plan of a contest, or of one that goes on: with other rounds, dollars or connections.

        Raises:
            UserError: If the folder holds another contest, or a search.
        """
        if holds_search(folder):
            raise UserError(f"{folder.name} is the name of a search.", "Choose another: name=...")
        if len(plan.briefs) < 2:
            raise UserError("A contest needs at least two briefs.", "Name files or a folder of them.")
        check_settings(replaced(plan.settings, plan.connection), plan.spend)
        if (folder / PLAN).exists():
            plan = goes_on(cls(folder).plan, plan, folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        half = folder / f"{PLAN}.half"
        half.write_text(json.dumps(plan.to_dict(), indent=2), encoding="utf-8")
        half.replace(folder / PLAN)
        return cls(folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the right to run it, until the block ends.

        Raises:
            UserError: If another process runs it.
        """
        place = self.folder / "inner"  # a folder of searches with a lock but no journal is cleared away
        place.mkdir(exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(place))
            except UserError as error:
                hint = "Wait for it, or stop that process."
                raise UserError(
                    f"The contest {self.folder.name} runs already.", hint, code=error.code
                ) from None
            yield

    @cached_property
    def searches(self) -> Searches:
        """The inner searches."""
        plan, folder = self.plan, self.folder
        cache = folder.parent / "cache"
        return Searches(folder / "inner", cache, plan.settings, plan.spend, plan.dollars, plan.connection)

    @cached_property
    def metric(self) -> Metric:
        """What the inner searches improve."""
        return create_task(load(list(self.plan.settings))).metric

    @property
    def score(self) -> Metric:
        """What is raced: the gain, or the gain per dollar."""
        per = "" if self.plan.device_hour is None else " per dollar"
        return replace(self.metric, unit=f"{self.metric.unit}{per}")

    @cached_property
    def alike(self) -> tuple[tuple[str, ...], ...]:
        """Briefs that the proposer cannot tell apart, each group of them: it reads none of what differs."""
        proposer = load(list(self.plan.settings)).proposer
        found: dict[tuple[str, ...], list[str]] = {}
        for name, text in self.plan.briefs:
            found.setdefault(followed(text, proposer), []).append(name)
        return tuple(tuple(names) for names in found.values() if len(names) > 1)

    def inner(self, brief: str, number: int) -> Inner:
        """The inner search of a brief in a round."""
        return self.searches.inner(dict(self.plan.briefs)[brief], FIRST_SEED + number)

    def standing(self) -> Standing:
        """Where it stands, by what has ended."""
        names = [name for name, _ in self.plan.briefs]
        results: dict[str, dict[int, Result]] = {name: {} for name in names}
        number, alive, left, price = 0, names, list[str](), self.plan.device_hour
        while alive and number < self.plan.rounds:
            for name in alive:
                if found := self.searches.result(self.inner(name, number)):
                    results[name][number] = found
            left = [n for n in _rotated(names, number) if n in alive and number not in results[n]]
            if left:
                break
            number += 1
            alive = race.racing(_scores(results, number, price))
        missing, pairs = tuple((n, number) for n in left), race.differences(_scores(results, number, price))
        return Standing(results, tuple(pairs), tuple(alive), number, missing, price)

    def run(
        self,
        repository: Repository,
        tell: Callable[[str, int, Result], None] = lambda brief, number, result: None,
    ) -> str:
        """Run rounds until the ranking is established or the budget is spent.

        Args:
            repository: The user's.
            tell: Called with brief, round and result of each inner search that has ended.

        Returns:
            Why it ended, in words.

        Raises:
            UserError: If an inner search cannot be run.
        """
        self.searches.prepare(lambda place: repository.export(self.plan.base, (".",), place))
        while True:
            found = self.standing()
            if not found.racing:
                return "the ranking is established"
            if not found.missing:
                return f"its {self.plan.rounds} rounds are over"
            if len(found.missing) == len(found.racing) and not self.searches.affords(len(found.racing)):
                return f"another round could break its {self.plan.dollars:g} dollars"
            for brief, number in found.missing:
                tell(brief, number, self.searches.run(self.inner(brief, number)))

    def summaries(self) -> list[Summary]:
        """The inner searches of complete rounds (of the first one, if none is), each named as its brief."""
        found, standing = [], self.standing()
        for brief, results in standing.results.items():
            for result in (r for number, r in results.items() if number < max(standing.rounds, 1)):
                journal = Journal.of(self.searches.folder / result.name)
                try:
                    summary = summarize(journal)
                finally:
                    journal.close()
                found.append(replace(summary, info=replace(summary.info, brief=brief)))
        return found


def _rotated(names: Sequence[str], number: int) -> list[str]:
    start = number % len(names)
    return [*names[start:], *names[:start]]


def _scores(
    results: Mapping[str, Mapping[int, Result]], rounds: int, device_hour: float | None = None
) -> dict[str, dict[int, float]]:
    return {
        name: {number: result.score(device_hour) for number, result in found.items() if number < rounds}
        for name, found in results.items()
    }
