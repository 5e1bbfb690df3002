"""At one place, requests and verdicts are those recorded before judges could hold many candidates."""

import json
import math
import random
from pathlib import Path

import pytest

from autoresearch.judge import Judge, Observation, create_judge
from autoresearch.testing.judges import Simulation, failures, mixture
from autoresearch.types import Arm, VerdictKind

RECORDED = Path(__file__).with_name("one_place.json")
NAMES = ("default", "strict", "threshold", "greedy")
DOCUMENTS = 8


class Documents(Simulation):
    """Scores are sums over documents, and half of a seed's luck is that of the first candidate."""

    def parts(self, number: int, seed: int) -> list[float]:
        common, own = random.Random(f"{self.seed}/{seed}"), random.Random(f"{self.seed}/{number}/{seed}")
        level = self.level - self.progress[number]
        luck = [0.7 * common.gauss(0, 1) + 0.7 * own.gauss(0, 1) for _ in range(DOCUMENTS)]
        return [self.sigma * (level / DOCUMENTS + x / math.sqrt(DOCUMENTS)) for x in luck]

    def score(self, number: int, seed: int) -> float:
        return math.fsum(self.parts(number, seed))

    def answer(self, number, request):
        found = super().answer(number, request)
        if found.score is None:
            return found
        items = self.parts(self.tip if request.arm == Arm.INCUMBENT else number, request.seed)
        return Observation.finished(math.fsum(items), items)


def story(name: str, seed: int) -> str:
    """All that a judge asks and says in a search, as a line of text: arm and seed, verdict and trainings."""
    growth = [random.Random(seed + i).choice([-40, 0, 60]) for i in range(30)]
    kind = Documents if seed % 2 else Simulation
    simulation = kind(mixture(seed), seed=seed, failing=failures(seed, 0.05 * (seed % 3)), growth=growth)
    judge: Judge = create_judge(name, simulation.baseline(), tau=0.2 * (seed % 2))
    if seed % 2:
        judge.with_items([1 / DOCUMENTS] * DOCUMENTS, {s: simulation.parts(0, s) for s in range(3)})
    told = []
    for number in range(1, len(simulation.gains) + 1):
        simulation.begin(number, judge)
        verdict = None
        while verdict is None:
            request = judge.next()
            told.append(f"{request.arm[0]}{request.seed}{'t' if request.thorough else ''}")
            verdict = judge.observe(request, simulation.answer(number, request))
        simulation.end(number, verdict)
        told.append("KEEP" if verdict.kind is VerdictKind.KEEP else "-")
    return " ".join(told)


@pytest.mark.parametrize("name", NAMES)
def test_at_one_place_nothing_is_decided_otherwise_than_before(name):
    for seed, recorded in enumerate(json.loads(RECORDED.read_text(encoding="utf-8"))[name]):
        assert story(name, seed) == recorded, f"search {seed}"
