"""A toy task for tests: a cache of made-up prose in raw bytes, and a tiny honest candidate (`honest.py`)."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np

import nanomodel
from autoresearch.tasks.base import Dataset
from autoresearch.types import Split

WORDS = ("the", "of", "and", "a", "to", "in", "was", "he", "that", "it", "his", "her", "with", "as", "had")

TRAIN = Path(__file__).with_name("honest.py").read_text()

COMPILER = '"torch._dynamo", '
"""In the list of what `nanomodel.standby` loads in advance."""

LEAN = """
import sys
import types

sys.modules.setdefault("torch._meta_registrations", types.ModuleType("torch._meta_registrations"))
"""
"""Lets torch be loaded in half the time, without what only its compilers need."""

SIZES = np.ones(256, np.uint16)
"""Bytes of text that each token stands for."""
SIZES[255] = 0


def prose(tokens: int, seed: int) -> np.ndarray:
    """Documents of random words as bytes, each after a separator: uint16 [tokens]."""
    rng = np.random.default_rng(seed)
    pieces: list[int] = []
    while len(pieces) < tokens:
        words = rng.choice(WORDS, size=rng.integers(20, 80))
        pieces += [255, *" ".join(words).encode(), ord(".")]
    return np.array(pieces[:tokens], np.uint16)


def write_cache(
    path: Path, train: int = 100_000, validation: int = 6_001, test: int = 3_000, held: int = 0
) -> Path:
    """Prepared data in raw bytes (vocabulary 256), in the format of `nanomodel.data.cache`."""
    path.mkdir(parents=True)
    splits = {}
    sizes = {"train": train, "validation": validation, "test": test, **({"held": held} if held else {})}
    for seed, (split, count) in enumerate(sizes.items()):
        tokens = prose(count, seed)
        tokens.astype("<u2").tofile(path / f"{split}.bin")
        documents = int((tokens == 255).sum())
        digest = hashlib.sha256((path / f"{split}.bin").read_bytes()).hexdigest()
        splits[split] = {
            "documents": documents,
            "tokens": count,
            "bytes": count - documents,
            "sha256": digest,
        }
    np.save(path / "token_bytes.npy", SIZES)
    (path / "tokenizer.json").write_text(json.dumps({"merges": []}))
    meta = {"format": 1, "key": "toy", "corpus": "toy", "vocab": 256, "splits": splits}
    (path / "meta.json").write_text(json.dumps(meta))
    return path


def write_code(path: Path, train: str = TRAIN) -> Path:
    """A candidate's tree: the real package with `train` as its training script.

    Its processes load no part of torch that only compilers need, unless the script compiles something, or
    looks for what was compiled.
    """
    source, target = Path(nanomodel.__file__).parent, path / "nanomodel"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "train.py"))
    (target / "train.py").write_text(train)
    if not re.search(r"\.compile|INDUCTOR", train):
        (target / "__init__.py").write_text((source / "__init__.py").read_text() + LEAN)
        standby = (source / "standby.py").read_text()
        assert COMPILER in standby
        (target / "standby.py").write_text(standby.replace(COMPILER, ""))
    return path


def dataset(path: Path) -> Dataset:
    """What `write_cache` wrote, as a task gives it."""
    about = json.loads((path / "meta.json").read_text())
    return Dataset(path, about, frozenset(map(Split, about["splits"])))
