"""Does a search slow down as its history grows? A thousand experiments whose trials cost nothing.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --experiments 300 --mlflow

The loop, the journal, git, the judge and the prompt are the real ones; only training is a stub that reads the
score from the script. For each hundred experiments the table shows milliseconds an experiment: in the whole,
and of these in reading and writing the journal, in git, in what the mirror does (with --mlflow: writing a
real store, in its own thread), in assembling the prompt of a language model, and, once at the end of each
hundred, in the page of the report, divided by the experiments that are on it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.propose.base import Check, Context, Proposer
from autoresearch.propose.llm import prompt
from autoresearch.search.loop import Search
from autoresearch.search.setup.open import create_mirror, write_page
from autoresearch.store.git import Repository
from autoresearch.store.journal import Journal
from autoresearch.tracking.mirror import Mirror
from autoresearch.types import Category, Edit, Experiment, Proposal
from tests.support.stub import PATH, Silent, make_repository, make_search

COLUMNS = ("whole", "journal", "git", "mirror", "prompt", "report")
EVERY = 25
"""Every so manieth experiment is a real gain."""
LEDGER_TOKENS = 20_000


class Meter:
    """Seconds spent in parts of the program, by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time spent in a block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begun

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Count the time that a method takes."""
        original: Callable[..., Any] = getattr(owner, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return original(*args, **kwargs)

        setattr(owner, method, call)

    def watch_transactions(self) -> None:
        """Count the time of the journal's transactions."""
        original = Journal._write

        @contextmanager
        def transaction(journal: Journal) -> Iterator[Any]:
            with self.part("journal"), original(journal) as db:
                yield db

        Journal._write = transaction  # type: ignore[method-assign, assignment]


class Tinkerer(Proposer):
    """Proposes a new level each time, now and then a better one; assembles a prompt as for an LLM."""

    name = "tinkerer"
    instant = True

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        with self.meter.part("prompt"):
            prompt.build(context, LEDGER_TOKENS)
        number = len(context.paid) + 1
        gains = number // EVERY
        level = 1.0 - 0.1 * gains + (0.0 if number % EVERY == 0 else 0.3 + number / 1e4)
        line = context.sources[PATH].splitlines()[0]
        edit = Edit(PATH, line, f"LEVEL = {level:.5f}  # 0..2")
        return [Proposal(f"level {level:.5f} instead", Category.KNOBS, (edit,), self.name, "it may help")]


class Table(Silent):
    """A view that prints a line for each hundred experiments."""

    def __init__(self, meter: Meter, every: int) -> None:
        super().__init__()
        self.meter, self.every = meter, every
        self.search: Search | None = None
        self.begun = time.perf_counter()

    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> None:
        """See `autoresearch.types.View`."""
        if experiment.number % self.every or self.search is None:
            return
        seconds = self.meter.seconds
        seconds["whole"] = time.perf_counter() - self.begun
        begun = time.perf_counter()
        write_page(self.search.journal, self.search.repository)
        page = (time.perf_counter() - begun) * self.every / experiment.number
        cells = [1000 * v / self.every for v in (*(seconds[c] for c in COLUMNS[:-1]), page)]
        first = experiment.number - self.every + 1
        print(f"{first:5d}-{experiment.number:<5d}" + "".join(f"{cell:9.1f}" for cell in cells), flush=True)
        seconds.clear()
        self.begun = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--experiments", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--every", type=int, default=100, help="experiments a line (default: 100)")
    parser.add_argument("--mlflow", action="store_true", help="mirror to a real MLflow store")
    options = parser.parse_args()
    meter = Meter()
    meter.watch_transactions()
    meter.watch(Journal, "_rows", "journal")
    meter.watch(Repository, "_raw", "git")
    meter.watch(Mirror, "_work", "mirror")
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder, "repository"))
        table = Table(meter, options.every)
        search = make_search(
            repository,
            [],
            f"experiments={options.experiments}",
            "alarm=null",
            proposer=Tinkerer(meter),
            view=table,
        )
        table.search = search
        if options.mlflow:
            search.mirror = create_mirror(search.config, repository, Path(folder, "runs"))
        print(" " * 11 + "".join(f"{name:>9}" for name in COLUMNS) + "   (ms an experiment)")
        search.run()
        kept = sum(e.kept for e in search.journal.experiments())
        print(f"{kept} of {len(search.journal.experiments()) - 1} kept")


if __name__ == "__main__":
    main()
