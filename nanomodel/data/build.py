"""Preparation, top to bottom: read, group near-duplicates, split, train the tokenizer, encode, write.

Invariants: the tokenizer sees training text only; memory does not grow with the text of the corpus (it keeps
about 200 bytes for each document); equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nanomodel.data.cache import FORMAT, GUARDS, SEPARATOR, SPLITS, TOKEN, Prepared, open_cache
from nanomodel.data.corpora import Corpus, open_corpus
from nanomodel.data.documents import DocumentFile, Ints
from nanomodel.data.duplicates import Sketcher, group
from nanomodel.data.progress import Report
from nanomodel.data.spec import DataError, DataSpec
from nanomodel.data.splits import Hashes, content_hash, hold_out
from nanomodel.data.staging import locked, staged, sweep
from nanomodel.data.tokenizer import PATTERN, Encoder, Tokens, train

RECIPE = 4
"""Raise this whenever the code would make other data from the same inputs."""
LIBRARIES = ("rensa", "rustbpe", "tiktoken")
BATCH_BYTES = 4 << 20
GUARD_SHARE = 4
"""The slice held back is this many times smaller than the validation split."""
EXCERPT = 2048
"""Tokens of a document that are enough, while there are other documents: a score rests on their number."""
LEAST = 64
"""Tokens of a document below which it says nothing."""
OTHER_BYTES = 8192


def prepare(spec: DataSpec, cache: Path, progress: Report) -> Prepared:
    """See `nanomodel.data.prepare`."""
    cache = Path(cache)
    corpus = open_corpus(spec, cache / "downloads")
    key = _key(spec, corpus)
    if not (cache / key).exists():
        try:
            _prepare_once(spec, corpus, cache, key, progress)
        except OSError as error:
            raise DataError(
                f"Cannot write prepared data into {cache}: {error.strerror or error}.",
                "Free some space (up to three times the size of the text) or give another folder.",
            ) from error
    return open_cache(cache / key)


def _prepare_once(spec: DataSpec, corpus: Corpus, cache: Path, key: str, progress: Report) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache, key, lambda: progress("Waiting: another process prepares the same data", 0, 0)):
        if (cache / key).exists():
            return
        sweep(cache)
        with staged(cache, key) as folder, DocumentFile(folder / "documents") as texts:
            _build(spec, corpus, key, folder, texts, progress)


def _key(spec: DataSpec, corpus: Corpus) -> str:
    """A readable name with a hash of everything that decides the result."""
    options = asdict(spec)
    for name in ("path", "other_path", "url", "shards", "shards_available"):
        options.pop(name)  # the identity of the corpus replaces them
    identities = [corpus.identity(), *([_other_corpus(spec).identity()] if spec.other_path else [])]
    recipe = [FORMAT, RECIPE, options, identities, [version(name) for name in LIBRARIES]]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return f"{spec.corpus}-{spec.vocab}-{digest[:12]}"


def _build(
    spec: DataSpec, corpus: Corpus, key: str, folder: Path, texts: DocumentFile, progress: Report
) -> None:
    hashes, sizes, groups = _read(corpus, texts, progress)
    validation, test = hold_out(hashes, sizes, groups, spec.validation_fraction, spec.test_fraction)
    sample = _sample(_others(len(sizes), validation, test), sizes, spec.tokenizer_bytes)
    merges = train(_texts(texts, sample, sizes, progress), spec.vocab)
    encoder = Encoder(merges)
    held = _held_out(spec, validation, test, texts, encoder)
    rest = Excerpts(_others(len(sizes), *([part.documents] for part in held.values())))
    chosen = {"train": rest, **held}
    splits = {
        split: _write(folder / f"{split}.bin", split, chosen[split], sizes, texts, encoder, progress)
        for split in (*SPLITS, *GUARDS)
        if split in chosen
    }
    if spec.other_path:
        splits["other"] = _write_other(spec, folder, encoder, progress)
    _describe(spec, key, folder, splits, merges, encoder, len(sizes) - int(groups.max()) - 1)


def _read(corpus: Corpus, texts: DocumentFile, progress: Report) -> tuple[Hashes, Ints, Ints]:
    """Copy the corpus into the file; returns the hash, the size and the group of each document."""
    sketcher, hashes = Sketcher(), []
    for raw in corpus.documents(progress):
        texts.add(raw)
        sketcher.add(raw)
        hashes.append(content_hash(raw))
    if not hashes:
        raise DataError("The corpus is empty: it has no text.", "Give files that have some.")
    progress("Looking for near-duplicates", 0, 0)
    return np.array(hashes, np.uint64), texts.finish(), group(sketcher.finish())


def _others(count: int, *taken: list[Ints]) -> Ints:
    """The numbers of all documents but these, in order."""
    free = np.ones(count, np.bool_)
    for groups in taken:
        for documents in groups:
            free[documents] = False
    return np.flatnonzero(free)


def _sample(documents: Ints, sizes: Ints, limit: int) -> Ints:
    """Documents spread evenly over the corpus, of about `limit` bytes."""
    step = max(1.0, float(sizes[documents].sum()) / limit)
    return documents[np.arange(0, len(documents), step).astype(np.int64)]


def _texts(texts: DocumentFile, documents: Ints, sizes: Ints, progress: Report) -> Iterator[str]:
    done, total = 0, int(sizes[documents].sum())
    for batch in texts.batches(documents, BATCH_BYTES):
        for raw in batch:
            yield raw.decode()
        done += sum(map(len, batch))
        progress("Training the tokenizer", done, total)


@dataclass(frozen=True)
class Excerpts:
    """Documents of a split, and how much of each.

    Attributes:
        documents: Their numbers.
        tokens: Most tokens of each; of a longer one it is a passage somewhere in it. None: all.
    """

    documents: Ints
    tokens: int | None = None

    def cut(self, raw: bytes, ids: Tokens) -> Tokens:
        """The part of a document that is used, after its separator. Its place follows from the contents."""
        if self.tokens is None or len(ids) <= self.tokens:
            return ids
        start = 1 + content_hash(raw) % (len(ids) - self.tokens + 1)
        return np.concatenate([ids[:1], ids[start : start + self.tokens - 1]])


def _held_out(
    spec: DataSpec, validation: list[Ints], test: list[Ints], texts: DocumentFile, encoder: Encoder
) -> dict[str, Excerpts]:
    """What is not trained on, by split; a slice beside the validation only if that does not need it all."""

    def excerpts(groups: list[Ints], name: str, share: int = 1) -> Excerpts:
        return _excerpts(groups, getattr(spec, name) // share, name, texts, encoder)

    held = {
        "validation": excerpts(validation, "validation_tokens"),
        "test": excerpts(test, "test_tokens"),
    }
    spare = len(validation) // (2 * GUARD_SHARE)
    if held["validation"].tokens is not None and spare and spec.validation_tokens // GUARD_SHARE >= LEAST:
        held["validation"] = excerpts(validation[:-spare], "validation_tokens")
        held["held"] = excerpts(validation[-spare:], "validation_tokens", GUARD_SHARE)
    return held


def _excerpts(groups: list[Ints], limit: int, option: str, texts: DocumentFile, encoder: Encoder) -> Excerpts:
    """As many of the first groups as it takes to fill `limit` tokens, and as little of each document.

    The others are trained on. If there are too few documents, more than `EXCERPT` tokens of each are used.
    """
    taken: list[Ints] = []
    lengths: list[int] = []
    for documents in groups:
        taken.append(documents)
        for batch in texts.batches(documents, BATCH_BYTES):
            lengths += [len(ids) for ids in encoder.encode(batch)]
        if sum(min(length, EXCERPT) for length in lengths) >= limit:
            break
    if sum(lengths) <= limit:
        return Excerpts(np.concatenate(taken))
    most = _level(lengths, limit)
    if most < min(LEAST, *lengths):
        hint = f"Raise {option}: {most} tokens of each of {len(lengths)} documents say nothing."
        raise DataError(f"No document fits into {option}, {limit}.", hint)
    return Excerpts(np.concatenate(taken), most)


def _level(lengths: list[int], limit: int) -> int:
    """The largest number so that the lengths, each cut to it, add up to `limit` at most."""
    left, kept = limit, sorted(lengths)
    for number, length in enumerate(kept):
        if length * (len(kept) - number) > left:
            return left // (len(kept) - number)
        left -= length
    return kept[-1]


def _write_other(spec: DataSpec, folder: Path, encoder: Encoder, progress: Report) -> dict[str, Any]:
    """Encode text of another kind, up to the limit of the validation split."""
    with DocumentFile(folder / "other") as texts:
        for raw in _other_corpus(spec).documents(progress):
            texts.add(raw)
        sizes = texts.finish()
        groups = [np.array([number]) for number in range(len(sizes))]
        taken = _excerpts(groups, spec.validation_tokens, "validation_tokens", texts, encoder)
        return _write(folder / "other.bin", "other", taken, sizes, texts, encoder, progress)


def _other_corpus(spec: DataSpec) -> Corpus:
    other = replace(spec, corpus="file", path=spec.other_path, other_path=None, document_bytes=OTHER_BYTES)
    return open_corpus(other, Path())


def _write(
    path: Path,
    split: str,
    chosen: Excerpts,
    sizes: Ints,
    texts: DocumentFile,
    encoder: Encoder,
    progress: Report,
) -> dict[str, Any]:
    """Encode a split into its file; returns its description."""
    digest, tokens, size, done = hashlib.sha256(), 0, 0, 0
    documents, total = chosen.documents, int(sizes[chosen.documents].sum())
    with path.open("wb") as file:
        for batch in texts.batches(documents, BATCH_BYTES):
            encoded = zip(batch, encoder.encode(batch), strict=True)
            ids = np.concatenate([chosen.cut(raw, part) for raw, part in encoded]).astype(TOKEN)
            file.write(ids.data)
            digest.update(ids.data)
            tokens += len(ids)
            size += int(encoder.token_bytes[ids].sum(dtype=np.int64))
            done += sum(map(len, batch))
            progress(f"Encoding {split}", done, total)
    return {"documents": len(documents), "tokens": tokens, "bytes": size, "sha256": digest.hexdigest()}


def _describe(
    spec: DataSpec,
    key: str,
    folder: Path,
    splits: dict[str, dict[str, Any]],
    merges: list[bytes],
    encoder: Encoder,
    near_duplicates: int,
) -> None:
    np.save(folder / "token_bytes.npy", encoder.token_bytes)
    tokenizer = {
        "pattern": PATTERN,
        "separator": SEPARATOR,
        "merges": [base64.b64encode(merge).decode() for merge in merges],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1) + "\n", "utf-8")
    meta = {
        "format": FORMAT,
        "key": key,
        "corpus": spec.corpus,
        "vocab": spec.vocab,
        "splits": splits,
        "near_duplicates": near_duplicates,
        "options": asdict(spec),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", "utf-8")
