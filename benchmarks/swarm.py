"""A thousand simulated contributors with given skill and honesty, verified through the queue of `serve`.

The worlds, and the judge in them, are those of `benchmarks/judge.py`, whose truth is known. Honest
contributors have the ideas that a search has, measure them with their own trainings, and send what looks
better. Of the hostile ones six tenths claim the most that counts for changes that do nothing, three tenths
less, and one tenth was honest for the first third of the time. Each has a network of its own, the worst case.
A verifier with one place takes what they send as `swarm.queue` says, and measures proposals of its own in
between. Printed: confirmed gain per run against a verifier that searches alone, the share of its runs lost to
hostile contributors, false keeps, and how soon the gain of the lone search is reached. Exits with 1 if a goal
is missed. With `--contributions-only` the verifier has no proposals of its own (`serve.search=false`).

    python -m benchmarks.swarm [--seed 1] [--worlds 8] [--runs 1000] [--hostile 0.9] [--contributions-only]

Not covered: what the server takes (`benchmarks/intake.py`), and contributors who send real gains to earn a
record and hide others behind it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.config import load
from autoresearch.swarm.queue import (
    MOST_CLAIMED,
    WINDOW,
    Record,
    Sent,
    Spent,
    Turns,
    Waiting,
    choose,
    over_quota,
)
from autoresearch.types import Verdict, VerdictKind
from benchmarks.judge import JUDGES, Nature, Outcome, Places, Script, World, search

PEOPLE = 1000

RUNS_A_DAY = 288
"""Of the verifier: a run takes five minutes. Quotas count by day."""

FLOOD = 0.05
"""What a hostile contributor sends while the verifier makes one run; an honest one trains as fast as it."""


@dataclass
class Person:
    """A contributor.

    Attributes:
        name: Stands for key and network, too.
        pairs: Pairs of trainings by which an honest one measures an idea: its skill.
        honest_until: Run of the verifier from which on it is hostile.
        claims: What it claims when it lies.
        sent: Runs at which it sent something, of the last day.
        outcomes: Verdicts on its claims.
    """

    name: str
    pairs: int
    honest_until: float
    claims: float
    waiting: int = 0
    sent: list[int] = field(default_factory=list)
    outcomes: list[bool] = field(default_factory=list)


class Crowd(Nature):
    """Candidates come from contributors, through the queue, instead of from the search's own proposer."""

    def __init__(self, world: World, seed: int, hostile: float, own: bool) -> None:
        super().__init__(world, seed, no_gains=False)
        self.own = own
        self.limits = load([], {}, own_file=False).serve
        self.people = [self._person(number, hostile, world.trials) for number in range(PEOPLE)]
        self.by_name = {person.name: person for person in self.people}
        self.records: dict[str, Record] = {}
        self.queue: dict[int, tuple[Waiting, Script]] = {}
        self.spent: list[Spent] = []
        self.lost = self.clock = self.arrived = self.before = self.returned = 0
        self.longest = 0
        self.taken: tuple[Waiting, bool] | None = None
        self.runs = lambda: 0

    def _person(self, number: int, hostile: float, trials: int) -> Person:
        rng = self.rng
        bad, kind = number < hostile * PEOPLE, number % 10
        until = trials / 3 if bad and kind == 0 else 0.0 if bad else float("inf")
        return Person(f"{number}", rng.randint(1, 5), until, MOST_CLAIMED if kind < 6 else rng.uniform(0, 3))

    def honest(self, person: Person) -> bool:
        """Whether it is honest now."""
        return self.clock < person.honest_until

    def candidate(self, parent: Script) -> Script:
        """The contribution whose turn it is, on top of the tip; waits until there is one."""
        self.settle(None)
        while self.clock <= self.runs():
            self._tick(parent)
        while True:
            turns = Turns(self.spent[-WINDOW:], self.records)
            waiting = [one for one, _ in self.queue.values()]
            chosen = choose(waiting, turns, self.limits.newcomers, self.own)
            if chosen is None and self.own:
                self.taken = Waiting(0, "", ""), True
                return super().candidate(parent)
            if chosen is None:
                self._tick(parent)
                continue
            _, script = self.queue.pop(chosen.number)
            self.by_name[chosen.who].waiting -= 1
            now = script if script.parent is parent else self.merged(script, parent)
            if now is None:
                self.returned += 1
                continue
            self.taken = chosen, turns.record(chosen.who).known
            return now

    def settle(self, kept: bool | None) -> None:
        """Charge the runs since the last time to the contribution that was verified, and note the verdict."""
        if self.taken is None:
            return
        waiting, known = self.taken
        person = self.by_name.get(waiting.who)
        cost, self.before = self.runs() - self.before, self.runs()
        if cost:
            self.spent.append(Spent(waiting.who, waiting.group, known, cost))
            self.lost += cost * (person is not None and not self.honest(person))
        if kept is not None and person is not None:
            person.outcomes.append(kept)
            self.records[person.name] = Record.of(person.outcomes)
        if kept is not None:
            self.taken = None

    def _tick(self, tip: Script) -> None:
        """Whatever happens while the verifier makes one run."""
        self.clock += 1
        for person in self.people:
            honest = self.honest(person)
            if self.rng.random() > (1 / (2 * person.pairs) if honest else FLOOD):
                continue
            script, claim = self._idea(person, tip) if honest else self._nothing(person, tip)
            if script is not None:
                self._send(person, script, claim)

    def _idea(self, person: Person, tip: Script) -> tuple[Script | None, float]:
        """An idea, if its finder's own trainings say that it helps."""
        script = super().candidate(tip)
        error = (2 * (1 - script.common**2) / person.pairs) ** 0.5
        seen = script.gain + self.rng.gauss(0, error)
        if script.crashes or seen < 2 * error:
            return None, 0.0
        return script, min(seen * person.pairs / (person.pairs + 2), MOST_CLAIMED)

    def _nothing(self, person: Person, tip: Script) -> tuple[Script, float]:
        """A change without effect: what takes longest to refute."""
        return Script(tip.mean, list(tip.luck), 1.0, 0.0, False, tip, self.world.common), person.claims

    def _send(self, person: Person, script: Script, claim: float) -> None:
        person.sent = [run for run in person.sent if run > self.clock - RUNS_A_DAY]
        sent = Sent(person.waiting, len(person.sent))
        if over_quota(self.limits, self.records.get(person.name, Record()), sent, sent, len(self.queue)):
            return
        self.arrived += 1
        person.waiting += 1
        person.sent.append(self.clock)
        self.queue[self.arrived] = Waiting(self.arrived, person.name, person.name, claim), script
        self.longest = max(self.longest, len(self.queue))


class Verifier(Places):
    """A verifier with one place, whose verdicts become records."""

    nature: Crowd

    def _decided(self, script: Script, verdict: Verdict) -> None:
        super()._decided(script, verdict)
        self.reached.append((self.started, -self.tip.mean))
        self.nature.settle(verdict.kind is VerdictKind.KEEP)

    def run(self, trials: int) -> None:
        """Verify with so many runs."""
        self.reached: list[tuple[int, float]] = []
        self.nature.runs = lambda: self.started
        super().run(trials)


@dataclass
class Result:
    """One world: a crowd that is verified, and the verifier alone."""

    swarm: Outcome
    alone: Outcome
    runs: int
    lost: int
    soon: float
    longest: int


def explore(
    hostile: float, seed: int, runs: int, own: bool, number: int, odds: float | None = None
) -> Result:
    """One world; `odds` are those of the verifier's judge, by default the shipped ones."""
    world = replace(World.draw(random.Random(f"{seed}/{number}")), trials=runs)
    alone = search(world, "default", number)
    crowd = Crowd(world, number, hostile, own)
    start = Script(luck=[0.0] * max(1, world.documents))
    items = {s: crowd.items(start, s) for s in range(world.baselines)}
    options = {} if odds is None else {"odds": odds}
    scores = [(s, sum(parts)) for s, parts in items.items()]
    judge = JUDGES["default"][0](scores, tau=world.luck * world.unit, **options)
    if world.documents:
        judge.with_items([1 / world.documents] * world.documents, items)
    out = Outcome(searches=1, cover={"keep": []})
    verifier = Verifier(judge, crowd, start, 1, out)
    verifier.run(world.trials)
    out.progress = -verifier.tip.mean
    soon = next((run for run, gain in verifier.reached if gain >= alone.progress), world.trials)
    return Result(out, alone, verifier.started, crowd.lost, soon / world.trials, crowd.longest)


def missed(goals: Sequence[tuple[str, float, str, float]]) -> int:
    """Print (what, value, ">=" or "<=", goal) as a table; 1 if a goal is missed, else 0."""
    found = 0
    for what, value, sign, goal in goals:
        met = value >= goal if sign == ">=" else value <= goal
        found = found if met else 1
        print(f"{what:50} {value:8.3f}  goal {sign} {goal:g}{'' if met else '  MISSED'}")
    return found


def main() -> int:
    """Run it, print a table, and say which goals are missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--hostile", type=float, default=0.9)
    parser.add_argument("--runs", type=int, default=1000, help="of the verifier, in each world")
    parser.add_argument("--odds", type=float, help="judge.odds of the verifier (default: as shipped)")
    parser.add_argument("--contributions-only", action="store_true", help="the verifier has no own proposals")
    args = parser.parse_args()
    own = not args.contributions_only
    play = partial(explore, args.hostile, args.seed, args.runs, own, odds=args.odds)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(play, range(args.worlds)))
    keeps, false = (sum(getattr(r.swarm, key) for r in results) for key in ("keeps", "false"))
    runs, lost = sum(r.runs for r in results), sum(r.lost for r in results)
    gain, alone = (fmean(getattr(r, key).progress / r.runs for r in results) for key in ("swarm", "alone"))
    lone = Counter(keeps=sum(r.alone.keeps for r in results), false=sum(r.alone.false for r in results))
    goals = [
        ("confirmed gain per run, against a verifier alone", gain / alone, ">=", 1.0),
        ("share of the runs lost to hostile contributors", lost / runs, "<=", 0.2),
        ("false keeps", false / max(keeps, 1), "<=", 0.05),
    ]
    print(f"{args.worlds} worlds, {PEOPLE} contributors, {args.hostile:.0%} hostile, {runs:,} runs")
    print(f"with them: {keeps} keeps, {false / max(keeps, 1):.1%} of them false")
    print(f"verifier alone: {lone['keeps']} keeps, {lone['false'] / max(lone['keeps'], 1):.1%} of them false")
    print(f"the gain of the lone verifier is reached after {fmean(r.soon for r in results):.0%} of its runs")
    print(f"longest queue: {max(r.longest for r in results):,}")
    return missed(goals)


if __name__ == "__main__":
    sys.exit(main())
