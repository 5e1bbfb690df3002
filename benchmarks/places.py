"""How well are several places used? Whole searches whose trials sleep.

    python -m benchmarks.places                                      1, 2, 4, ... 64 places; about ten minutes
    python -m benchmarks.places --places 64 --scale 2                trials of a minute at half their length
    python -m benchmarks.places --places 4 --one-at-a-time

The loop, the journal, git and the judge are the real ones; a trial sleeps and reads the score from the
script. A trial stands for one of 60 seconds, and a proposal for one of 30, both divided by `--scale`, which
the table states. What the search itself takes is not divided, so that a scaled run shows worse figures than
one at full length. For each number of places the table shows:

- experiments and trials an hour, as measured;
- in trials: the share of the places' time that trials took; of it useful: that of trials with a result;
- steady: the same from when every place has had a trial until the last experiment begins, since a search of
  a few hundred experiments is mostly beginning and end on 64 places;
- gap: seconds between the end of a trial at a place and the start of the next one there, median and 95%;
- cpu: milliseconds of the program's own processor time for each trial.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.execute.base import TrialSpec
from autoresearch.judge.in_flight import InFlight
from autoresearch.propose.base import Check, Context, Proposer
from autoresearch.propose.llm.conversation import MAX_QUESTIONS
from autoresearch.search.loop import Search
from autoresearch.types import Category, Edit, Measurement, Outcome, Progress, Proposal, Trial
from tests.support.stub import PATH, make_repository, make_search, measurers

TRIAL, THOUGHT = 60.0, 30.0
LINES = 200
SCRIPT = (
    "LEVEL = 1.0  # 0..2\n" + "".join(f"GAIN_{i} = 0.0\npad{i} = 0\n" for i in range(LINES)) + "TAIL = 0\n"
)


class Tinkerer(Proposer):
    """Changes another line each time: every seventh change is a gain, the others do nothing or harm."""

    name = "tinkerer"

    def __init__(self, think: float, seed: int) -> None:
        self.instant, self.questions = not think, MAX_QUESTIONS if think else 1
        self.think, self.seed = think, seed
        self.numbers, self.lock = itertools.count(1), threading.Lock()

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        time.sleep(self.think)
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


def score(source: str, seed: int, noise: float) -> float:
    """1 minus all gains, and noise of which nine tenths belong to the seed."""
    gains = (float(line.split("=")[1]) for line in source.splitlines() if line.startswith("GAIN_"))
    common = random.Random(seed).gauss(0, 0.95 * noise)
    return 1.0 - sum(gains) + common + random.Random(f"{seed} {source}").gauss(0, 0.3 * noise)


def sleeping(search: Search, seconds: float, noise: float) -> Search:
    """Let each trial sleep, and score as above."""
    for stub in measurers(search):

        def slow(tree: Path, spec: TrialSpec, scratch: Path, progress: Any, *_: Any) -> Measurement:
            source, until = (tree / PATH).read_text(), time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                progress(Progress(1 - left / seconds, seconds - left))
                time.sleep(min(left, max(0.05, seconds / 20)))
            return Measurement(Outcome.OK, score(source, spec.seed, noise))

        stub.measure = slow  # type: ignore[method-assign]
    return search


def share(trials: list[Trial], places: int, begin: float, end: float) -> float:
    """The share of the places' time between two moments that trials took."""
    taken = sum(max(0.0, min(t.finished or end, end) - max(t.started, begin)) for t in trials)
    return taken / (places * max(end - begin, 1e-9))


def gaps(trials: list[Trial], end: float) -> list[float]:
    """Seconds between the end of a trial and the start of the next one at the same place."""
    ordered = sorted(trials, key=lambda t: (t.place, t.started))
    found = []
    for _, mine in itertools.groupby(ordered, key=lambda t: t.place):
        for before, after in itertools.pairwise(mine):
            if after.started < end:
                found.append(max(0.0, after.started - (before.finished or after.started)))
    return found


def measured(options: argparse.Namespace, places: int, folder: Path) -> str:
    """The line of the table for one number of places."""
    seconds, think = TRIAL / options.scale, options.think / options.scale
    experiments = options.experiments or max(20, 4 * places)
    search = make_search(
        make_repository(folder, SCRIPT), [], f"executor.workers={places}", "baselines=3",
        f"experiments={experiments}", "alarm=null", proposer=Tinkerer(think, options.seed),
    )  # fmt: skip
    cpu = time.process_time()
    sleeping(search, seconds, options.noise).run()
    cpu = time.process_time() - cpu
    known = search.journal.experiments()
    trials = [t for e in known[1:] for t in e.trials]
    useful = [t for t in trials if t.result]
    begin, end = min(t.started for t in trials), max(t.finished or 0.0 for t in trials)
    warm = max(min(t.started for t in trials if t.place == place) for place in {t.place for t in trials})
    last = max(e.created for e in known)
    hours, between = (end - begin) / 3600, gaps(trials, last) or [0.0]
    late = quantiles(between, n=20)[-1] if len(between) > 1 else between[0]
    return (
        f"{places:6d}{search.state.tried / hours:12.0f}{len(trials) / hours:10.0f}"
        f"{share(trials, places, begin, end):11.1%}{share(useful, places, begin, end):9.1%}"
        f"{share(trials, places, warm, last):9.1%}{share(useful, places, warm, last):9.1%}"
        f"{median(between):9.2f}{late:7.2f}{1000 * cpu / len(trials):7.0f}{sum(e.kept for e in known):6d}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--places", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--executor", choices=["local"], default="local", help="where the trials sleep")
    parser.add_argument("--experiments", type=int, help="of each search (default: 4 a place, at least 20)")
    parser.add_argument("--scale", type=float, default=4.0, help="by what all times are divided")
    parser.add_argument("--think", type=float, default=THOUGHT, help="seconds that a proposal takes; 0: none")
    parser.add_argument("--noise", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one-at-a-time", action="store_true", help="one candidate in flight")
    options = parser.parse_args()
    print(
        f"Trials of {TRIAL:g} s and proposals of {options.think:g} s, simulated in "
        f"{TRIAL / options.scale:g} s and {options.think / options.scale:g} s."
    )
    print("places  experim./h  trials/h  in trials   useful   steady   useful  gap (s)    95% cpu ms  kept")
    many = (lambda judge, places: None) if options.one_at_a_time else InFlight.use_places
    for places in options.places:
        with tempfile.TemporaryDirectory() as folder, patch.object(InFlight, "use_places", many):
            print(measured(options, places, Path(folder, "repository")), flush=True)


if __name__ == "__main__":
    main()
