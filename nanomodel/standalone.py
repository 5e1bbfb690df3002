"""`python -m nanomodel.train` without a runner: read the prepared cache, keep the clock, score at the end.

For a person who wants to try an edit, on this machine or on one that has nothing but torch, numpy and a
copied cache. The score comes from the same scorer, in a fresh process, but nothing is sandboxed here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanomodel.data import Prepared, open_cache
from nanomodel.wire import Message

CACHES = Path("runs/cache")


class Standalone:
    """A host for `harness.Run` made from command-line arguments."""

    def __init__(self, options: argparse.Namespace, cache: Prepared) -> None:
        self._options = options
        self._cache = cache
        self._folder = tempfile.TemporaryDirectory(prefix="nanomodel-")
        # The weights are a file in the working folder, here as under a runner; the person's stays clean.
        self._code = Path.cwd()
        os.chdir(self._folder.name)

    @classmethod
    def from_arguments(cls, arguments: Sequence[str] | None = None) -> Standalone:
        """Read the command line (`--help` explains it) and open the cache.

        Raises:
            SystemExit: For bad arguments, or if there is no cache.
        """
        options = _parser().parse_args(arguments)
        folder = options.cache or os.environ.get("NANOMODEL_CACHE") or _newest_cache()
        if folder is None:
            raise SystemExit(
                f"There is no prepared data in ./{CACHES}. Prepare it, or say where it is: --cache FOLDER"
            )
        return cls(options, open_cache(Path(folder).resolve()))

    def task(self) -> Mapping[str, Any]:
        """The task that the arguments describe."""
        options = self._options
        seconds = options.tokens is None
        return {
            "seed": options.seed,
            "device": options.device,
            "threads": options.threads,
            "vocab": self._cache.vocab,
            "context": options.context,
            "budget": {
                "kind": "seconds" if seconds else "tokens",
                "amount": options.seconds if seconds else options.tokens,
            },
            "compile": options.compile,
        }

    def start(self) -> NDArray[np.uint16]:
        """The training split."""
        return self._cache.tokens("train")

    def log(self, message: Message) -> None:
        """Nobody to tell: the harness prints."""

    def submit(self, weights: Path, metrics: Mapping[str, float]) -> None:
        """Print the numbers, and have the weights scored in a fresh process."""
        for name, value in metrics.items():
            print(f"{name:20s} {value:,.6g}")
        if self._options.out:
            (self._code / self._options.out).write_bytes(weights.read_bytes())
        if self._options.score:
            command = [
                sys.executable,
                "-m",
                "nanomodel.score",
                "--cache",
                str(self._cache.path),
                "--weights",
                str(weights),
            ]
            command += ["--context", str(self._options.context), "--device", self._options.device]
            done = subprocess.run(command, cwd=self._code, check=False)
            if done.returncode:
                raise SystemExit(done.returncode)


def _newest_cache() -> Path | None:
    found = [path.parent for path in CACHES.glob("*/meta.json")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nanomodel.train", description="Train and score, without a search."
    )
    parser.add_argument(
        "--cache", help="prepared data (default: $NANOMODEL_CACHE, or the newest in ./runs/cache)"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=20.0, help="train this long (default: 20)")
    budget.add_argument("--tokens", type=float, help="train on this many tokens instead")
    parser.add_argument("--context", type=int, default=256, help="tokens the model is scored on at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="do not use torch.compile")
    parser.add_argument("--no-score", dest="score", action="store_false", help="do not score the weights")
    parser.add_argument("--out", help="keep the weights in this file")
    return parser
