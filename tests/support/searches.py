"""Searches by hand: experiments with trials and verdicts, for the tests of what records them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autoresearch.store.journal import SearchInfo
from autoresearch.types import (
    Category,
    Cost,
    Direction,
    Draft,
    Experiment,
    Measurement,
    Metric,
    Outcome,
    Proposal,
    State,
    Trial,
    Verdict,
    VerdictKind,
)

BASE = "b" * 40
METRIC = Metric("val_bpb", "bits per byte", per_item=True)
ACCURACY = Metric("val_accuracy", "accuracy", Direction.MAXIMIZE, digits=3)
INFO = SearchInfo(
    name="night1",
    base_commit=BASE,
    branch="autoresearch/night1",
    created=1_700_000_000.0,
    task="nanomodel",
    brief="default",
    brief_text="# Brief\nImprove it.\n",
    config={
        "name": "night1",
        "experiments": 100,
        "minutes": None,
        "baselines": 3,
        "budget": {"kind": "tokens", "amount": 1_000_000.0},
        "overrides": ["name=night1", "budget=smoke"],
    },
    data={"key": "abc123", "corpus": "sotu", "splits": {"train": {"documents": 9, "tokens": 8, "bytes": 7}}},
    device="cpu, 2 threads",
    metric=METRIC,
    finished=1_700_009_999.0,
)
EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> ![a](http://evil.test/x.png) "
    "[b](javascript:alert(1)) `code` **bold** | pipe | $x_1$ [red]rich[/red] "
    "\x1b[31mred\x1b[0m \x9b2J \u202eturned \x00 http://evil.test"
)


class Recorded:
    """A history that is what it is."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        info: SearchInfo = INFO,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self._experiments = tuple(experiments)
        self._notes = notes or {}
        self._info = info

    def info(self) -> SearchInfo:
        return self._info

    def experiments(self) -> tuple[Experiment, ...]:
        return self._experiments

    def drafts(self) -> tuple[Draft, ...]:
        return ()

    def get(self, key: str) -> str | None:
        return self._notes.get(key)


def result(
    score: float | None, outcome: Outcome = Outcome.OK, reason: str = "", log: str = "step 1\n"
) -> Measurement:
    metrics = {"steps": 100.0, "tokens_per_second": 5e4, "peak_memory_mb": 300.0} if score is not None else {}
    return Measurement(outcome, score, reason, metrics, ((0.0, 7.5), (0.5, 3.0), (1.0, 2.5)), log)


def trials(
    number: int, commit: str, arms: Sequence[tuple[str, float]], start: float = 0.0
) -> tuple[Trial, ...]:
    """Trials of 20 s each, one after the other."""
    begun = 1_700_000_000.0 + 1000 * number + start
    return tuple(
        Trial(
            100 * number + i,
            number,
            arm,
            1000 + i,
            commit,
            begun + 25 * i,
            begun + 25 * i + 20,
            result(score),
        )
        for i, (arm, score) in enumerate(arms)
    )


def baseline(*scores: float) -> Experiment:
    own = trials(0, BASE, [("baseline", s) for s in scores])
    return Experiment(0, State.RECORDED, BASE, 1_700_000_000.0, commit=BASE, trials=own)


def tried(
    number: int,
    kind: VerdictKind,
    *arms: tuple[str, float],
    parent: str = BASE,
    hypothesis: str = "raise the learning rate",
    effect: float | None = None,
    reason: str = "because",
    extra: tuple[Trial, ...] = (),
) -> Experiment:
    """An experiment with a verdict; without arms, its one trial failed."""
    commit = f"{number:04x}".ljust(40, "c")
    begun = 1_700_000_000.0 + 1000 * number
    own = trials(number, commit, arms)
    if not arms:
        failed = result(None, Outcome(kind.value), reason, "Traceback: oh no\n")
        own = (Trial(100 * number, number, "screen", 7, commit, begun, begun + 9, failed),)
    interval = None if effect is None else (effect - 0.005, effect + 0.005)
    return Experiment(
        number,
        State.RECORDED,
        parent,
        begun,
        commit=commit,
        proposal=Proposal(
            hypothesis,
            Category.OPTIMIZER,
            (),
            "anthropic:model",
            "it is known to help",
            0.01,
            0.5,
            "none",
            params={"LR": 0.02},
            cost=Cost(1, 1000, 100, 0.01, 2.0),
        ),
        verdict=Verdict(kind, effect, interval, 3.0 if effect else None, len(arms), reason),
        diff=f"diff --git a/t.py b/t.py\n--- a/t.py\n+++ b/t.py\n@@ -1 +1 @@\n-LR = 1\n+LR = {number}\n",
        finished=begun + 500,
        trials=(*own, *extra),
    )


def night() -> list[Experiment]:
    """A small search of every kind of verdict: experiments 2 and 5 are kept."""
    second = f"{2:04x}".ljust(40, "c")
    return [
        baseline(1.70, 1.71, 1.69),
        tried(1, VerdictKind.DISCARD, ("screen", 1.72), effect=-0.02),
        tried(2, VerdictKind.KEEP, ("screen", 1.60), ("confirm", 1.64), ("confirm", 1.66), effect=0.05),
        tried(3, VerdictKind.CRASH, reason="CUDA out of memory: tried 12 MB", parent=second),
        tried(
            4,
            VerdictKind.DISCARD,
            ("screen", 1.66),
            parent=second,
            effect=-0.01,
            extra=trials(4, second, [("incumbent", 1.67)], 600.0),
        ),
        tried(
            5,
            VerdictKind.KEEP,
            ("screen", 1.59),
            ("confirm", 1.60),
            ("confirm", 1.61),
            parent=second,
            effect=0.04,
        ),
        tried(6, VerdictKind.INVALID, reason="changed a frozen file", parent=second),
        tried(7, VerdictKind.PRUNE, reason="hopeless at 40%", parent=second),
        tried(8, VerdictKind.CRASH, reason="CUDA out of memory: tried 99 MB", parent=second),
    ]


def by_accuracy(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The same search with a metric that is to be maximised: a score of 1.6 becomes 1.4."""

    def turned(e: Experiment) -> Experiment:
        results = (t.result and replace(t.result, score=t.score and 3.0 - t.score) for t in e.trials)
        return replace(e, trials=tuple(replace(t, result=r) for t, r in zip(e.trials, results, strict=True)))

    return [turned(e) for e in experiments]


ACCURACY_INFO = replace(INFO, metric=ACCURACY)
