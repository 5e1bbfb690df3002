"""Which proposer gains most on the real task, at equal training time? The portfolio, its members, and random.

    OMP_NUM_THREADS=1 python -m benchmarks.proposers_real FOLDER
    OMP_NUM_THREADS=1 python -m benchmarks.proposers_real FOLDER --seeds 1 2 3 --arms random local

Each search begins with three baselines and ends when its trainings have used as much processor time as
`--trainings` of the starting script. A candidate that needs more than twice the time of the slowest baseline
counts as failed, as in a search. Then start and result are trained on fresh common seeds and scored on the
test split. The members are Optuna's local sampler and its TPE, which tune the script's knobs, and the shelf
(`configs/shelf`), which stands in for a model: it proposes its changes of code in an order that the seed
draws, and then has none left; a search that has only the shelf ends there. The table shows the gain on the
test split, as the mean over seeds with its standard error, and the paired differences to the portfolio.

Proposers, judge and trainings are the real ones; the trainings are made in this process, each once, and kept
in FOLDER, from where an interrupted run goes on. Left out: sandboxes, early stopping, the look at unseen text
before a keep. The judge is not told that a faster machine makes no better score, as it is in a search.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from autoresearch.config import load
from autoresearch.edit.apply import apply
from autoresearch.edit.patch import edits_from_patch
from autoresearch.edit.python import net_size
from autoresearch.edit.rules import check as check_rules
from autoresearch.errors import Refused
from autoresearch.judge import Judge, Observation, create_judge
from autoresearch.propose import create_proposer, settings
from autoresearch.propose.base import Context, Proposer, ProposerError
from autoresearch.store.files import document_losses, losses_folder
from autoresearch.tasks.gpt.task import GptTask
from autoresearch.tasks.gpt.words import prompt_text
from autoresearch.types import (
    Arm,
    Category,
    Experiment,
    Measurement,
    Outcome,
    Proposal,
    State,
    Trial,
    Verdict,
    VerdictKind,
)
from benchmarks.judge_gain import sealed_gain
from benchmarks.no_change import SCRIPT
from benchmarks.trainings import ROOT, Bank
from nanomodel.bench import read_budget

ARMS = ("random", "local", "tpe", "shelf", "portfolio")
BASELINES = 3
SLOWDOWN = 2.0
TEST_TOKENS = 65536


@dataclass(frozen=True)
class Found:
    """What one search came to.

    Attributes:
        experiments: Candidates with a verdict.
        trainings: All that it made, baselines included.
        kept: Hypotheses of what it kept.
        gain: Of the result over the start, on fresh seeds and the test split.
    """

    experiments: int
    trainings: int
    kept: tuple[str, ...]
    gain: float


def proposer_of(arm: str, seed: int, folder: Path) -> Proposer:
    """One member as a search has it, random, or the portfolio of all members."""
    shelf = folder / "shelf.jsonl"
    patches = sorted((ROOT / "configs/shelf").glob("*.patch"))
    random.Random(seed).shuffle(patches)
    shelf.write_text("".join(_recorded(patch) for patch in patches))
    members: dict[str, dict[str, Any]] = {
        "local": {"name": "optuna", "label": "optuna-local", "sampler": "local"},
        "tpe": {"name": "optuna", "label": "optuna-tpe", "sampler": "tpe"},
        "shelf": {"name": "replay", "path": str(shelf)},
        "random": {"name": "random"},
    }
    chosen = [members[arm]] if arm in members else [members[name] for name in ("local", "tpe", "shelf")]
    return create_proposer("portfolio", column=0, **settings("portfolio") | {"members": chosen})


def _recorded(patch: Path) -> str:
    source = (ROOT / SCRIPT).read_text()
    edits = edits_from_patch(patch.read_text(), {SCRIPT: source})
    return json.dumps(Proposal(patch.stem, Category.ARCHITECTURE, edits, "replay").to_dict()) + "\n"


class Search:
    """One search: a proposer and the default judge, with trainings from a bank."""

    def __init__(self, bank: Bank, seed: int, trainings: float) -> None:
        """Train the baselines."""
        self.bank, self.seed = bank, seed
        self.start = self.tip = (ROOT / SCRIPT).read_text()
        seeds = range(100 * seed, 100 * seed + BASELINES)
        runs = {s: bank.measure(self.start, s) for s in seeds}
        self.limit = SLOWDOWN * max(run.seconds for run in runs.values())
        self.left = trainings * mean(run.seconds for run in runs.values())
        self.left -= sum(run.seconds for run in runs.values())
        self.trainings = BASELINES
        baseline = [(s, r.score) for s, r in runs.items()]
        self.judge: Judge = create_judge(baseline=baseline, **load([], {}).judge)
        parts = {s: self._documents(r.number) for s, r in runs.items()}
        self.judge.with_items(parts[seeds[0]][1], {s: losses for s, (losses, _) in parts.items()})
        trials = tuple(
            Trial(i, 0, Arm.BASELINE, s, "0", 0, r.seconds, Measurement(Outcome.OK, r.score))
            for i, (s, r) in enumerate(runs.items())
        )
        self.history = [Experiment(0, State.RECORDED, "", 0, "0", trials=trials)]

    def _documents(self, number: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return document_losses(losses_folder(self.bank.folder, number))

    def run(self, proposer: Proposer) -> Found:
        """Search until the training time is used, or the proposer has nothing left."""
        while self.left > 0 and (experiment := self._try(proposer)) is not None:
            self.history.append(experiment)
            proposer.tell(experiment)
        kept = tuple(e.proposal.hypothesis for e in self.history if e.kept and e.proposal)
        gain = sealed_gain(self.bank, self.start, self.tip).effect if kept else 0.0
        return Found(len(self.history) - 1, self.trainings, kept, gain)

    def _try(self, proposer: Proposer) -> Experiment | None:
        """The next experiment; None if there is no proposal, or no time to decide on it."""
        incumbent, number = self.tip, len(self.history)

        def text_of(proposal: Proposal) -> str:
            new = apply({SCRIPT: incumbent}, proposal.edits)
            check_rules({SCRIPT: incumbent}, new, [SCRIPT])
            return new[SCRIPT]

        try:
            proposal = proposer.ask(self._context(), lambda found: (text_of(found), None)[1])[0]
        except (ProposerError, Refused):
            return None
        text = text_of(proposal)
        growth = net_size({SCRIPT: incumbent}, {SCRIPT: text})
        self.judge.candidate(growth, proposal.category, number)
        verdict, trials = None, list[Trial]()
        while verdict is None:
            if self.left <= 0:
                return None
            want = self.judge.next()
            assert want is not None, "the only answer is here, so the judge asks for a training"
            own = want.arm is not Arm.INCUMBENT
            seconds, seen = self._train(text if own else incumbent, want.seed)
            result = Measurement(seen.outcome, seen.score)
            trials.append(Trial(len(trials), number, want.arm, want.seed, f"{number}", 0, seconds, result))
            verdict = self.judge.observe(want, seen)
        self.tip = text if verdict.kind is VerdictKind.KEEP else incumbent
        return self._experiment(number, proposal, verdict, trials)

    def _experiment(
        self, number: int, proposal: Proposal, verdict: Verdict, trials: Sequence[Trial]
    ) -> Experiment:
        parent = [e.commit for e in self.history if e.kept or not e.number][-1]
        return Experiment(
            number, State.RECORDED, parent, 0, f"{number}", proposal, verdict, trials=tuple(trials)
        )

    def _train(self, text: str, seed: int) -> tuple[float, Observation]:
        """Processor time of one training, and what the judge hears of it."""
        try:
            run = self.bank.measure(text, seed)
        except Exception as error:
            print(f"failed: {error}", flush=True)
            seconds, seen = self.limit / SLOWDOWN, Observation.failed()
        else:
            seconds, seen = run.seconds, Observation.finished(run.score, self._documents(run.number)[0])
            if seconds > self.limit:
                seconds, seen = self.limit, Observation.failed()
        self.trainings += 1
        self.left -= seconds
        return seconds, seen

    def _context(self) -> Context:
        report = self.judge.report()
        return Context(
            "bench",
            "",
            {SCRIPT: self.tip},
            {SCRIPT: self.start},
            tuple(self.history),
            report.incumbent.mean,
            report.noise or 0.0,
            seed=self.seed,
            task=prompt_text(""),
            metric=GptTask.metric,
        )


def searches(
    folder: Path, seed: int, trainings: int, arms: Sequence[str], budget: dict[str, object]
) -> dict[str, Found]:
    """A search of each arm with one seed; what they train alike is trained once."""
    bank = Bank(folder / str(seed), budget)
    found = {}
    for arm in arms:
        found[arm] = Search(bank, seed, trainings).run(proposer_of(arm, seed, bank.folder))
        print(f"<!-- seed {seed}, {arm}: {found[arm]} -->", flush=True)
    return found


def table(found: dict[int, dict[str, Found]]) -> str:
    """One row for each arm."""
    lines = [
        "| proposer | searches | experiments, kept (mean) | gain on the test split | portfolio less that |",
        "|---|---|---|---|---|",
    ]
    arms = list(dict.fromkeys(arm for each in found.values() for arm in each))
    for arm in arms:
        mine = [each[arm] for each in found.values() if arm in each]
        pairs = [e["portfolio"].gain - e[arm].gain for e in found.values() if {arm, "portfolio"} <= e.keys()]
        counts = f"{mean(f.experiments for f in mine):.1f}, {mean(len(f.kept) for f in mine):.1f}"
        gain = told([f.gain for f in mine])
        less = told(pairs) if pairs and arm != "portfolio" else ""
        lines.append(f"| {arm} | {len(mine)} | {counts} | {gain} | {less} |")
    return "\n".join(lines)


def told(values: Sequence[float]) -> str:
    """Mean and standard error."""
    if len(values) < 2:
        return f"{values[0]:+.4f}"
    return f"{mean(values):+.4f} ± {stdev(values) / len(values) ** 0.5:.4f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make all searches, and print the table after each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trainings are kept")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5, 6])
    parser.add_argument(
        "--trainings", type=int, default=40, help="time of each search, in trainings of the start"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--budget", default="smoke", help="a name in configs/budget, with tokens")
    parser.add_argument("--set", nargs="*", default=["amount=32768", "validation_tokens=32768"], help="of it")
    parser.add_argument("--workers", type=int, default=2, help="searches at a time")
    options = parser.parse_args(arguments)
    changes = {name: int(value) for name, _, value in (text.partition("=") for text in options.set)}
    budget = dict(read_budget(options.budget)) | {"test_tokens": TEST_TOKENS} | changes
    found: dict[int, dict[str, Found]] = {}
    with ProcessPoolExecutor(options.workers) as pool:
        rest = options.trainings, options.arms, budget
        jobs = {pool.submit(searches, options.folder, seed, *rest): seed for seed in options.seeds}
        for job in as_completed(jobs):
            found[jobs[job]] = job.result()
            print(table(found) + "\n", flush=True)


if __name__ == "__main__":
    main()
