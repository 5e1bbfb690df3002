"""Tries a task out before a search: one tryout and two trainings of the start, and what they say."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.execute.base import Measurer, TrialSpec
from autoresearch.execute.places import require_device
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.judge import bars, create_judge
from autoresearch.search.setup.create import require_files
from autoresearch.search.setup.open import runs_folder
from autoresearch.search.setup.plan import TRIALS, Line
from autoresearch.store.git import Repository
from autoresearch.tasks import create_task
from autoresearch.tasks.base import TRUST, Task, Trust
from autoresearch.text import duration
from autoresearch.types import Direction, Measurement, Outcome

NIGHT = 8 * 3600.0
"""Seconds of a night."""
SEEDS = (1, 2)
RAISE = {
    Trust.PRINTED: "task.score: a command that scores what task.train leaves, on data that it never saw",
    Trust.ARTIFACT: "only a task of your own whose scorer asks the candidate for answers (docs/tasks.md)",
    Trust.SERVED: "",
}
"""What would make scores more trustworthy."""


MEASURED = {
    "tokens_per_second": ("throughput", "{:,.0f} tokens a second"),
    "mfu": ("utilisation", "{:.0%} of what the device can compute"),
    "memory_mb": ("memory", "{:,.0f} MB of main memory"),
    "peak_memory_mb": ("GPU memory", "{:,.0f} MB at most"),
    "startup_seconds": ("start", "{:.1f} s before the clock starts"),
    "score_seconds": ("scoring", "{:.1f} s"),
}
"""Metric of a trial -> heading and text, for those that tell of the machine."""


@dataclass(frozen=True)
class Tried:
    """One training of the starting script.

    Attributes:
        score: Its score.
        seconds: How long the whole trial took.
        metrics: What was measured besides.
    """

    score: float
    seconds: float
    metrics: Mapping[str, float]


def check_task(
    overrides: Sequence[str], folder: Path, say: Callable[[str], None]
) -> Generator[Line, None, list[Tried]]:
    """Try the configured task out in a repository.

    Args:
        overrides: Settings, as for `run`.
        folder: Where the user is.
        say: Is told what is done.

    Yields:
        What was found, as lines of a heading and a text.

    Returns:
        The trainings.

    Raises:
        UserError: If the start does not get through.
    """
    config, repository = load(overrides), Repository(folder)
    config.read_brief()
    require_device(config)
    sandbox = create_sandbox(config.sandbox["backend"], say)
    task = create_task(config)
    require_files(repository, task)
    files = repository.sources("HEAD", task.editable)
    yield "task", f"{task.name}: {', '.join(files)} may change"
    yield "trust", f"{task.trust}. {TRUST[task.trust]}"
    if more := RAISE[task.trust]:
        yield "would raise it", more
    runs = runs_folder(config, repository)
    data = task.prepare(runs / "cache")
    for warning in task.warnings(data):
        yield "warning", warning
    with tempfile.TemporaryDirectory(prefix="check-", dir=runs) as temporary:
        trusted, tree = Path(temporary, "trusted"), Path(temporary, "tree")
        for target in (trusted, tree):
            repository.export("HEAD", task.frozen, target)
        measurer = task.measurer(task.places()[0], data, sandbox, trusted, say)
        try:
            say("A tryout ...")
            _ended(task, measurer.tryout(tree, _scratch(temporary, 0)))
            done: list[Tried] = []
            for seed in SEEDS:
                say(f"Training {len(done) + 1} of {len(SEEDS)} ...")
                done.append(_train(task, measurer, tree, _scratch(temporary, seed), seed))
        finally:
            measurer.close()
    yield from _findings(task, [t.score for t in done], [t.seconds for t in done], config.judge)
    for name, (heading, text) in MEASURED.items():
        if values := [t.metrics[name] for t in done if name in t.metrics]:
            yield heading, text.format(fmean(values))
    return done


def _scratch(temporary: str, number: int) -> Path:
    folder = Path(temporary, f"scratch{number}")
    folder.mkdir()
    return folder


def _train(task: Task, measurer: Measurer, tree: Path, scratch: Path, seed: int) -> Tried:
    """Train the starting script once."""
    begun = time.monotonic()
    result = measurer.measure(tree, TrialSpec("check", -seed, "", seed), scratch, lambda sign: None)
    score = _ended(task, result).score
    assert score is not None
    return Tried(score, time.monotonic() - begun, result.metrics)


def _ended(task: Task, result: Measurement) -> Measurement:
    if result.outcome is not Outcome.OK:
        raise UserError(
            f"The start does not get through: {result.reason}",
            f"Try it by hand: {task.by_hand}. It ended with:\n{result.log[-2000:]}",
            code=3,
        )
    return result


def _findings(
    task: Task, scores: Sequence[float], seconds: Sequence[float], judge: dict[str, object]
) -> Iterator[Line]:
    metric, mean, noise = task.metric, fmean(scores), stdev(scores)
    yield "score", f"{metric.name} {' and '.join(map(metric.text, scores))} with two seeds"
    yield from _doubts(task, scores)
    each, places = fmean(seconds), len(task.places())
    low, high = TRIALS
    yield "time", f"{duration(each)} a trial, {places} at a time; {low:g} to {high:g} trials a decision"
    decisions = NIGHT * places / each / fmean(TRIALS)
    yield "a night", f"about {decisions:,.0f} decisions in {NIGHT / 3600:.0f} hours"
    if decisions < 10:
        yield "warning", "Few changes can be tried in a night: make a trial shorter if you can."
    if noise == 0:
        return
    yield "noise", f"about {noise:.2g}, very roughly: a search measures it with more seeds"
    losses = [(seed, metric.loss(score)) for seed, score in zip(SEEDS, scores, strict=True)]
    found = bars(create_judge(baseline=losses, **judge).to_json(), metric.loss(mean), noise)  # type: ignore[arg-type]
    if found is not None:
        least = found.three_runs or found.ever
        share = f" ({least / abs(mean):.1%} of the score)" if mean else ""
        yield (
            "effect",
            f"a gain of {least:.2g}{share} shows in three trials; below {found.ever:.2g} none is kept",
        )


def _doubts(task: Task, scores: Sequence[float]) -> Iterator[Line]:
    """What two scores say about the task."""
    mean, best = fmean(scores), 0.0 if task.metric.direction is Direction.MINIMIZE else 1.0
    if len(set(scores)) == 1 and not task.deterministic:
        yield (
            "warning",
            "Both seeds gave the same score: the program ignores its seed (AUTORESEARCH_SEED or {seed}), or "
            "is deterministic. Then set task.deterministic=true; else its noise cannot be measured.",
        )
    if 0 <= mean <= 1 and math.isclose(mean, best, abs_tol=0.01):
        yield "warning", f"{mean:g} is nearly the best there is: is the direction of the metric right?"
