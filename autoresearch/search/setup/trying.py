"""Tries the starting script out: on this machine, or with one trial on each kind of remote place.

Places of one kind have the same device and sandbox. The same seed runs on each kind, so that their scores can
be compared. Not covered: what the scores say about the task (`check`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from autoresearch.config import Config
from autoresearch.errors import UserError
from autoresearch.execute.base import Finished, Measurer, Started, TrialSpec
from autoresearch.execute.local import exporter
from autoresearch.execute.remote import RemoteExecutor, kind
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.search.setup.plan import Line
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.base import Dataset, Task
from autoresearch.tasks.worker import create_executor
from autoresearch.text import duration
from autoresearch.types import Measurement, Outcome

SEEDS = (1, 2)
SETTLE_SECONDS = 60.0
"""How long places may take to get ready once the first one is."""


@dataclass(frozen=True)
class Tried:
    """One training of the starting script.

    Attributes:
        score: Its score.
        seconds: How long the whole trial took.
        metrics: What was measured besides.
        places: How many places the engine had ready; 0 if it ran here.
    """

    score: float
    seconds: float
    metrics: Mapping[str, float]
    places: int = 0


def try_here(
    config: Config, repository: Repository, task: Task, data: Dataset, runs: Path, say: Callable[[str], None]
) -> list[Tried]:
    """One tryout and two trainings of the start on this machine."""
    sandbox = create_sandbox(config.sandbox["backend"], say)
    with tempfile.TemporaryDirectory(prefix="check-", dir=runs) as temporary:
        trusted, tree = Path(temporary, "trusted"), Path(temporary, "tree")
        for target in (trusted, tree):
            repository.export("HEAD", task.frozen, target)
        measurer = task.measurer(task.places()[0], data, sandbox, trusted, say)
        try:
            say("A tryout ...")
            ended(task, measurer.tryout(tree, _scratch(temporary, 0)))
            done: list[Tried] = []
            for seed in SEEDS:
                say(f"Training {len(done) + 1} of {len(SEEDS)} ...")
                done.append(_train(task, measurer, tree, _scratch(temporary, seed), seed))
        finally:
            measurer.close()
    return done


def _scratch(temporary: str, number: int) -> Path:
    folder = Path(temporary, f"scratch{number}")
    folder.mkdir()
    return folder


def _train(task: Task, measurer: Measurer, tree: Path, scratch: Path, seed: int) -> Tried:
    """Train the starting script once."""
    begun = time.monotonic()
    result = measurer.measure(tree, TrialSpec("check", -seed, "", seed), scratch, lambda sign: None)
    score = ended(task, result).score
    assert score is not None
    return Tried(score, time.monotonic() - begun, result.metrics)


def ended(task: Task, result: Measurement) -> Measurement:
    """The result of a trial of the starting script, if it got through.

    Raises:
        UserError: If it did not.
    """
    if result.outcome is not Outcome.OK:
        raise UserError(
            f"The start does not get through: {result.reason}",
            f"Try it by hand: {task.by_hand}. It ended with:\n{result.log[-2000:]}",
            code=3,
        )
    return result


def try_places(
    config: Config, repository: Repository, task: Task, data: Dataset, runs: Path, say: Callable[[str], None]
) -> Generator[Line, None, list[Tried]]:
    """Run the starting script on each kind of place, and with a second seed on the first.

    Yields:
        What was found, as lines of a heading and a text.

    Returns:
        The trainings on the first kind.

    Raises:
        UserError: If the engine cannot be used, or the start does not get through.
    """
    head = repository.resolve("HEAD") or ""
    with tempfile.TemporaryDirectory(prefix="check-", dir=runs) as temporary:
        folder = Path(temporary)
        repository.export(head, task.frozen, folder / "trusted")
        named = config.model_copy(update={"name": folder.name})
        export = exporter(repository, task.frozen)
        begun = time.monotonic()
        say("Starting workers ...")
        executor = create_executor(named, task, data, None, folder / "trusted", export, say)
        assert isinstance(executor, RemoteExecutor)
        try:
            executor.await_first(None)
            yield "engine", f"the first worker was ready after {duration(time.monotonic() - begun)}"
            while not executor.settled and time.monotonic() < begun + SETTLE_SECONDS:
                time.sleep(0.2)
            yield "places", f"{len(executor.places)} ready"
            for name, why in executor.set_aside.items():
                yield "warning", f"{name} is of no use: {why}"
            done = yield from _try_kinds(executor, folder.name, head, task, say)
        finally:
            executor.close()
    return done


def _try_kinds(
    executor: RemoteExecutor, name: str, commit: str, task: Task, say: Callable[[str], None]
) -> Generator[Line, None, list[Tried]]:
    """Try a place of each kind; where there is one kind only, a second place of it."""
    about = executor.about
    first = {kind(known): place for place, known in reversed(about.items())}
    places = list(first.values())
    if len(places) == 1:
        places += [place for place in about if place not in places][:1]
    say(f"A trial on {', '.join(places)} ...")
    events: SimpleQueue[Any] = SimpleQueue()
    asked = [(place, SEEDS[0]) for place in places] + [(places[0], SEEDS[1])]
    for number, (place, seed) in enumerate(asked, start=1):
        executor.submit(TrialSpec(name, -number, commit, seed), place, events)
    begun: dict[int, float] = {}
    done: dict[int, Tried] = {}
    while len(done) < len(asked):
        event = events.get()
        if isinstance(event, Started):
            begun[-event.spec.trial] = time.monotonic()
        elif isinstance(event, Finished):
            if not isinstance(event.result, Measurement):
                raise event.result or UserError("A trial was stopped from outside.", code=3)
            number, score = -event.spec.trial, ended(task, event.result).score
            assert score is not None, "its outcome is OK"
            seconds = time.monotonic() - begun[number]
            done[number] = Tried(score, seconds, event.result.metrics, len(executor.places))
    for number, place in enumerate(places, start=1):
        yield from _told(place, about.get(place, {}), done[number], task)
    if len(places) > 1:
        said = "the same seed gave the same score everywhere"
        if len({done[number].score for number in range(1, len(asked))}) > 1:
            texts = ", ".join(f"{done[i].score:.6g} on {place}" for i, place in enumerate(places, start=1))
            said = f"the same seed gave {texts}: compare scores within a kind of place only"
        yield "agreement", said
    return [done[1], done[len(asked)]]


def _told(place: str, about: Mapping[str, Any], tried: Tried, task: Task) -> Iterator[Line]:
    more = "".join(f"; {name} {text}" for name, text in about.get("about", {}).items())
    yield place, f"{about.get('device', '?')} of {about.get('host', '?')}{more}"
    yield (
        "start-up",
        f"{about.get('start_seconds', 0.0):.1f} s, of which {about.get('setup_seconds', 0.0):.1f} s for the "
        f"sandbox and the task; {about.get('bytes', 0) / 1e6:.1f} MB of data and code were sent in "
        f"{about.get('transfer_seconds', 0.0):.1f} s",
    )
    yield "trial", f"{tried.seconds:.1f} s, score {task.metric.text(tried.score)}"
