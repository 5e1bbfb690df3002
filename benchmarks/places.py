"""What share of the time do several places train? Whole searches whose trials sleep.

    python benchmarks/places.py                      four places, half a second a trial; about two minutes
    python benchmarks/places.py --places 8 --seconds 2

The loop, the journal, git and the judge are the real ones; a trial sleeps and reads the score from the
script. Run twice: with as many candidates in flight as keep the places busy, and with one at a time. What is
measured begins with the first trial of experiment 1 and ends with the last verdict. A trial that was
cancelled because its result was not needed any more counts as idle.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.execute.base import TrialSpec
from autoresearch.judge.in_flight import InFlight
from autoresearch.propose.base import Check, Context
from autoresearch.search.loop import Search
from autoresearch.types import Category, Edit, Measurement, Outcome, Progress, Proposal
from tests.support.stub import PATH, OneAtATime, make_repository, make_search, measurers

LINES = 40
SCRIPT = (
    "LEVEL = 1.0  # 0..2\n" + "".join(f"GAIN_{i} = 0.0\npad{i} = 0\n" for i in range(LINES)) + "TAIL = 0\n"
)


class Tinkerer(OneAtATime):
    """Changes another line each time: every seventh change is a gain, the others do nothing or harm."""

    name = "tinkerer"

    def __init__(self, think: float, seed: int) -> None:
        self.instant, self.think, self.seed = not think, think, seed

    def propose(self, context: Context, check: Check) -> Proposal:
        """See `autoresearch.propose.base.Proposer`."""
        time.sleep(self.think)
        number = len(context.paid) + 1
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
                time.sleep(min(left, 0.05))
            return Measurement(Outcome.OK, score(source, spec.seed, noise))

        stub.measure = slow  # type: ignore[method-assign]
    return search


def measured(options: argparse.Namespace, folder: Path) -> tuple[float, float, int, int, int]:
    """Share of place time in trials that counted, seconds an experiment, trials, experiments, keeps."""
    search = make_search(
        make_repository(folder, SCRIPT), [], f"executor.workers={options.places}",
        f"experiments={options.experiments}", "alarm=null", proposer=Tinkerer(options.think, options.seed),
    )  # fmt: skip
    sleeping(search, options.seconds, options.noise).run()
    experiments = search.journal.experiments()[1:]
    trials = [t for e in experiments for t in e.trials]
    wall = max(e.finished or 0.0 for e in experiments) - min(t.started for t in trials)
    busy = sum((t.finished or t.started) - t.started for t in trials if t.result)
    kept = sum(e.kept for e in experiments)
    return busy / (options.places * wall), wall / len(experiments), len(trials), len(experiments), kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--places", type=int, default=4)
    parser.add_argument("--experiments", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5, help="that a trial sleeps")
    parser.add_argument("--think", type=float, default=0.0, help="seconds that a proposal takes")
    parser.add_argument("--noise", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    pace = []
    for name, many in (("many candidates in flight", True), ("one candidate at a time", False)):
        with (
            tempfile.TemporaryDirectory() as folder,
            patch.object(InFlight, "use_places", InFlight.use_places if many else lambda judge, places: None),
        ):
            share, each, trials, experiments, kept = measured(options, Path(folder, "repository"))
        pace.append(each)
        print(
            f"{name:26} {options.places} places: {share:.1%} of their time in trials that counted; "
            f"{experiments} experiments, {trials} trials, {kept} kept, {each:.2f} s an experiment",
            flush=True,
        )
    print(f"{pace[1] / pace[0]:.2f} times as many experiments in the same time")


if __name__ == "__main__":
    main()
