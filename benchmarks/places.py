"""How well are several places used? Whole searches whose trials sleep, or take simulated time.

    python -m benchmarks.places                                      1, 2, 4, ... 64 places in simulated time
    python -m benchmarks.places --places 4 --one-at-a-time
    python -m benchmarks.places --executor ray --places 2 --scale 20  also local and slurm: trials that sleep

The loop, the journal, git and the judge are the real ones; a trial reads the score from the script. A trial
stands for one of 60 seconds, and a proposal for one of 30. In simulated time (see `simulated_time`) the clock
counts the processor time of the search itself, and jumps while it waits. With a real executor trials and
proposals sleep for so long, divided by `--scale`; what the search takes is not divided. Before a keep there
are two more trials, on text that no program has seen. For each number of places the table shows:

- experiments and trials an hour;
- in trials: the share of the places' time that trials took; of it useful: that of trials with a result;
- steady: the same from when every place has had a trial until the last experiment begins, since a search of a
  few hundred experiments is mostly beginning and end on 64 places;
- gap: seconds between the end of a trial at a place and the start of the next one there, median and 95%: the
  search records the end, judges, records verdicts, and starts the next one;
- over: seconds from the submission of a trial to its end, beyond those that it sleeps; median;
- cpu: milliseconds of processor time of the search and its git for each trial.

For Slurm a cluster of made-up nodes is started here, from the programs of Debian's packages.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.config import load
from autoresearch.execute.base import Executor, Finished, Place, Started, TrialSpec
from autoresearch.execute.local import LocalExecutor, exporter
from autoresearch.execute.worker.messages import Setup
from autoresearch.judge.sequential.in_flight import InFlight
from autoresearch.propose.base import Check, Context, Proposer
from autoresearch.propose.llm.conversation import MAX_QUESTIONS
from autoresearch.search.loop import Search
from autoresearch.types import Category, Edit, Measurement, Outcome, Progress, Proposal
from benchmarks.simulated_time import SimulatedPlaces, SimulatedTime, let_time_pass
from tests.support.stub import PATH, make_repository, make_search

TRIAL, THOUGHT = 60.0, 30.0
TITLES = (
    "places experim./h trials/h  in trials   useful   steady   useful  gap (s)    95%   over cpu ms  kept"
)
LINES = 200
SLICES = 500
BASELINES = 3
SCRIPT = (
    "LEVEL = 1.0  # 0..2\n" + "".join(f"GAIN_{i} = 0.0\npad{i} = 0\n" for i in range(LINES)) + "TAIL = 0\n"
)


class Tinkerer(Proposer):
    """Changes another line each time: every seventh change is a gain, the others do nothing or harm."""

    name = "tinkerer"

    def __init__(self, think: Callable[[], None], seed: int, *, instant: bool) -> None:
        self.instant, self.questions = instant, 1 if instant else MAX_QUESTIONS
        self.think, self.seed = think, seed
        self.numbers, self.lock = itertools.count(1), threading.Lock()

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        self.think()
        return [self.propose(context) for _ in range(n)]

    def propose(self, context: Context) -> Proposal:
        """One change."""
        with self.lock:
            number = next(self.numbers)
        chance = random.Random(f"{self.seed} {number}")
        gain = 0.01 if number % 7 == 0 else -chance.choice([0.0, 0.001, 0.004, 0.02])
        lines = context.sources[PATH].splitlines()
        line = next(x for x in lines if x.startswith(f"GAIN_{number % LINES} "))
        words = f"GAIN_{number % LINES} = {gain + number * 1e-9:.9f}"
        return Proposal(f"change {number}", Category.KNOBS, (Edit(PATH, line, words),), self.name)


def scored(source: str, spec: TrialSpec, noise: float) -> Measurement:
    """1 minus all gains, and noise of which nine tenths belong to the seed."""
    gains = (float(line.split("=")[1]) for line in source.splitlines() if line.startswith("GAIN_"))
    common = random.Random(spec.seed).gauss(0, 0.95 * noise)
    score = 1.0 - sum(gains) + common + random.Random(f"{spec.seed} {source}").gauss(0, 0.3 * noise)
    metrics = {f"{split}_bpb": score for split in spec.splits[1:]}
    return Measurement(Outcome.OK, score, metrics=metrics)


class Sleeper:
    """A measurer whose trials sleep."""

    def __init__(self, seconds: float, noise: float) -> None:
        self.seconds, self.noise = seconds, noise

    def measure(self, tree: Path, spec: TrialSpec, scratch: Path, progress: Any, *_: Any) -> Measurement:
        """Sleep, and score."""
        source, until = (tree / PATH).read_text(), time.monotonic() + self.seconds
        while (left := until - time.monotonic()) > 0:
            progress(Progress(1 - left / self.seconds, self.seconds - left))
            time.sleep(min(left, max(0.05, self.seconds / 20)))
        return scored(source, spec, self.noise)

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        """Every candidate gets through."""
        return Measurement(Outcome.OK)

    def close(self) -> None:
        """Nothing runs."""


def sleeper(
    place: Place, folders: Mapping[str, Path], options: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Sleeper, Mapping[str, str]]:
    """See `autoresearch.execute.worker.worker.Maker`."""
    return Sleeper(options["seconds"], options["noise"]), {}


@dataclass
class Taken:
    """The time that a trial took of its place.

    Attributes:
        asked: When it was submitted.
        tried: Experiments that had begun by then.
        useful: Whether it gave a result; else it was cancelled.
    """

    place: str
    asked: float
    tried: int
    begin: float = 0.0
    end: float = 0.0
    useful: bool = False


class Watched:
    """An executor that notes what time trials take."""

    def __init__(self, executor: Executor, now: Callable[[], float]) -> None:
        self.executor, self.now = executor, now
        self.taken: list[Taken] = []
        self.tried: Callable[[], int] = lambda: 0

    @property
    def places(self) -> Sequence[Place]:
        """See `Executor`."""
        return self.executor.places

    def submit(self, spec: TrialSpec, place: str, events: Any) -> None:
        """See `Executor`."""
        mine, now, passed = Taken(place, self.now(), self.tried()), self.now, events.put

        class Events:
            @staticmethod
            def put(event: Any) -> None:
                if isinstance(event, Started):
                    mine.place, mine.begin = event.place, now()
                elif isinstance(event, Finished):
                    mine.end, mine.useful = now(), event.result is not None
                passed(event)

        self.taken.append(mine)
        self.executor.submit(spec, place, Events)  # type: ignore[arg-type]

    def cancel(self, search: str, trials: Iterable[int]) -> None:
        """See `Executor`."""
        self.executor.cancel(search, trials)

    def tryout(self, spec: TrialSpec) -> Measurement:
        """See `Executor`."""
        return self.executor.tryout(spec)

    def close(self) -> None:
        """See `Executor`."""
        self.executor.close()


def share(trials: list[Taken], places: int, begin: float, end: float) -> float:
    """The share of the places' time between two moments that trials took."""
    taken = sum(max(0.0, min(t.end, end) - max(t.begin, begin)) for t in trials)
    return taken / (places * max(end - begin, 1e-9))


def gaps(trials: list[Taken], end: float) -> list[float]:
    """Seconds between the end of a trial and the start of the next one at the same place."""
    ordered = sorted(trials, key=lambda t: (t.place, t.begin))
    found = []
    for _, mine in itertools.groupby(ordered, key=lambda t: t.place):
        found += [b.begin - a.end for a, b in itertools.pairwise(mine) if b.begin < end]
    return found


def measured(options: argparse.Namespace, places: int, folder: Path) -> str:
    """The line of the table for one number of places."""
    simulated = options.executor == "simulated"
    scale = 1.0 if simulated else options.scale
    seconds, think, clock = TRIAL / scale, options.think / scale, SimulatedTime()
    repository, runs = make_repository(folder, SCRIPT), folder / "runs"
    pause = (lambda: clock.think(think)) if simulated else (lambda: time.sleep(think))
    settings = [f"executor.workers={places}", f"baselines={BASELINES}", "alarm=null"]
    settings.append(f"experiments={options.experiments or max(20, 4 * places)}")
    proposer = Tinkerer(pause, options.seed, instant=not think)

    def score(spec: TrialSpec) -> Measurement:
        return scored(repository.sources(spec.tree, [PATH])[PATH], spec, options.noise)

    with ExitStack() as stack:
        if simulated:
            inner: Any = SimulatedPlaces(places, clock, seconds, score)
        else:
            inner = started(options, places, seconds, runs, exporter(repository, ["nanomodel"]), stack)
        stack.callback(inner.close)
        executor = Watched(inner, clock.now if simulated else time.monotonic)
        search = make_search(repository, [], *settings, proposer=proposer, executor=executor)
        executor.tried = lambda: search.state.tried
        text = {"tokens": 24_000 * SLICES, "documents": SLICES}
        search.journal.update(data={"splits": {"validation": text, "held": text}})
        if simulated:
            let_time_pass(search, clock)
        return line(search, executor, places, seconds)


def started(
    options: argparse.Namespace, places: int, seconds: float, runs: Path, export: Any, stack: ExitStack
) -> Any:
    """A real executor, all of whose places are ready."""
    if options.executor == "local":
        sleepers = {Place(f"cpu:{i}", "local"): Sleeper(seconds, options.noise) for i in range(places)}
        return LocalExecutor(sleepers, runs, export)
    root = Path(__file__).resolve().parents[1]
    stack.enter_context(patch.dict(os.environ, {"PYTHONPATH": str(root)}))
    made = {"seconds": seconds, "noise": options.noise}
    setup = Setup("x", "benchmarks.places:sleeper", made)
    config = load([f"executor={options.executor}", f"executor.workers={places}"], {}, own_file=False)
    given = config.executor.model_copy(update={"cache": runs.parent / "cache"})
    (runs / "x").mkdir(parents=True, exist_ok=True)
    executor: Any
    if options.executor == "ray":
        from autoresearch.execute.ray import RayExecutor

        executor = RayExecutor(setup, given, runs, export, print)
    else:
        from autoresearch.execute.slurm.executor import SlurmExecutor
        from tests.support.slurm_cluster import slurm_cluster

        cluster = stack.enter_context(slurm_cluster(nodes=2, cpus=(places + 1) // 2))
        stack.enter_context(patch.dict(os.environ, cluster.environment))
        executor = SlurmExecutor(setup, given, runs, export, print)
    while len(executor.places) < places:
        time.sleep(0.1)
    return executor


def line(search: Search, executor: Watched, places: int, seconds: float) -> str:
    """Run the search, and tell what came of it."""
    used = os.times()
    search.run()
    cpu = sum(os.times()[:4]) - sum(used[:4])
    known, taken = search.journal.experiments(), executor.taken
    trials = [t for t in taken[BASELINES:] if t.begin and t.end]
    useful = [t for t in trials if t.useful]
    begin, end = min(t.begin for t in trials), max(t.end for t in trials)
    warm = max(min(t.begin for t in trials if t.place == place) for place in {t.place for t in trials})
    last = min(t.asked for t in trials if t.tried == search.state.tried)
    hours, between = (end - begin) / 3600, gaps(trials, last) or [0.0]
    late = quantiles(between, n=20)[-1] if len(between) > 1 else between[0]
    over = median(t.end - t.asked for t in useful) - seconds
    return (
        f"{places:6d}{search.state.tried / hours:11.0f}{len(trials) / hours:9.0f}"
        f"{share(trials, places, begin, end):11.1%}{share(useful, places, begin, end):9.1%}"
        f"{share(trials, places, warm, last):9.1%}{share(useful, places, warm, last):9.1%}"
        f"{median(between):9.2f}{late:7.2f}{over:7.2f}{1000 * cpu / len(trials):7.0f}"
        f"{sum(e.kept for e in known):6d}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--places", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    kinds = ["simulated", "local", "ray", "slurm"]
    parser.add_argument("--executor", choices=kinds, default="simulated", help="where the trials sleep")
    parser.add_argument("--experiments", type=int, help="of each search (default: 4 a place, at least 20)")
    parser.add_argument(
        "--scale", type=float, default=20.0, help="by what times of real executors are divided"
    )
    parser.add_argument("--think", type=float, default=THOUGHT, help="seconds that a proposal takes; 0: none")
    parser.add_argument("--noise", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one-at-a-time", action="store_true", help="one candidate in flight")
    options = parser.parse_args()
    scale = 1.0 if options.executor == "simulated" else options.scale
    print(
        f"{options.executor}: trials of {TRIAL:g} s and proposals of {options.think:g} s, in "
        f"{TRIAL / scale:g} s and {options.think / scale:g} s."
    )
    print(TITLES)
    many = (lambda judge, places: None) if options.one_at_a_time else InFlight.use_places
    for places in options.places:
        with tempfile.TemporaryDirectory() as folder, patch.object(InFlight, "use_places", many):
            print(measured(options, places, Path(folder, "repository")), flush=True)


if __name__ == "__main__":
    main()
