"""Trainings of scripts in this process, through the harness: no sandbox, no servers, the same scores.

`trained` trains and scores one script once. A `Bank` keeps trainings in a folder, so that each is made once,
whoever asks for it. The scripts are this repository's own and edits of them that a benchmark makes: nothing
here protects against a script. A search's measurement (`autoresearch.tasks.gpt`) gives the same score for the
same tokens and seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the script chooses the size of its model by the devices it sees
import numpy as np
import torch
from numpy.typing import NDArray

from autoresearch.store.files import losses_folder
from nanomodel import harness, train
from nanomodel.bench import read_budget
from nanomodel.data import DataSpec, Prepared, prepare
from nanomodel.data.token_budget import PASSAGE, draw_tokens
from nanomodel.scoring.bits_per_byte import Score, cross_entropy, summed
from nanomodel.scoring.windows import Windows

ROOT = Path(__file__).resolve().parents[1]
ROWS = 16


@dataclass(frozen=True)
class Training:
    """One training: a seed for each source of chance.

    Attributes:
        init: Of the initial weights.
        which: Of the passages that are drawn.
        order: Of where in the sequence of passages the training begins; passages keep their neighbours. None:
            at its beginning, as in a search.
        threads: CPU threads.
        spread: Whether passages are spread evenly over the corpus, as in a search, or drawn one by one.
    """

    init: int
    which: int
    order: int | None = None
    threads: int = 1
    spread: bool = True


class Runner:
    """Gives the harness one training, and takes its weights; see `nanomodel.runner.Runner`."""

    def __init__(self, training: Training, cache: Prepared, budget: Mapping[str, Any]) -> None:
        self.training, self.cache, self.budget = training, cache, budget
        self.weights: dict[str, torch.Tensor] = {}

    def task(self) -> Mapping[str, Any]:
        """The task message of the harness."""
        return {
            "seed": self.training.init,
            "device": "cpu",
            "threads": self.training.threads,
            "vocab": self.cache.vocab,
            "context": self.budget["context"],
            "budget": {"kind": "tokens", "amount": self.budget["amount"]},
            "compile": False,
            "ration": True,
        }

    def start(self) -> NDArray[np.uint16]:
        """The tokens that a training with these seeds reads."""
        tokens, amount = self.cache.tokens("train"), int(self.budget["amount"])
        if self.training.order is None and self.training.spread:
            return draw_tokens(tokens, amount, self.training.which)
        count = -(-(amount + 1) // PASSAGE)
        drawn = draw_tokens(tokens, count * PASSAGE - 1, self.training.which)
        if not self.training.spread:
            starts = np.random.default_rng(self.training.which).integers(
                len(tokens) - PASSAGE + 1, size=count
            )
            drawn = np.asarray(tokens[starts[:, None] + np.arange(PASSAGE)].reshape(-1), np.uint16)
        turn = int(np.random.default_rng((self.training.order or 0, 1)).integers(count))
        return np.roll(drawn, turn * PASSAGE)[: amount + 1]

    def log(self, message: Mapping[str, Any]) -> None:
        """Do nothing: the harness prints the log."""

    def submit(self, weights: Path, metrics: Mapping[str, float]) -> None:
        """Keep the weights."""
        self.weights = torch.load(weights, weights_only=True)


def prepared(budget: Mapping[str, Any]) -> Prepared:
    """The default corpus, or the text whose path `budget["text"]` says, prepared for a budget."""
    text = budget.get("text")
    data = read_budget(str(ROOT / f"configs/data/{'file' if text else 'sotu'}.yaml")) | {"other_path": None}
    data |= {"path": text} if text else {}
    keys = [key for key in ("vocab", "validation_tokens", "test_tokens") if key in budget]
    spec = DataSpec.from_dict(data | {key: budget[key] for key in keys})
    return prepare(spec, Path(tempfile.gettempdir()) / "noise-cache")


def trained(
    training: Training,
    cache: Prepared,
    budget: Mapping[str, Any],
    script: ModuleType = train,
    split: str = "validation",
) -> Score:
    """Train a script, and score it on a split as the scorer does."""
    runner, connect, home = Runner(training, cache, budget), harness.connect, Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        os.chdir(folder)
        harness.connect = lambda: harness.Run(runner)
        try:
            script.main()
        finally:
            harness.connect = connect
            os.chdir(home)
    model = script.build_model(cache.vocab, budget["context"])
    model.load_state_dict(runner.weights)
    windows = Windows(cache.tokens(split), cache.token_bytes, budget["context"])
    nats = np.empty((len(windows), windows.length), np.float32)
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(windows)), -(-len(windows) // ROWS)):
            logits = model.eval()(torch.from_numpy(windows.inputs(rows)))
            nats[rows] = cross_entropy(logits, torch.from_numpy(windows.targets(rows))).numpy()
    return summed(windows, nats, 0.0)


def module_of(source: str) -> ModuleType:
    """A training script as a module."""
    script = ModuleType("script")
    exec(compile(source, "train.py", "exec"), vars(script))
    return script


@dataclass(frozen=True)
class Trial:
    """One training that a bank holds.

    Attributes:
        number: Its losses lie in `losses_folder(bank.folder, number)`.
        score: In bits per byte.
        seconds: Processor time of training and scoring; 0 in a bank of an older version.
    """

    number: int
    score: float
    seconds: float = 0.0


class Bank:
    """Trainings of scripts on one budget, kept in a folder like the losses of a search."""

    def __init__(self, folder: Path, budget: Mapping[str, Any]) -> None:
        """Open a folder, or begin one.

        Raises:
            SystemExit: If it holds trainings of another budget.
        """
        self.folder, self.budget = folder, dict(budget)
        folder.mkdir(parents=True, exist_ok=True)
        self._index, told = folder / "trainings.jsonl", folder / "budget.json"
        if told.exists() and json.loads(told.read_text()) != self.budget:
            raise SystemExit(f"{folder} holds trainings of another budget; name another folder.")
        told.write_text(json.dumps(self.budget))
        lines = self._index.read_text().splitlines() if self._index.exists() else []
        rows = map(json.loads, lines)
        self._known = {
            (r["script"], r["seed"], r.get("split", "validation")): Trial(
                r["number"], r["score"], r.get("seconds", 0.0)
            )
            for r in rows
        }
        self._cache: Prepared | None = None

    def measure(self, source: str, seed: int, split: str = "validation") -> Trial:
        """The training of a script with a seed, scored on a split; it is made now if there is none."""
        key = hashlib.sha256(source.encode()).hexdigest()[:16], seed, split
        if key not in self._known:
            if self._cache is None:
                self._cache = prepared(self.budget)
                trained(Training(0, 0), self._cache, self.budget)  # the first one loads what all others use
            begun = time.process_time()
            score = trained(Training(seed, seed), self._cache, self.budget, module_of(source), split)
            trial = Trial(len(self._known) + 1, score.bits_per_byte, time.process_time() - begun)
            folder = losses_folder(self.folder, trial.number)
            folder.mkdir(parents=True, exist_ok=True)
            table = np.column_stack([score.nats, score.bytes * np.log(2.0), score.documents])
            np.save(folder / f"{split}.items.npy", table)
            row = {
                "number": trial.number,
                "script": key[0],
                "seed": seed,
                "score": trial.score,
                "split": split,
                "seconds": trial.seconds,
            }
            with self._index.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self._known[key] = trial
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)
