"""Tries a task out before a search: one tryout and two trainings of the start, and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from autoresearch.config import load
from autoresearch.execute import is_remote
from autoresearch.execute.places import device, require_device
from autoresearch.judge import bars, create_judge
from autoresearch.search.setup.plan import TRIALS, Line
from autoresearch.search.setup.required import require_files
from autoresearch.search.setup.settings import runs_folder
from autoresearch.search.setup.trying import SEEDS, Tried, try_here, try_places
from autoresearch.store.git.repository import Repository
from autoresearch.tasks import create_task
from autoresearch.tasks.base import TRUST, Task, Trust
from autoresearch.text import duration
from autoresearch.types import Direction

NIGHT = 8 * 3600.0
"""Seconds of a night."""
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
    if is_remote(config.executor.name):
        done = yield from try_places(config, repository, task, data, runs, say)
    else:
        done = try_here(config, repository, task, data, runs, say)
    places = done[0].places or len(task.places())
    yield from _findings(task, [t.score for t in done], [t.seconds for t in done], places, config.judge)
    for name, (heading, text) in MEASURED.items():
        values = [t.metrics[name] for t in done if name in t.metrics]
        if values and (device(config) == "cuda" or not heading.startswith("GPU")):
            yield heading, text.format(fmean(values))
    return done


def _findings(
    task: Task, scores: Sequence[float], seconds: Sequence[float], places: int, judge: dict[str, object]
) -> Iterator[Line]:
    metric, mean, noise = task.metric, fmean(scores), stdev(scores)
    yield "score", f"{metric.name} {' and '.join(map(metric.text, scores))} with two seeds"
    yield from _doubts(task, scores)
    each, (low, high) = fmean(seconds), TRIALS
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
            f"a gain of {least:.2g}{share} shows in three trials; below {found.ever:.2g} none is kept; a "
            f"first trial below {found.second_run:.2g} is the last",
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
