"""A search on a real repository and journal whose trials cost nothing: the script is the score."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from autoresearch.config import Config, load
from autoresearch.execute.base import Executor, Measurer, Place, TrialSpec
from autoresearch.execute.load import LoadMeter, Look
from autoresearch.execute.local import LocalExecutor, exporter
from autoresearch.execute.places import places
from autoresearch.propose.base import Check, Context, Proposer, ProposerError
from autoresearch.search.loop import Search
from autoresearch.search.observers import EmptyInbox, Inbox, View
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal, SearchInfo
from autoresearch.tasks import create_task
from autoresearch.types import (
    Category,
    Edit,
    Experiment,
    Measurement,
    Outcome,
    Progress,
    Proposal,
    Trial,
)

PATH = "nanomodel/train.py"
SCRIPT = "LEVEL = 1.0  # 0..2\nOTHER = 0\nprint(LEVEL, OTHER)\n"
NOISE = 0.002
DOCUMENTS, SIZE = 16, 1000.0


def quiet_machine() -> LoadMeter:
    """Sees no other program, so that no trial of a test is excused, paused and repeated."""
    return LoadMeter(lambda: Look(time.monotonic(), 0.0, 0.0, 0.0))


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_all(root: Path) -> Path:
    """Make a repository of a folder, with all that is in it as the first commit."""
    git(root, "init", "-q", "-b", "main")
    with (root / ".git" / "config").open("a") as config:
        config.write("[user]\n\tname = Somebody\n\temail = somebody@example.org\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


@cache
def _template(script: str) -> TemporaryDirectory[str]:
    """What is copied, since git takes several times as long to make it."""
    folder = TemporaryDirectory(prefix="template")
    root = Path(folder.name)
    (root / PATH).parent.mkdir()
    (root / PATH).write_text(script)
    (root / ".gitignore").write_text("runs/\n")
    commit_all(root)
    return folder


def make_repository(root: Path, script: str = SCRIPT) -> Repository:
    shutil.copytree(_template(script).name, root, dirs_exist_ok=True)
    return Repository(root)


class StubMeasurer:
    """Scores 1 + LEVEL / 10 + seed noise; a script that says crash, diverge, cheat or meddle does so.

    One that says `instantly` fails in its tryout already.
    """

    def __init__(self) -> None:
        self.trained: list[tuple[str, int]] = []
        self.scored: list[Sequence[str]] = []  # the splits of submissions that were kept, scored later
        self.lucky = True  # the first run of a script with a BLUFF looks better than it is
        self.tried_out: list[str] = []
        self.thorough: list[str] = []
        self.on_run: Callable[[], None] = lambda: None

    def measure(
        self,
        tree: Path,
        spec: TrialSpec,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_stop: Callable[[Progress], bool] | None = None,
    ) -> Measurement:
        source, seed = (tree / PATH).read_text(), spec.seed
        self.thorough += [source] * spec.thorough
        kept = Path(spec.submission) if spec.submission else None
        if kept and kept.exists():
            source = kept.read_text()
            self.scored.append(spec.splits)
        else:
            self.trained.append((source, seed))
            self.on_run()
        if "crash" in source:
            return Measurement(Outcome.CRASH, reason="out of memory", log="boom")
        if "meddle" in source:
            (tree / PATH).write_text("LEVEL = -9")
        if "cheat" in source:
            return Measurement(Outcome.INVALID, reason="not causal")
        hopeless = "diverge" in source
        slow = _number("SLOW", source)
        curve = tuple((i / 20, slow + (9.0 if hopeless else 9.0 - 5 * i / 20)) for i in range(21))
        for fraction, loss in curve:
            sign = Progress(fraction, fraction, loss=loss)
            progress(sign)
            if should_stop and should_stop(sign):
                return Measurement(Outcome.PRUNE, reason=f"hopeless at {fraction:.0%}", curve=curve)
        found = re.search(r"LEVEL = ([-\d.e]+)", source)
        assert found
        noise = random.Random(f"{seed}").gauss(0, NOISE)
        score = 1.0 + float(found[1]) / 10 + slow / 10 + noise
        if gain := re.search(r"GAIN = ([-\d.e]+)", source):
            score -= float(gain[1])
        peek, notes = (_number(name, source) for name in ("PEEK", "NOTES"))
        score -= peek
        if (luck := re.search(r"BLUFF = ([\d.]+)", source)) and self.lucky:
            score, self.lucky = score - float(luck[1]), False
        scores = {split: score - notes * (split == "validation") for split in spec.splits}
        for number, (split, score) in enumerate(scores.items()):
            own = abs(hash(float(found[1])))  # programs differ on single documents
            chance = np.random.default_rng((seed, number, own)).normal(1.0, 0.0003, DOCUMENTS)
            losses = score * SIZE * chance * DOCUMENTS / chance.sum()
            np.save(scratch / f"{split}.npy", np.stack([losses, np.full(DOCUMENTS, SIZE)], axis=1))
        if spec.blind:  # a PEEK gains nothing where nothing is to be seen
            chance = np.random.default_rng(spec.blind_seed).normal(1.0, 0.2, 200)
            np.save(scratch / "blind.npy", np.stack([(score + peek + notes) * chance, np.ones(200)], axis=1))
        for guard in spec.guards:  # a HARM is seen on the guards alone
            chance = np.random.default_rng((seed, sum(guard.name.encode()))).normal(1.0, 0.001, DOCUMENTS)
            losses = (1.0 + _number("HARM", source) + 0.2 * noise) * SIZE * chance
            table = np.stack([losses, np.full(DOCUMENTS, SIZE), np.arange(DOCUMENTS)], axis=1)
            np.save(scratch / f"{guard.items}.npy", table)
        score, *_ = scores.values()
        metrics = {"train_seconds": 1.0, "score_seconds": 1.0, **{f"{s}_bpb": x for s, x in scores.items()}}
        metrics |= {
            guard.metric: float(np.load(scratch / f"{guard.items}.npy")[:, 0].sum() / SIZE / DOCUMENTS)
            for guard in spec.guards
        }
        del metrics[f"{spec.splits[0]}_bpb"]
        size = re.search(r"WEIGHTS = (\d+)", source)
        metrics["weights_mb"] = float(size[1]) if size else 1.0
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(source)
        log = "\n".join(re.findall(r'print\("(.*)"\)', source))
        return Measurement(Outcome.OK, score, metrics=metrics, curve=curve, log=log)

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        source = (tree / PATH).read_text()
        self.tried_out.append(source)
        if "instantly" in source:
            return Measurement(Outcome.CRASH, reason="shape error", log="mat1 and mat2")
        return Measurement(Outcome.OK)

    def close(self) -> None: ...


def _number(name: str, source: str) -> float:
    found = re.search(rf"{name} = ([-\d.e]+)", source)
    return float(found[1]) if found else 0.0


class OneAtATime(Proposer):
    """A proposer of which tests replace the method that makes one proposal."""

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        return [self.propose(context, check)]

    def propose(self, context: Context, check: Check) -> Proposal:
        raise NotImplementedError


class ScriptedProposer(OneAtATime):
    """Sets LEVEL to given values, or replaces OTHER's line by a given text; then has no more ideas."""

    name = "scripted"
    instant = True

    def __init__(self, ideas: Iterable[float | str]) -> None:
        self.ideas = list(ideas)
        self.asked: list[Context] = []

    def propose(self, context: Context, check: Check) -> Proposal:
        self.asked.append(context)
        tried = len(context.paid)
        if tried >= len(self.ideas):
            raise ProposerError("no more ideas")
        idea, lines = self.ideas[tried], context.sources[PATH].splitlines()
        if isinstance(idea, str):
            edit = Edit(PATH, lines[1], idea)
        else:
            edit = Edit(PATH, lines[0], f"LEVEL = {idea}  # 0..2")
        return Proposal(f"set {idea}", Category.KNOBS, (edit,), self.name)


class NoMirror:
    def sync(self, journal: object) -> None: ...


class Silent:
    """A view that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def message(self, text: str, *, warning: bool = False) -> None:
        self.said.append(text)

    def proposing(self, number: int, proposer: str) -> None: ...
    def experiment(self, experiment: Experiment) -> None: ...
    def trial(self, trial: Trial) -> None: ...
    def progress(self, trial: Trial, progress: Progress) -> None: ...
    def verdict(
        self, experiment: Experiment, incumbent_score: float, noise: float, needed: Callable[[], str] = str
    ) -> None: ...


@cache
def _config(*overrides: str) -> Config:
    return load(overrides, {})


def with_unseen_text(search: Search, slices: int = 9) -> Search:
    """The search, with so many slices of held-out text."""
    about = {"tokens": 24_000 * slices, "documents": 999}
    search.journal.update(data={"splits": {"validation": about, "held": about}})
    return search


def make_search(
    repository: Repository,
    ideas: Iterable[float | str],
    *overrides: str,
    instant: bool = True,
    proposer: Proposer | None = None,
    measurers: Mapping[str, Measurer] | None = None,
    view: View | None = None,
    inbox: Inbox | None = None,
    executor: Executor | None = None,
) -> Search:
    """A search ready to run; call again on the same repository to go on after a kill."""
    config = _config("name=x", "budget=smoke", "executor.device=cpu", "executor.workers=1", *overrides)
    folder = repository.root / "runs" / config.name
    base, task = repository.resolve("HEAD"), create_task(config)
    assert base
    if (folder / "journal.db").exists():
        journal = Journal(folder / "journal.db")
    else:
        info = SearchInfo(
            name=config.name, base_commit=base, branch=f"autoresearch/{config.name}", created=1.0,
            task="stub", brief=config.brief, brief_text="", config={}, data={}, device="none",
            metric=task.metric,
        )  # fmt: skip
        journal = Journal.create(folder / "journal.db", info)
    scripted = ScriptedProposer(ideas)
    scripted.instant = instant
    found = measurers or {place: StubMeasurer() for place in places(config)}
    local = LocalExecutor(
        {Place(name, "stub"): measurer for name, measurer in found.items()},
        folder.parent,
        exporter(repository, task.frozen),
    )
    return Search(
        config,
        task,
        repository,
        journal,
        executor or local,
        proposer or scripted,
        NoMirror(),
        view or Silent(),
        inbox or EmptyInbox(),
    )


def measurers(search: Search) -> list[StubMeasurer]:
    """The stubs at the places of a search."""
    assert isinstance(search.executor, LocalExecutor)
    return [m for m in search.executor.measurers.values() if isinstance(m, StubMeasurer)]


def measurer(search: Search) -> StubMeasurer:
    """The stub at the only place."""
    [only] = measurers(search)
    return only


def scripted(search: Search) -> ScriptedProposer:
    """The proposer of a search."""
    assert isinstance(search.proposer, ScriptedProposer)
    return search.proposer


def said(search: Search) -> list[str]:
    """What a search has told its view."""
    assert isinstance(search.view, Silent)
    return search.view.said
