"""Bits per byte of submitted weights, from the logits of two model servers.

Invariant: the scorer uses its own targets, byte counts, float32 log-softmax and sums; it takes only logits
from the candidate. Bits per byte = sum of nats / (ln 2 * bytes of the target tokens).

Not covered: starting the servers, and talking to a runner (`nanomodel.score`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from nanomodel.data import open_cache
from nanomodel.device import choose_device, keep_memory
from nanomodel.scoring import probes
from nanomodel.scoring.client import Failure, ModelClient, finite
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
        tokens: Targets that were counted.
        difference: Largest disagreement between model and witness, in nats at one position.
    """

    nats: NDArray[np.float64]
    bytes: NDArray[np.int64]
    tokens: int
    difference: float

    @property
    def bits_per_byte(self) -> float:
        """The score: lower is better."""
        return float(self.nats.sum() / (np.log(2.0) * self.bytes.sum()))


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


def score(
    job: Job, weights: int, model: Wire, witness: Wire, retire: Callable[[], int] | None = None
) -> list[Score]:
    """Score submitted weights on each split of a job.

    The witness gets nothing, not even the weights, before the model's server has given its last answer. Two
    servers that run at the same time, or hold the same file, could agree on their answers.

    Args:
        job: What to score on.
        weights: Descriptor of the weights.
        model: Socket of the server that is scored.
        witness: Socket of another server of the same code, whose answers are compared.
        retire: Ends the model's server and returns a separate copy of the weights for the witness. By default
            the server keeps running and the witness gets the same descriptor.

    Raises:
        Failure: If the candidate has no score.
        nanomodel.data.DataError: If the data cannot be read.
    """
    deadline = time.monotonic() + job.seconds
    prepared = open_cache(Path(job.cache))
    device = choose_device(job.device)
    if device.type == "cpu":
        keep_memory()
    tokens: list[NDArray[np.uint16]] = [prepared.tokens(split) for split in job.splits]
    length = min(job.context, *(len(part) - 1 for part in tokens))
    row_bytes = length * prepared.vocab * 4
    if job.brief:
        enough = 8 * length * max(1, LOGIT_BYTES[device.type] // row_bytes) + 1
        tokens = [part[:enough] for part in tokens]
    parts = [Windows(part, prepared.token_bytes, length) for part in tokens]
    # At least eight requests, even for few windows: a model that keeps state reveals it in the second.
    rows = int(np.clip(LOGIT_BYTES[device.type] // row_bytes, 1, max(1, min(map(len, parts)) // 8)))
    clients = [ModelClient(wire, rows, length, parts[0].vocab, deadline) for wire in (model, witness)]
    clients[0].load(weights, job.context, job.device, job.threads)
    rng = np.random.default_rng(job.seed)
    orders = [rng.permutation(len(windows)) for windows in parts]
    clients[0].loaded()
    measured = []
    for windows, order in zip(parts, orders, strict=True):
        nats = np.empty((len(windows), length), np.float32)
        nats[order] = measure(clients[0], device, rows, windows.inputs(order), windows.targets(order))
        measured.append(nats)
    clients[1].load(retire() if retire else weights, job.context, job.device, job.threads)
    clients[1].loaded()
    tolerance = probes.tolerance(device.type, exact=clients[0].exact)
    scores = []
    for windows, nats in zip(parts, measured, strict=True):
        probe = probes.plan(windows, nats, job.probes, rng)
        difference = probes.check(
            windows, nats, probe, lambda x, y: measure(clients[1], device, rows, x, y), tolerance
        )
        scores.append(summed(windows, nats, difference))
    return scores


def measure(
    client: ModelClient,
    device: torch.device,
    rows: int,
    inputs: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Nats of each target, float32 [k, length], `rows` sequences a request.

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
        nats[batch] = cross_entropy(finite(logits), torch.from_numpy(targets[batch]).to(device)).cpu().numpy()
        if not np.isfinite(nats[batch]).all():
            # The difference of finite logits can still overflow; then there is no score to compare.
            raise Failure("invalid", "the model gives a token no chance at all: its nats are not finite")
    return nats


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log softmax(logits)[targets] in float32: logits [..., vocab], targets int64 [...]."""
    return -F.log_softmax(logits.float(), -1).gather(-1, targets[..., None])[..., 0]


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
        tokens=int(counted.sum()),
        difference=difference,
    )
