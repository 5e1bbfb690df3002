"""Bits per byte of submitted weights, from the logits of two model servers, or three.

Invariant: the scorer uses its own targets, byte counts, float32 log-softmax and sums; it takes only logits
from the candidate. Bits per byte = sum of nats / (ln 2 * bytes of the target tokens).

Not covered: starting the servers, and talking to a runner (`nanomodel.score`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from nanomodel.data import SEPARATOR, open_cache
from nanomodel.data.cache import Prepared
from nanomodel.device import choose_device, keep_memory
from nanomodel.scoring import probes, slices
from nanomodel.scoring.blind import Answers, Questions, choose, hidden
from nanomodel.scoring.client import Failure, ModelClient, finite
from nanomodel.scoring.slices import Slice
from nanomodel.scoring.windows import Windows
from nanomodel.wire import Wire

LOGIT_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
"""Size of one answer: large enough to be efficient, small enough to stay in caches, or in pinned memory."""


@dataclass(frozen=True)
class Score:
    """What a model scored on a split.

    Attributes:
        nats: Of each piece (see `nanomodel.scoring.windows`), float64 [pieces].
        bytes: Of text in each piece, int64 [pieces].
        documents: Number of the document that each piece belongs to, int64 [pieces].
        counts: Targets that were counted in each piece, int64 [pieces].
        difference: Largest disagreement between model and witness, in nats at one position.
        blind: The answers to blind questions, by which `nats` were corrected; None if none were asked.
        slices: Of each slice of it: loss, bytes and document of each piece, float64 [pieces, 3].
    """

    nats: NDArray[np.float64]
    bytes: NDArray[np.int64]
    documents: NDArray[np.int64]
    counts: NDArray[np.int64]
    difference: float
    blind: Answers | None = None
    slices: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Targets that were counted."""
        return int(self.counts.sum())

    @property
    def bits_per_byte(self) -> float:
        """The score: lower is better."""
        return float(self.nats.sum() / (np.log(2.0) * self.bytes.sum()))

    def corrected(self, answers: Answers, correction: float) -> Score:
        """The score with so many nats added to each counted target of it; pieces keep adding up to it."""
        return replace(self, nats=self.nats + correction * self.counts, blind=answers)


@dataclass(frozen=True)
class Job:
    """One model to score.

    Attributes:
        cache: The prepared data.
        splits: Names of one or more splits of it.
        context: Tokens the model reads at a time.
        device: Where the model runs and the scorer adds up: "cpu", "cuda" or "auto".
        threads: CPU threads of a server.
        seed: Seed of the order of requests and the choice of probes; unknown to the candidate.
        probes: Windows to ask the witness about, at least 8.
        seconds: Most time it may take.
        brief: Whether to score only the first few requests of each split, as a tryout does.
        questions: Positions of the first split to ask about blind, before the full pass; 0: none.
        question_seed: Seed of these positions; None: they follow from `seed`. Two models that are compared
            may be asked the same.
        share: (i, n): score only the i-th of n equal shares of the first split's documents; None: all.
        slices: Name -> slice to sum up besides, as `nanomodel.scoring.slices` describes it. A slice of a
            split that is not scored is left out.
    """

    cache: str
    splits: Sequence[str]
    context: int
    device: str
    threads: int
    seed: int
    probes: int
    seconds: float
    brief: bool = False
    questions: int = 0
    question_seed: int | None = None
    share: tuple[int, int] | None = None
    slices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def score(
    job: Job, weights: int, servers: Sequence[Wire], retire: Callable[[], int] | None = None
) -> list[Score]:
    """Score submitted weights on each split of a job.

    A server gets nothing, not even the weights, before the one in front of it has given its last answer. Two
    servers that run at the same time, or hold the same file, could agree on their answers.

    Args:
        job: What to score on.
        weights: Descriptor of the weights.
        servers: Sockets of servers of the same code: the one that is asked blind, if the job has questions;
            the one that is scored; and the witness, whose answers are compared.
        retire: Ends the server that has just answered and returns a separate copy of the weights for the
            next one. By default it keeps running and the next one gets the same descriptor.

    Raises:
        Failure: If the candidate has no score.
        nanomodel.data.DataError: If the data cannot be read.
    """
    deadline = time.monotonic() + job.seconds
    prepared = open_cache(Path(job.cache))
    device = choose_device(job.device)
    if device.type == "cpu":
        keep_memory()
    if job.questions and len(servers) != 3:
        raise ValueError("blind questions need a server of their own")
    tokens, length = _tokens(job, prepared, device)
    parts = [Windows(part, prepared.token_bytes, length) for part in tokens]
    # At least eight requests, even for few windows: a model that keeps state reveals it in the second.
    most = max(1, min(map(len, parts)) // 8)
    rows = int(np.clip(_rows(device, length, prepared), 1, most))

    def loaded(wire: Wire) -> ModelClient:
        client = ModelClient(wire, rows, length, prepared.vocab, deadline)
        client.load(weights, job.context, job.device, job.threads)
        client.loaded()
        return client

    rng = np.random.default_rng(job.seed)
    orders = [rng.permutation(len(windows)) for windows in parts]
    *first, model, witness = servers
    answers, exact = None, True
    if job.questions:
        secret = rng if job.question_seed is None else np.random.default_rng(job.question_seed)
        client = loaded(first[0])
        answers = ask(client, device, rows, parts[0], choose(parts[0], job.questions, secret), rng)
        exact, weights = client.exact, retire() if retire else weights
    client = loaded(model)
    wanted = {} if job.brief else _slices(job)
    changed = _transformed(prepared, wanted, tokens, job.splits, length)
    parts += changed.values()
    orders += [rng.permutation(len(windows)) for windows in changed.values()]
    stated = any(part.loss == "overconfidence" for part in wanted.values())
    passes = [_pass(client, device, rows, *pair, stated) for pair in zip(parts, orders, strict=True)]
    tolerance = probes.tolerance(device.type, exact=exact and client.exact)
    correction = answers.correction(passes[0].nats, tolerance) if answers else 0.0
    weights = retire() if retire else weights
    client = loaded(witness)
    scores = []
    for done in passes:
        probe = probes.plan(done.windows, done.nats, job.probes, rng)
        difference = probes.check(
            done.windows, done.nats, probe, lambda x, y: measure(client, device, rows, x, y), tolerance
        )
        scores.append(summed(done.windows, done.nats, difference))
    if answers:
        scores[0] = scores[0].corrected(answers, correction)
    keys = [*((split, "") for split in job.splits), *changed]
    tables = _tables(job, prepared, wanted, dict(zip(keys, passes, strict=True)), correction)
    return [replace(found, slices=own) for found, own in zip(scores, tables, strict=False)]


def _tokens(job: Job, prepared: Prepared, device: torch.device) -> tuple[list[NDArray[np.uint16]], int]:
    """The tokens of each split, as many of them as the job wants, and the length of their windows."""
    tokens: list[NDArray[np.uint16]] = [prepared.tokens(split) for split in job.splits]
    if job.share is not None:
        tokens[0] = share(tokens[0], *job.share)
    length = min(job.context, *(len(part) - 1 for part in tokens))
    if job.brief:
        enough = 8 * length * max(1, _rows(device, length, prepared)) + 1
        tokens = [part[:enough] for part in tokens]
    return tokens, length


def _rows(device: torch.device, length: int, prepared: Prepared) -> int:
    """Windows whose logits fit into one answer; may be none."""
    return LOGIT_BYTES[device.type] // (length * prepared.vocab * 4)


@dataclass(frozen=True)
class _Pass:
    """One pass over all windows: nats of each target, and entropies of the predictions if they are wanted."""

    windows: Windows
    nats: NDArray[np.float32]
    entropies: NDArray[np.float32] | None


def _pass(
    client: ModelClient,
    device: torch.device,
    rows: int,
    windows: Windows,
    order: NDArray[np.int64],
    stated: bool,
) -> _Pass:
    """Ask for all windows in an order that the candidate does not know; gives them in their own order."""
    nats = np.empty((len(windows), windows.length), np.float32)
    found, entropies = (np.empty_like(nats), np.empty_like(nats)) if stated else (None, None)
    nats[order] = measure(client, device, rows, windows.inputs(order), windows.targets(order), found)
    if found is not None and entropies is not None:
        entropies[order] = found
    return _Pass(windows, nats, entropies)


def _tables(
    job: Job,
    prepared: Prepared,
    wanted: Mapping[str, Slice],
    passes: Mapping[tuple[str, str], _Pass],
    correction: float,
) -> list[dict[str, NDArray[np.float64]]]:
    """For each split of a job the table of each slice of it; `passes` by split and transform."""
    tables: list[dict[str, NDArray[np.float64]]] = [{} for _ in job.splits]
    for name, part in wanted.items():
        if (done := passes.get((part.split, part.transform))) is None:
            continue
        losses = done.nats
        if part.loss == "overconfidence" and done.entropies is not None:
            losses = losses - done.entropies
        corrects = (part.split, part.transform) == (job.splits[0], "")
        table = slices.table(part, prepared, done.windows, losses, correction if corrects else 0.0)
        tables[job.splits.index(part.split)][name] = table
    return tables


def _slices(job: Job) -> dict[str, Slice]:
    return {name: Slice.parse(data) for name, data in job.slices.items() if _split(data) in job.splits}


def _split(data: Mapping[str, Any]) -> str:
    return str(data.get("split", Slice.split))


def _transformed(
    prepared: Prepared,
    wanted: Mapping[str, Slice],
    tokens: Sequence[NDArray[np.uint16]],
    splits: Sequence[str],
    length: int,
) -> dict[tuple[str, str], Windows]:
    """The windows of each transformed split that slices need: (split, transform) -> windows."""
    found = {}
    for split, name in dict.fromkeys((part.split, part.transform) for part in wanted.values()):
        if name and len(text := slices.transformed(prepared, tokens[splits.index(split)], name)) > length:
            found[split, name] = Windows(text, prepared.token_bytes, length)
    return found


def share(tokens: NDArray[np.uint16], index: int, count: int) -> NDArray[np.uint16]:
    """The documents of the `index`-th of `count` shares of a split, as equal in size as documents allow.

    Raises:
        ValueError: If the split has too few documents for that.
    """
    begins = np.append(np.flatnonzero(np.asarray(tokens) == SEPARATOR), len(tokens))
    documents, number = len(begins) - 1, np.arange(count + 1)
    nearest = np.abs(begins - number[:, None] * (len(tokens) / count)).argmin(1)
    # At least one document for each share, whatever their sizes.
    ends = np.minimum(np.maximum.accumulate(nearest - number) + number, documents - number[::-1])
    if documents < count or (np.diff(begins[ends]) < 2).any():
        raise ValueError(f"{documents} documents cannot be divided into {count} shares")
    return tokens[begins[ends[index]] : begins[ends[index + 1]]]


def measure(
    client: ModelClient,
    device: torch.device,
    rows: int,
    inputs: NDArray[np.int64],
    targets: NDArray[np.int64],
    entropies: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Nats of each target, float32 [k, length], `rows` sequences a request.

    If `entropies` [k, length] is given, it gets the entropy in nats of each prediction.

    Every request is full; the last one is filled up with sequences from the first. So a model sees a single
    shape, and its rounding is the same in every request.

    Raises:
        Failure: If there is no answer, or if nats are not finite.
    """
    count = len(inputs)
    batches = [np.arange(start, start + rows) % count for start in range(0, count, rows)]
    nats = np.empty(inputs.shape, np.float32)
    client.ask(inputs[batches[0]])
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        logits = client.answer(device)
        if following is not None:
            client.ask(inputs[following])  # the model computes while this process adds up
        nats[batch] = nats_of(finite(logits), targets[batch])
        if entropies is not None:
            entropies[batch] = entropy(logits).cpu().numpy()
    return nats


def ask(
    client: ModelClient,
    device: torch.device,
    rows: int,
    windows: Windows,
    asked: Questions,
    rng: np.random.Generator,
) -> Answers:
    """Ask a fresh server, in requests of the same shape as the full pass makes.

    Raises:
        Failure: If there is no answer, or if nats are not finite.
    """
    inputs, targets = hidden(windows, asked, rng), windows.targets(asked.windows)
    targets = np.take_along_axis(targets, asked.positions[:, None], 1)[:, 0]
    nats = np.empty(len(asked), np.float32)
    for batch in asked.batches(rows):
        client.ask(np.resize(inputs[batch], (rows, windows.length)))  # repeats questions until it is full
        logits = finite(client.answer(device))[np.arange(len(batch)), asked.positions[batch]]
        nats[batch] = nats_of(logits, targets[batch])
    return Answers(asked, nats, windows.token_bytes[targets].astype(np.int64))


def nats_of(logits: torch.Tensor, targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Nats of targets [...] by finite logits [..., vocab].

    Raises:
        Failure: If nats are not finite: the difference of finite logits can still overflow.
    """
    nats = cross_entropy(logits, torch.from_numpy(targets).to(logits.device)).cpu().numpy()
    if not np.isfinite(nats).all():
        raise Failure("invalid", "the model gives a token no chance at all: its nats are not finite")
    return nats


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log softmax(logits)[targets] in float32: logits [..., vocab], targets int64 [...]."""
    return -F.log_softmax(logits.float(), -1).gather(-1, targets[..., None])[..., 0]


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of the predictions that logits [..., vocab] stand for, in float32 [...]."""
    stated = F.log_softmax(logits.float(), -1)
    return -(stated.exp() * stated).sum(-1)


def summed(windows: Windows, nats: NDArray[np.float32], difference: float) -> Score:
    """Add up what counts, piece by piece, in float64."""
    everything = np.arange(len(windows))
    counted = windows.counted(everything)
    pieces = windows.pieces(everything)[counted]
    count = int(pieces.max()) + 1
    sizes = windows.token_bytes[windows.targets(everything)[counted]]
    return Score(
        nats=np.asarray(np.bincount(pieces, nats[counted].astype(np.float64), count), np.float64),
        bytes=np.bincount(pieces, sizes, count).astype(np.int64),
        documents=windows.owners()[:count],
        counts=np.bincount(pieces, minlength=count).astype(np.int64),
        difference=difference,
    )
