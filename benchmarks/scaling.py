"""Does a search slow down as its history grows? Thousands of experiments whose trials cost nothing.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --experiments 10000 --every 1000
    python -m benchmarks.scaling --experiments 1000 --mlflow

The loop, the journal, git, the judge and the prompt are the real ones; only training is a stub that reads the
score from the script. For each part of the search the table shows milliseconds an experiment: in the whole,
and of these in reading and writing the journal, in git, in what the mirror does (with --mlflow: writing a
real store, in its own thread), in assembling the prompt of a language model, and, once at the end of each
part, in the page of the report, divided by the experiments that are on it. `cpu` is the processor time of the
program itself, without that of git; unlike the others it hardly depends on what else the machine does. Then
follow the memory of the program, and of the repository with all that the search wrote: its size for each
experiment, and the objects of git that lie in files of their own. The last line compares the last part with
the second: the first one also learns what is learned once.
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

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.propose.base import Check, Context, Proposer
from autoresearch.propose.llm import prompt
from autoresearch.report.page import write_page
from autoresearch.search.loop import Search
from autoresearch.search.setup.open import create_mirror
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.tracking.mirror import Mirror
from autoresearch.types import Category, Edit, Experiment, Proposal
from tests.support.stub import PATH, Silent, make_repository, make_search

COLUMNS = ("whole", "journal", "git", "mirror", "prompt", "report", "cpu")
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
        self.meter, self.prompts = meter, prompt.Writer()

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        with self.meter.part("prompt"):
            self.prompts.build(context, LEDGER_TOKENS)
        number = len(context.history) + len(context.under_way)
        gains = number // EVERY
        level = 1.0 - 0.1 * gains + (0.0 if number % EVERY == 0 else 0.3 + number / 1e4)
        line = context.sources[PATH].splitlines()[0]
        edit = Edit(PATH, line, f"LEVEL = {level:.5f}  # 0..2")
        return [Proposal(f"level {level:.5f} instead", Category.KNOBS, (edit,), self.name, "it may help")]


class Table(Silent):
    """A view that prints a line for each part."""

    def __init__(self, meter: Meter, every: int) -> None:
        super().__init__()
        self.meter, self.every = meter, every
        self.search: Search | None = None
        self.begun, self.cpu = time.perf_counter(), time.process_time()
        self.lines: list[list[float]] = []

    def verdict(
        self, experiment: Experiment, incumbent_score: float, noise: float, needed: Callable[[], str] = str
    ) -> None:
        """See `autoresearch.types.View`."""
        if experiment.number % self.every or self.search is None:
            return
        seconds = self.meter.seconds
        seconds["whole"], seconds["cpu"] = time.perf_counter() - self.begun, time.process_time() - self.cpu
        begun = time.perf_counter()
        write_page(self.search.journal, self.search.repository)
        seconds["report"] = (time.perf_counter() - begun) * self.every / experiment.number
        cells = [1000 * seconds[column] / self.every for column in COLUMNS]
        root, first = self.search.repository.root, experiment.number - self.every + 1
        files = [path for path in root.rglob("*") if path.is_file()]
        disk = sum(path.stat().st_blocks * 512 for path in files) / 1e3 / experiment.number
        loose = sum(path.parent.parent.name == "objects" and len(path.parent.name) == 2 for path in files)
        memory = psutil.Process().memory_info().rss / 1e6
        print(
            f"{first:5d}-{experiment.number:<5d}" + "".join(f"{cell:9.1f}" for cell in cells)
            + f"{memory:9.0f}{disk:9.1f}{loose:9d}", flush=True,
        )  # fmt: skip
        self.lines.append(cells)
        seconds.clear()
        self.begun, self.cpu = time.perf_counter(), time.process_time()

    def growth(self) -> str:
        """The last part in times the second."""
        if len(self.lines) < 3:
            return "too few parts to see a growth"
        ratios = [
            last / first if first else 1.0 for first, last in zip(self.lines[1], self.lines[-1], strict=True)
        ]
        return "last/second" + "".join(f"{ratio:9.2f}" for ratio in ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--experiments", type=int, default=3000, help="how many (default: 3000)")
    parser.add_argument("--every", type=int, default=250, help="experiments a line (default: 250)")
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
        head = (*COLUMNS, "MB", "kB disk", "loose")
        print("ms of each" + "".join(f"{name:>9}" for name in head))
        search.run()
        print(table.growth())
        kept = sum(e.kept for e in search.journal.experiments())
        print(f"{kept} of {len(search.journal.experiments()) - 1} kept")


if __name__ == "__main__":
    main()
