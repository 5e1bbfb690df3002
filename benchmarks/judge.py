"""Judges against simulated searches whose truth is known: what they keep, gain and claim.

Draws random worlds (noise over three decades, mixtures of gains, no-ops and harm with diminishing returns,
heavy tails, noise that differs between candidates, luck shared by seeds, luck of the validation set, losses
by document, crashes, edits that conflict, 60 to 500 trials, 2 to 4 baselines; a third look like the real
task), runs every judge in them through its public interface at equal numbers of trials, and prints a table.
The default judge has 1, 4 and 16 places. Exits with 1 if it misses one of its criteria.

    python benchmarks/judge.py [--seed 1] [--worlds 60] [--searches 2] [--slices 0] [--quick] [--plot FILE]

Everything inside is in units of a world's noise. Not covered: few replicates and clear gains in short
searches, which pooled figures hide; the unit tests look at those.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heapify, heappop, heappush
from pathlib import Path
from statistics import fmean, median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.judge import Estimate, Judge, Kept, Observation, Report, TrialRequest, create_judge
from autoresearch.judge.finished.claim import claim
from autoresearch.judge.noise.documents import Variance
from autoresearch.report.estimates import joint_half_width
from autoresearch.types import Arm, Levels, Verdict, VerdictKind

AA_TRIALS = 500

FIRST_CHECK = 1_000_000
"""Least seed of the trainings on unseen text."""

PROPOSED_AGAIN = 0.5
"""Share of the candidates with a conflict whose author proposes them again on top of the new incumbent."""

LEFT_TO_RUN = 3.5, 0.6
"""Trials that a candidate in flight will take yet, on average: one that is being confirmed, and another. No
new one is begun when these would take the rest of the budget."""


# The worlds


@dataclass(frozen=True)
class World:
    """What a search meets. Sizes are in standard deviations of the noise.

    Attributes:
        unit: The noise, in score units.
        level: Score of the baseline.
        gain: Mean size of a real gain at first.
        capacity: Progress, in mean gains, over which real gains shrink to 1/e of that.
        good: Share of candidates with a real gain.
        nothing: Share that change nothing at all.
        harm: Mean size of the harm done by the others, in mean gains.
        skewed: Whether gains are log-normal rather than exponential.
        tails: "normal", "student" (4 degrees of freedom) or "outliers" (3% are worse by 4).
        spread: Log standard deviation of a candidate's own noise level.
        common: Correlation of parent and child on the same seed.
        unlike: Log standard deviation of the distance of candidates from their parents, which scales what is
            not common on a seed and what differs between documents.
        luck: Error that the validation set adds to each difference.
        documents: Number of documents with losses of their own; 0: scores only.
        by_document: Share of the noise's variance that is the mean of separate draws for each document.
        crash: Share of candidates that fail.
        trials: Budget, baselines not counted.
        baselines: Replicates to begin with.
        conflict: Share of candidates in flight that cannot be merged onto a change that is kept.
        overlap: Share of the others that gain nothing on top of it.
        steady: Whether the judge is told that a faster machine makes no better score, as under a budget of
            tokens.
    """

    unit: float
    level: float
    gain: float
    capacity: float
    good: float
    nothing: float
    harm: float
    skewed: bool
    tails: str
    spread: float
    common: float
    unlike: float
    luck: float
    documents: int
    by_document: float
    crash: float
    trials: int
    baselines: int
    conflict: float = 0.0
    overlap: float = 0.0
    steady: bool = False

    @property
    def real(self) -> bool:
        """Whether it looks like the real task.

        There are losses by document, seeds share most of their luck, and most gains are at most twice the
        noise, as measured on finished searches.
        """
        return bool(self.documents) and self.common >= 0.85 and self.gain <= 1.5

    @classmethod
    def draw(cls, rng: random.Random) -> World:
        """A random world; a third of them look like the real task."""
        like = rng.random() < 1 / 3
        world = cls._like_the_real_task(rng) if like else cls._draw(rng)
        world = replace(world, conflict=rng.uniform(0.0, 0.2), overlap=rng.uniform(0.0, 0.1))
        return replace(world, steady=like or rng.random() < 0.5)

    @classmethod
    def _like_the_real_task(cls, rng: random.Random) -> World:
        return replace(
            cls._draw(rng),
            gain=math.exp(rng.uniform(math.log(0.4), math.log(1.5))),
            common=rng.uniform(0.85, 0.97),
            unlike=rng.uniform(0.2, 0.6),
            luck=rng.uniform(0.0, 0.15),
            documents=rng.randint(8, 32),
            trials=rng.randint(60, 300),
        )

    @classmethod
    def _draw(cls, rng: random.Random) -> World:
        return cls(
            unit=10 ** rng.uniform(-4, -1),
            level=10 ** rng.uniform(1.7, 3.2),
            gain=math.exp(rng.uniform(math.log(0.5), math.log(6))),
            capacity=math.exp(rng.uniform(math.log(7), math.log(40))),
            good=rng.uniform(0.06, 0.25),
            nothing=rng.uniform(0.0, 0.3),
            harm=rng.uniform(1, 4),
            skewed=rng.random() < 0.5,
            tails=rng.choice(["normal", "normal", "student", "outliers"]),
            spread=rng.choice([0.0, rng.uniform(0.1, 0.4)]),
            common=rng.choice(
                [0.0, rng.uniform(0.3, 0.95), rng.uniform(0.85, 0.97), rng.uniform(0.85, 0.97)]
            ),
            unlike=rng.choice([0.0, rng.uniform(0.2, 0.6)]),
            luck=rng.choice([0.0, rng.uniform(0.0, 0.3)]),
            documents=rng.choice([0, rng.randint(8, 32), rng.randint(8, 32)]),
            by_document=rng.uniform(0.05, 0.25),
            crash=rng.uniform(0.0, 0.1),
            trials=rng.randint(100, 500),
            baselines=rng.randint(2, 4),
        )


@dataclass
class Script:
    """A training script: its true mean, its luck by validation document, and its noise by seed."""

    mean: float = 0.0
    luck: list[float] = field(default_factory=lambda: [0.0])
    noise: float = 1.0
    gain: float = 0.0
    crashes: bool = False
    parent: Script | None = None
    common: float = 0.0
    seen: dict[int, list[float]] = field(default_factory=dict)

    @property
    def bias(self) -> float:
        """How much higher its expected score on this validation set is than its true mean."""
        return fmean(self.luck)


class Nature:
    """Draws candidates and scores for one search."""

    def __init__(self, world: World, seed: int, no_gains: bool) -> None:
        self.world = world
        self.no_gains = no_gains
        self.seed = seed
        self.rng = random.Random(seed)
        self.drawn = 0
        self.again: list[Script] = []

    def noise(self, script: Script, seed: int) -> list[float]:
        """A script's noise on a seed, by document: the same every time, and correlated with its parent's."""
        if seed not in script.seen:
            own, rho = self._draw(), script.common
            if script.parent is not None and rho:
                new, old = math.sqrt(1 - rho * rho), self.noise(script.parent, seed)
                own = [rho * a + new * b for a, b in zip(old, own, strict=True)]
            script.seen[seed] = own
        return script.seen[seed]

    def _draw(self) -> list[float]:
        """Noise by document, whose mean has variance 1."""
        w = self.world
        if not w.documents:
            return [self._shock()]
        all_alike, each = math.sqrt(1 - w.by_document) * self._shock(), math.sqrt(w.by_document * w.documents)
        return [all_alike + each * self.rng.gauss(0, 1) for _ in range(w.documents)]

    def run(self, script: Script, seed: int) -> Observation:
        """One trial; now and then it fails for no fault of the script."""
        if script.crashes or self.rng.random() < 0.003:
            return Observation.failed()
        items = self.items(script, seed)
        return Observation.finished(math.fsum(items), items if self.world.documents else ())

    def items(self, script: Script, seed: int) -> list[float]:
        """What each document contributes to a score."""
        w, noise, n = self.world, self.noise(script, seed), len(script.luck)
        size = script.noise
        return [
            w.unit * (w.level + script.mean + luck + size * x) / n
            for luck, x in zip(script.luck, noise, strict=True)
        ]

    def candidate(self, parent: Script) -> Script:
        """The next idea. The same for every judge, as far as the size of gains left allows."""
        if self.again:
            return self._on(self.again.pop(0), parent)
        w, rng = self.world, random.Random(self.seed * 1_000_003 + self.drawn)
        self.drawn += 1
        kind, size, log_size = rng.random(), rng.expovariate(1.0), rng.gauss(0, 1)
        calm, crashes = rng.gauss(0, w.spread), rng.random() < w.crash
        distance = math.exp(rng.gauss(0, w.unlike))
        gain = w.gain * (math.exp(log_size - 0.5) if w.skewed else size)
        if self.no_gains or w.good <= kind < w.good + w.nothing:
            gain = 0.0
        elif kind < w.good:
            gain *= math.exp(parent.mean / (w.capacity * w.gain))
        else:
            gain *= -w.harm
        scale = w.luck * distance * math.sqrt(len(parent.luck))
        luck = [old + rng.gauss(0, scale) for old in parent.luck]
        common = math.sqrt(max(0.0, 1 - (1 - w.common**2) * distance**2)) if w.common else 0.0
        return Script(parent.mean - gain, luck, math.exp(calm), gain, crashes, parent, common)

    def merged(self, script: Script, tip: Script) -> Script | None:
        """A candidate on top of what was kept since it was made; None if they conflict.

        Then its author, who is told, may have the same idea again.
        """
        w, rng = self.world, self.rng
        if rng.random() < w.conflict:
            if rng.random() < PROPOSED_AGAIN:
                self.again.append(script)
            return None
        return self._on(script, tip)

    def _on(self, script: Script, tip: Script) -> Script:
        """An idea that was had for another tip, as it is worth on this one."""
        w, old = self.world, script.parent
        assert old is not None
        gain = 0.0 if script.gain > 0 and self.rng.random() < w.overlap else script.gain
        if gain > 0:
            gain *= math.exp((tip.mean - old.mean) / (w.capacity * w.gain))
        luck = [now + own - before for now, own, before in zip(tip.luck, script.luck, old.luck, strict=True)]
        return Script(tip.mean - gain, luck, script.noise, gain, script.crashes, tip, script.common)

    def _shock(self) -> float:
        """A draw with mean 0 and variance 1."""
        rng = self.rng
        if self.world.tails == "student":
            return rng.gauss(0, 1) / math.sqrt(2 * rng.gammavariate(2.0, 0.5))
        if self.world.tails == "outliers":
            worse = 4.0 if rng.random() < 0.03 else 0.0
            return (rng.gauss(0, 1) + worse - 0.12) / math.sqrt(1 + 0.03 * 0.97 * 16)
        return rng.gauss(0, 1)


# The searches


class MeanOfThree(Judge):
    """Trains every candidate with three seeds and keeps any decrease of the mean."""

    name = "mean of 3"

    def __init__(self, baseline: list[tuple[int, float]], tau: float = 0.0) -> None:
        super().__init__(baseline, tau, {})
        self.best = fmean(self.baseline.values())
        self.scores: list[float] = []
        self.effects: list[float] = []

    def _plan(self) -> list[TrialRequest]:
        return [TrialRequest(Arm.CONFIRM if seed else Arm.SCREEN, seed) for seed in range(3)]

    def _take(self, request: TrialRequest, observation: Observation) -> Verdict | None:
        if observation.score is None:
            self.scores = []
            return self._failed_candidate()
        self.scores.append(observation.score)
        if len(self.scores) < 3:
            return None
        mean, self.scores = fmean(self.scores), []
        effect = self.best - mean
        if effect <= 0:
            return Verdict(VerdictKind.DISCARD, effect)
        self.best = mean
        self.effects.append(effect)
        return Verdict(VerdictKind.KEEP, effect)

    def _restore(self, keeps: int, runs: dict[int, float]) -> None:
        del self.effects[len(self.effects) - keeps :]
        self.best, self.scores = fmean(runs.values()), []

    def report(self) -> Report:
        """Its scores at face value."""
        here = Estimate(self.best, None, 3)
        keeps = tuple(Kept(effect, None, None, None, 3) for effect in self.effects)
        return Report(self.name, None, here, here, keeps, self.candidates, 0, self.failed)


JUDGES: dict[str, tuple[Callable[..., Judge], int]] = {
    "greedy": (partial(create_judge, "greedy"), 1),
    "threshold": (partial(create_judge, "threshold"), 1),
    "mean of 3": (MeanOfThree, 1),
    "default": (partial(create_judge, "default"), 1),
    "default 4": (partial(create_judge, "default"), 4),
    "default 16": (partial(create_judge, "default"), 16),
    "strict": (partial(create_judge, "strict"), 1),
}
"""Name in the table -> what makes the judge, and its places."""

UNCHECKED = ("greedy", "threshold", "mean of 3")
"""As they are published: they keep without a check."""


@dataclass
class Outcome:
    """How one search, or several together, came out; in units of the noise."""

    searches: int = 0
    progress: float = 0.0
    keeps: int = 0
    false: int = 0
    expected_false: float = 0.0
    optimism: float = 0.0
    cover: dict[str, list[bool]] = field(default_factory=dict)

    def add(self, other: Outcome) -> Outcome:
        """Pool with another."""
        for key in ("searches", "progress", "keeps", "false", "expected_false", "optimism"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        for key, hits in other.cover.items():
            self.cover.setdefault(key, []).extend(hits)
        return self


def covers(interval: tuple[float, float] | None, truth: float) -> bool:
    return interval is not None and interval[0] <= truth <= interval[1]


@dataclass
class Check:
    """A candidate that would be kept, and the incumbent, are trained on unseen text, one after the other."""

    number: int
    script: Script
    tip: Script
    seed: int
    candidate: Observation | None = None


class Places:
    """One search on several places, whose trials end when they end."""

    def __init__(
        self, judge: Judge, nature: Nature, start: Script, places: int, out: Outcome, slices: int = 0
    ) -> None:
        self.world, self.judge, self.nature, self.places, self.out = nature.world, judge, nature, places, out
        self.tip, self.slices = start, slices
        self.check: Check | None = None
        self.in_flight: dict[int, Script] = {}
        self.drawn = self.started = 0
        self.confirmed: set[int] = set()
        self.busy = 0.0
        self.clock = 0.0
        self.running: list[tuple[float, int, TrialRequest | Check, Observation]] = []
        self.last: Levels | None = None

    def run(self, trials: int) -> None:
        """Search with so many trials; the last of them go to candidates in flight, as when a search ends."""
        self.judge.use_places(self.places)
        self.judge.hold_keeps(True)
        while True:
            self._begin_check()
            while self.started < trials and len(self.running) < self.places:
                if (request := self._next(trials)) is None:
                    break
                if request.arm == Arm.CONFIRM:
                    self.confirmed.add(request.candidate)
                script = self.in_flight[request.candidate] if request.arm != Arm.INCUMBENT else self.tip
                self._train(script, request.seed, request)
            if not self.running:
                return
            now, _, request, answer = heappop(self.running)
            self.busy += (now - self.clock) * (1 + len(self.running))
            self.clock = now
            if isinstance(request, Check):
                self._go_on(request, answer)
            else:
                self._all_decided(self.judge.digest(request, answer))
            needed = self.judge.unanswered
            self.running = [trial for trial in self.running if trial[2] is self.check or trial[2] in needed]
            heapify(self.running)

    def _train(self, script: Script, seed: int, request: TrialRequest | Check) -> None:
        answer = self.nature.run(script, seed)
        lasts = self.nature.rng.uniform(*((0.95, 1.05) if answer.score is not None else (0.1, 1.0)))
        heappush(self.running, (self.clock + lasts, self.started, request, answer))
        self.started += 1

    def _begin_check(self) -> None:
        """Check what would be kept, while there are slices of unseen text; then it is kept without."""
        while self.check is None and (held := self.judge.held):
            if not self.slices:
                self._all_decided(self.judge.passed(held[0]))
                continue
            self.slices -= 1
            self.check = Check(held[0], self.in_flight[held[0]], self.tip, FIRST_CHECK + self.slices)
            self._train(self.check.script, self.check.seed, self.check)

    def _go_on(self, check: Check, answer: Observation) -> None:
        """After a training of a check."""
        if check.candidate is None and answer.score is not None:
            check.candidate = answer
            self._train(check.tip, check.seed, check)
            return
        self.check = None
        if self.in_flight.get(check.number) is not check.script:
            return
        if check.candidate is None:
            del self.in_flight[check.number]
            self.judge.withdraw(check.number)
            return
        self._all_decided(self.judge.checked(check.number, check.seed, check.candidate, answer))
        self._all_decided(self.judge.passed(check.number))

    def _all_decided(self, decided: list[tuple[int, Verdict]]) -> None:
        for number, verdict in decided:
            self._decided(self.in_flight.pop(number), verdict)

    def _next(self, trials: int) -> TrialRequest | None:
        for number in self.judge.behind:
            merged = self.nature.merged(self.in_flight.pop(number), self.tip)
            if merged is None:
                self.judge.withdraw(number)
            else:
                self.in_flight[number] = merged
                self.judge.rebased(number)
        left = sum(LEFT_TO_RUN[number not in self.confirmed] for number in self.in_flight)
        if self.judge.wants_candidate and self.started + left < trials:
            self.drawn += 1
            self.in_flight[self.drawn] = self.nature.candidate(self.tip)
            self.judge.candidate(number=self.drawn)
        return self.judge.next() if self.in_flight else None

    def _decided(self, script: Script, verdict: Verdict) -> None:
        self.last = verdict.levels
        if verdict.kind is VerdictKind.KEEP:
            self.tip = script
            self.out.keeps += 1
            self.out.false += script.gain <= 0
            self.out.cover["keep"].append(covers(verdict.interval, script.gain * self.world.unit))


def search(world: World, name: str, seed: int, no_gains: bool = False, slices: int = 0) -> Outcome:
    """Run one search to the end of its budget, and compare what the judge reports to the truth.

    Args:
        world: What it meets.
        name: Of the judge.
        seed: Of the search.
        no_gains: Whether no candidate gains anything.
        slices: Of unseen text, on each of which one keep is checked, in two of its trials.
    """
    nature = Nature(world, seed, no_gains)
    start = Script(luck=[0.0] * max(1, world.documents))
    make, places = JUDGES[name]
    items = {s: nature.items(start, s) for s in range(world.baselines)}
    judge = make([(s, math.fsum(parts)) for s, parts in items.items()], tau=world.luck * world.unit)
    if world.documents:
        judge.with_items([1 / world.documents] * world.documents, items)
    if world.steady:
        judge.use_steady_machine()
    out = Outcome(searches=1, cover={"keep": [], "tip": [], "gain": [], "claim": []})
    run = Places(judge, nature, start, places, out, slices)
    run.run(AA_TRIALS if no_gains else world.trials)
    report, tip, last = judge.report(), run.tip, run.last
    truth = world.unit * (world.level + tip.mean)
    out.progress = -tip.mean
    out.optimism = (truth - report.incumbent.mean) / world.unit
    out.expected_false = report.expected_false_keeps or 0.0
    out.cover["tip"].append(covers(report.incumbent.interval, truth))
    out.cover["claim"].append(claimed(nature, start, tip))
    if last is not None and out.keeps:
        out.cover["gain"].append(covers(told(last), -world.unit * tip.mean))
    return out


def told(levels: Levels) -> tuple[float, float] | None:
    """The interval of the whole gain, as report and MLflow show it after a verdict."""
    before, after = levels.baseline, levels.incumbent
    gain, half = before.mean - after.mean, joint_half_width(before, after)
    return None if half is None else (gain - half, gain + half)


def claimed(nature: Nature, start: Script, tip: Script) -> bool:
    """Whether the final claim, on fresh seeds and a test split of its own, covers the true gain."""
    seeds, w = range(10_000, 10_008), nature.world
    shift = nature.rng.gauss(0, w.luck)
    before = [w.unit * (w.level + start.mean + fmean(nature.noise(start, s))) for s in seeds]
    noises = [tip.noise * fmean(nature.noise(tip, s)) for s in seeds]
    after = [w.unit * (w.level + tip.mean + shift + noise) for noise in noises]
    runs = dict(enumerate(before)), dict(enumerate(after))
    split = Variance((w.luck * w.unit) ** 2, math.inf)
    return covers(claim(*runs, sampling=split).interval, (start.mean - tip.mean) * w.unit)


def explore(args: tuple[int, int, int, int, int]) -> tuple[World, dict[str, Outcome], dict[str, Outcome]]:
    """All judges in one world: searches, and searches in which nothing is a gain (A/A)."""
    seed, number, searches, aa, slices = args
    world = World.draw(random.Random(f"{seed}/{number}"))
    real: dict[str, Outcome] = {}
    null: dict[str, Outcome] = {}
    for name in JUDGES:
        for into, count, no_gains in ((real, searches, False), (null, aa, True)):
            into[name] = Outcome()
            for i in range(count):
                one = hash((seed, number, i)) & 0xFFFFFFFF
                into[name].add(search(world, name, one, no_gains, 0 if name in UNCHECKED else slices))
    return world, real, null


# The figures


@dataclass(frozen=True)
class Row:
    """One judge's line of the table."""

    name: str
    ratio: float
    ratio_mean: float
    ratio_low: float
    ratio_real: float
    against_three: float
    false: float
    false_high: float
    aa: float
    optimism: float
    optimism_high: float
    keeps: float
    expected_false: float
    cover: dict[str, float]


Result = tuple[World, dict[str, Outcome], dict[str, Outcome]]


def decile(values: Iterable[float], tenths: int) -> float:
    """A quantile in tenths."""
    return quantiles(values, n=10, method="inclusive")[tenths - 1]


def summarise(results: list[Result], name: str) -> Row:
    """Pool one judge over all worlds."""
    mine = [real[name] for _, real, _ in results]
    keeps, searches = sum(o.keeps for o in mine), sum(o.searches for o in mine)
    ratios = progress_ratios(results, name, "greedy")
    cover = {key: [hit for o in mine for hit in o.cover[key]] for key in ("keep", "tip", "gain", "claim")}
    optimism = [o.optimism / o.searches for o in mine]
    return Row(
        name=name,
        ratio=median(ratios),
        ratio_mean=of_greedy(results, name),
        ratio_low=decile(ratios, 1),
        ratio_real=of_greedy([result for result in results if result[0].real], name),
        against_three=median(progress_ratios(results, name, "mean of 3")),
        false=sum(o.false for o in mine) / max(1, keeps),
        false_high=decile([o.false / max(1, o.keeps) for o in mine], 9),
        aa=fmean(null[name].keeps / null[name].searches for _, _, null in results),
        optimism=fmean(optimism),
        optimism_high=decile(optimism, 9),
        keeps=keeps / searches,
        expected_false=sum(o.expected_false for o in mine) / max(1, keeps),
        cover={key: fmean(hits) for key, hits in cover.items() if hits},
    )


def of_greedy(results: list[Result], name: str) -> float:
    """True progress against greedy's, these worlds together."""
    mine = math.fsum(real[name].progress for _, real, _ in results)
    return mine / max(1e-9, math.fsum(real["greedy"].progress for _, real, _ in results))


def progress_ratios(results: list[Result], name: str, other: str) -> list[float]:
    """True progress against another judge's, world by world."""
    return [real[name].progress / max(real[other].progress, 1e-9) for _, real, _ in results]


def table(rows: list[Row]) -> str:
    """The figures as text."""
    lines = [
        "                true progress        vs 3  false keeps %  A/A per 500   optimism   keeps a"
        "  95% covers",
        "judge       median  mean   p10  real seeds  pooled   p90  (0 is best)  mean   p90  search"
        "  keep tip gain",
    ]
    for r in rows:
        cover = "".join(f"{100 * r.cover.get(key, 0.0):4.0f}" for key in ("keep", "tip", "gain"))
        known = r.name.startswith(("default", "strict"))
        lines.append(
            f"{r.name:12s}{r.ratio:6.2f}{r.ratio_mean:6.2f}{r.ratio_low:6.2f}{r.ratio_real:6.2f}{r.against_three:6.2f}"
            f"{100 * r.false:8.1f}{100 * r.false_high:6.1f}{r.aa:13.2f}{r.optimism:6.2f}"
            f"{r.optimism_high:6.2f}{r.keeps:8.1f}"
            f"  {cover if known else '   -   -   -'}"
        )
    lines.append(
        "True progress is a share of greedy's (mean: all worlds together); optimism is in units of the noise."
    )
    return "\n".join(lines)


LEAST_PROGRESS = {"default": 0.85, "default 4": 0.85, "default 16": 0.75}
"""Of greedy's on one place, all worlds together."""


def criteria(row: Row) -> list[tuple[str, float, float, float]]:
    """(What, value, least, most) that the default judge must meet, with any number of places."""
    found = [
        ("false keeps in 500 trials without any gain", row.aa, 0.0, 0.5),
        ("share of false keeps, pooled", row.false, 0.0, 0.035),
        ("share of false keeps, 90th percentile of worlds", row.false_high, 0.0, 0.10),
        ("true progress against greedy's, all worlds", row.ratio_mean, LEAST_PROGRESS[row.name], math.inf),
        ("optimism of the reported score, in noise", row.optimism, -0.5, 0.5),
        ("cover of the 95% interval of a keep", row.cover["keep"], 0.93, 0.97),
        ("cover of the 95% interval of the tip", row.cover["tip"], 0.93, 0.97),
        ("cover of the 95% interval of the whole gain, as it is shown", row.cover["gain"], 0.93, 0.97),
        ("cover of the 95% interval of the claim", row.cover["claim"], 0.93, 0.97),
    ]
    if row.name == "default":
        found += [
            ("true progress in worlds like the real task", row.ratio_real, 0.95, math.inf),
            ("true progress against the 3-seed mean's, median world", row.against_three, 1.2, math.inf),
        ]
    return found


def plot(results: list[Result], rows: list[Row], path: Path) -> None:
    """Progress against false keeps, one dot a world."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for i, row in enumerate(rows):
        mine = [real[row.name] for _, real, _ in results]
        false = [100 * o.false / max(1, o.keeps) for o in mine]
        ratio = [min(1.5, x) for x in progress_ratios(results, row.name, "greedy")]
        axes.scatter(false, ratio, s=12, alpha=0.35, color=f"C{i}", linewidths=0)
        axes.scatter([100 * row.false], [row.ratio], s=90, color=f"C{i}", label=row.name, edgecolor="black")
    axes.set(xlabel="false keeps, %", ylabel="true progress, share of greedy's")
    axes.set_title("Judges at equal numbers of trials (dots: worlds; rings: pooled, median)")
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--searches", type=int, default=2, help="searches a world")
    checks = "keeps of `default` and `strict` that are checked on unseen text in two trials each (default: 0)"
    parser.add_argument("--slices", type=int, default=0, help=checks)
    parser.add_argument("--quick", action="store_true", help="a look in seconds; criteria are not enforced")
    plot_help = "where to write a PNG (default: runs/judge.png)"
    parser.add_argument("--plot", type=Path, default=Path("runs/judge.png"), help=plot_help)
    args = parser.parse_args()
    if args.quick:
        args.worlds, args.searches = min(args.worlds, 20), 2
    began = time.monotonic()
    aa = max(1, args.searches // 3)
    jobs = [(args.seed, i, args.searches, aa, args.slices) for i in range(args.worlds)]
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(explore, jobs))
    rows = [summarise(results, name) for name in JUDGES]
    print(table(rows))
    failed = 0
    for row in rows:
        if row.name not in LEAST_PROGRESS:
            continue
        places, expected = JUDGES[row.name][1], 100 * row.expected_false
        print(f"\nThe default judge, {places} places; it expected {expected:.1f}% false keeps itself.")
        for what, value, least, most in criteria(row):
            met = least <= value <= most
            failed += not met
            bounds = f">= {least:g}" if most == math.inf else f"{least:g} to {most:g}"
            print(f"{'ok  ' if met else 'MISS'} {what}: {value:.3f} ({bounds})")
    seconds = sum(os.times()[:4]) / 2  # others may use the cores, too
    print(f"{args.worlds} worlds, {args.searches} searches each, {time.monotonic() - began:.0f} s", end="")
    print(f" ({seconds:.0f} s by processor time on two cores)")
    args.plot.parent.mkdir(parents=True, exist_ok=True)
    plot(results, rows, args.plot)
    print(f"A picture: {args.plot}")
    return 1 if failed and not args.quick else 0


if __name__ == "__main__":
    sys.exit(main())
