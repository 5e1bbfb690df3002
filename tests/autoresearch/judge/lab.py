"""A bench for judges: candidates whose true gains are known, and scores that depend on nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from autoresearch.judge import Judge, TrialRequest
from autoresearch.types import Verdict, VerdictKind

NAMES = ("default", "strict", "threshold", "greedy")


@dataclass
class Lab:
    """Scores for candidate 1, 2, ... with the given true gains (in noise units, over their parent)."""

    gains: Sequence[float]
    sigma: float = 1.0
    level: float = 100.0
    seed: int = 0
    shock: Callable[[random.Random], float] = lambda rng: rng.gauss(0, 1)
    failing: Callable[[int, TrialRequest], bool] = lambda number, want: False
    complexity: Sequence[float] = ()
    tip: int = 0
    depth: dict[int, float] = field(default_factory=lambda: {0: 0.0})

    def baseline(self, count: int = 3) -> list[tuple[int, float]]:
        return [(s, self._score(0, s)) for s in range(count)]

    def answer(self, number: int, want: TrialRequest) -> float | None:
        """The score of what `want` asks for, while candidate `number` is looked at."""
        if self.failing(number, want):
            return None
        return self._score(self.tip if want.arm == "incumbent" else number, want.seed)

    def begin(self, number: int, judge: Judge) -> None:
        self.depth[number] = self.depth[self.tip] + self.gains[number - 1]
        if self.complexity:
            judge.candidate(complexity=self.complexity[number - 1])

    def settle(self, number: int, verdict: Verdict) -> None:
        if verdict.kind is VerdictKind.KEEP:
            self.tip = number

    def _score(self, script: int, seed: int) -> float:
        luck = self.shock(random.Random(f"{self.seed}/{script}/{seed}"))
        return self.sigma * (self.level - self.depth[script] + luck)


def serial(judge: Judge, lab: Lab, trials: int = 10**9, reload: bool = False) -> list[Verdict]:
    """Judge all candidates one trial after another, through JSON after every step if asked."""
    verdicts: list[Verdict] = []
    while len(verdicts) < len(lab.gains):
        number = len(verdicts) + 1
        lab.begin(number, judge)
        verdict = None
        while verdict is None:
            if trials <= 0:
                return verdicts
            trials -= 1
            want = judge.next()
            assert want is not None
            judge = Judge.from_json(judge.to_json()) if reload else judge
            verdict = judge.observe(want, lab.answer(number, want))
            judge = Judge.from_json(judge.to_json()) if reload else judge
        lab.settle(number, verdict)
        verdicts.append(verdict)
    return verdicts


def parallel(judge: Judge, lab: Lab, devices: int, rng: random.Random) -> list[Verdict]:
    """The same with several devices whose answers come back in random order, late ones included."""
    verdicts: list[Verdict] = []
    running: list[tuple[TrialRequest, float | None]] = []
    while len(verdicts) < len(lab.gains):
        number = len(verdicts) + 1
        lab.begin(number, judge)
        verdict = None
        while verdict is None:
            while len(running) < devices and (want := judge.next()) is not None:
                running.append((want, lab.answer(number, want)))
            assert running, "the judge waits, but nothing is under way"
            want, score = running.pop(rng.randrange(len(running)))
            verdict = judge.observe(want, score)
        lab.settle(number, verdict)
        verdicts.append(verdict)
    return verdicts
