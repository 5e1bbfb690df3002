"""`python -m nanomodel.train` without a runner: read the prepared cache, keep the clock, score at the end.

A person can try an edit with it, on this machine or on one that has only torch, numpy and a copied cache. The
same scorer computes the score, in new processes, but without any sandbox. Warnings are for people; the runner
does not use them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanomodel.data import DataError, Prepared, open_cache
from nanomodel.data.token_budget import draw_tokens
from nanomodel.device import choose_device, describe, use_own_compile_cache
from nanomodel.wire import Message

CACHES = Path("runs/cache")


EPOCHS = 4.0
"""Text that is read more often than this teaches less and less (Muennighoff et al. 2023)."""


class Standalone:
    """Does what a runner does for `harness.Run`, from command-line arguments."""

    def __init__(self, options: argparse.Namespace, cache: Prepared) -> None:
        self._options = options
        self._cache = cache
        # The weights are a file in the working folder, as under a runner; so work in a temporary folder.
        self._home = Path.cwd()
        self._folder = tempfile.TemporaryDirectory(prefix="nanomodel-")
        os.chdir(self._folder.name)
        self._at: dict[str, float] = {}

    @classmethod
    def from_arguments(cls, arguments: Sequence[str] | None = None) -> Standalone:
        """Read the command line (`--help` explains it) and open the cache.

        Raises:
            SystemExit: For bad arguments, or if there is no cache.
        """
        options = _train_parser().parse_args(arguments)
        if options.device == "cpu" and choose_device("auto").type == "cuda":
            # The script has already chosen its knobs, by what PyTorch sees.
            raise SystemExit(
                "This would train the GPU's model on the CPU. Hide the GPU: CUDA_VISIBLE_DEVICES=-1"
            )
        cache = open_prepared(options.cache, options.vocab)
        if options.compile is None:  # on a CPU it takes a minute, for seconds of training
            options.compile = choose_device(options.device).type == "cuda"
        if options.compile and (said := use_own_compile_cache()):
            print(said, file=sys.stderr)
        if options.vocab not in (None, cache.vocab):
            message = f"The data in {cache.path} has a vocabulary of {cache.vocab}, not {options.vocab}."
            raise SystemExit(f"{message} Prepare some that has, or say --cache FOLDER")
        return cls(options, cache)

    def task(self) -> Mapping[str, Any]:
        """The task that the arguments describe."""
        self._at.setdefault("connected", time.monotonic())
        options = self._options
        amounts = {"seconds": options.seconds, "tokens": options.tokens}
        kind = "seconds" if options.tokens is None else "tokens"
        return {
            "seed": options.seed,
            "device": options.device,
            "threads": options.threads,
            "vocab": self._cache.vocab,
            "context": options.context,
            "budget": {"kind": kind, "amount": amounts[kind]},
            "compile": options.compile,
            "ration": kind == "tokens",
        }

    def start(self) -> NDArray[np.uint16]:
        """The training split."""
        tokens: NDArray[np.uint16] = self._cache.tokens("train")
        if self._options.tokens is not None:
            tokens = draw_tokens(tokens, int(self._options.tokens), self._options.seed)
        self._at["started"] = time.monotonic()
        return tokens

    def log(self, message: Message) -> None:
        """Do nothing: the harness prints the log."""

    def submit(self, weights: Path, metrics: Mapping[str, float]) -> None:
        """Print and write the numbers, and score the weights in new processes."""
        self._at["submitted"] = time.monotonic()
        for name, value in metrics.items():
            print(f"{name:20s} {value:,.6g}", flush=True)
        warnings = compile_warnings(metrics) if self._options.compile else []
        warnings += repetition_warnings(metrics)
        for warning in warnings:
            print(f"WARNING: {warning}", flush=True)
        device = choose_device(self._options.device)
        task = {name: value for name, value in self.task().items() if name != "seed"}
        cache = self._cache
        data = {"path": str(cache.path), "corpus": cache.corpus, "vocab": cache.vocab, "key": cache.key}
        record: dict[str, Any] = {"machine": describe(device), "task": task, "data": data}
        record |= {"warnings": warnings, "at": self._at, "metrics": dict(metrics)}
        self._write(record)
        if self._options.out:
            (self._home / self._options.out).write_bytes(weights.read_bytes())
        if self._options.score:
            command = [sys.executable, "-m", "nanomodel.score", "--cache", str(self._cache.path.resolve())]
            command += ["--weights", str(weights), "--context", str(self._options.context)]
            command += ["--device", self._options.device, "--threads", str(self._options.threads)]
            scored = Path("score.json").resolve()
            done = subprocess.run([*command, "--json", str(scored)], cwd=self._home, check=False)
            if done.returncode:
                raise SystemExit(done.returncode)
            record["metrics"]["val_bpb"] = json.loads(scored.read_text("utf-8"))["bits_per_byte"]
            self._write(record)

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._options.json:
            (self._home / self._options.json).write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def open_prepared(cache: str | None, vocab: int | None = None) -> Prepared:
    """Open prepared data, and say on stderr which.

    Args:
        cache: The folder of the data, or one that holds such folders; None: what $NANOMODEL_CACHE names, or
            ./runs/cache. Of several, the newest is taken.
        vocab: The vocabulary that it should have; of several, those that have it come first.

    Raises:
        SystemExit: If there is no prepared data.
    """
    named = os.environ.get("NANOMODEL_CACHE") if cache is None else cache
    folder = CACHES if named is None else Path(named).expanduser()
    places = [path.parent for path in (folder / "meta.json", *folder.glob("*/meta.json")) if path.is_file()]
    places.sort(key=lambda path: (path == folder, path.stat().st_mtime), reverse=True)
    if named is None and not places:
        raise SystemExit(f"There is no prepared data in ./{CACHES}. Prepare it, or say --cache FOLDER")
    try:
        found = [open_cache(place.resolve()) for place in places or [folder]]
    except DataError as error:
        raise SystemExit(f"{error} {error.hint}".strip()) from None
    chosen = next((data for data in found if data.vocab == vocab), found[0])
    also = f" (the newest of {len(found)}; --cache takes another)" if len(found) > 1 else ""
    print(f"data: {chosen.corpus}, vocabulary {chosen.vocab}, in {chosen.path}{also}", file=sys.stderr)
    return chosen


def common_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Options that training and scoring share."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--cache", help="data (default: $NANOMODEL_CACHE, or newest in ./runs/cache)")
    parser.add_argument("--context", type=int, default=256, help="tokens read at a time in scoring")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    parser.add_argument("--json", help="write the numbers into this file as well")
    return parser


def _train_parser() -> argparse.ArgumentParser:
    parser = common_parser("nanomodel.train", "Train a model, and score it.")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=20.0, help="train this long (default: 20)")
    budget.add_argument("--tokens", type=float, help="train on this many tokens instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vocab", type=int, help="refuse data of another vocabulary")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="use torch.compile (default: on a GPU)"
    )
    parser.add_argument("--no-score", dest="score", action="store_false", help="do not score the weights")
    parser.add_argument("--out", help="keep the weights in this file")
    return parser


def compile_warnings(metrics: Mapping[str, float]) -> list[str]:
    """One sentence for each problem in compiling; torch continues without it, but much slower.

    Args:
        metrics: What the harness reported of a training that was to be compiled.
    """
    if not metrics.get("compiled_graphs"):
        return ["Nothing was compiled, though it was to be."]
    causes = {
        "compile_failures": "{:.0f} functions could not be compiled.",
        "graph_breaks": "The compiled step has {:.0f} graph breaks.",
        "recompiles": "{:.0f} functions were compiled again after the clock had started.",
    }
    return [text.format(metrics[name]) for name, text in causes.items() if metrics.get(name)]


def repetition_warnings(metrics: Mapping[str, float]) -> list[str]:
    """Say if the training data was too small for the budget: one sentence, or none."""
    epochs = metrics.get("epochs", 0.0)
    if epochs <= EPOCHS:
        return []
    return [
        f"The training data was read {epochs:.0f} times over, so changes that help to memorise it win. "
        "Prepare more text (data=file data.path=..., or data=climbmix), or train for less time."
    ]
