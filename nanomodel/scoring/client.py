"""The scorer's client of a model server: asks for logits, and checks every answer.

Invariant: an answer is a private copy of numbers of the right shape, copied before the next request is
made. So it cannot depend on a later request, nor change afterwards. A server that is silent, dead or wrong
raises `Failure` with a reason; the client never hangs. A server has seen held-out text, so of what it says a
reason holds only the kind of its error, from a fixed list, and a line number.
"""

from __future__ import annotations

import builtins
import os
import time
import weakref

import numpy as np
import torch
from numpy.typing import NDArray

from nanomodel import device as machine
from nanomodel.scoring.server import DTYPES, logits_offset, memory_size
from nanomodel.wire import Closed, Message, Timeout, Wire, WireError, close_all, create_memory, map_memory

KINDS = frozenset(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
) | {
    "ModelError",
    "OutOfMemoryError",
    "UnpicklingError",
    "InductorError",
    "BackendCompilerFailed",
    "Unsupported",
}
"""Names of errors that a server's failure may have."""

LAST_LINE = 9999
"""A script has fewer lines than this."""


class Failure(Exception):
    """The candidate has no score.

    Attributes:
        outcome: "invalid" if the candidate broke a rule, "crash" if it failed.
    """

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class ModelClient:
    """A model in another process.

    Args:
        wire: The socket to its server.
        rows: Sequences in a request.
        length: Tokens in a sequence.
        vocab: Number of tokens.
        deadline: The `time.monotonic()` at which the last answer must have arrived.

    Attributes:
        exact: Whether every answer so far was in float32.
    """

    def __init__(self, wire: Wire, rows: int, length: int, vocab: int, deadline: float) -> None:
        self._wire = wire
        self._shape = (rows, length, vocab)
        self._deadline = deadline
        self.exact = True
        self._fd = create_memory(memory_size(rows, length, vocab))
        self._memory = map_memory(self._fd, memory_size(rows, length, vocab))
        self._tokens = np.frombuffer(self._memory, np.int64, rows * length).reshape(rows, length)
        self._pages = torch.frombuffer(self._memory, dtype=torch.uint8)

    def load(self, weights: int, context: int, device: str, threads: int) -> None:
        """Tell the server to load the weights, which it does in the background; see `loaded`."""
        rows, length, vocab = self._shape
        message = {"type": "load", "rows": rows, "length": length, "vocab": vocab, "context": context}
        self._send({**message, "device": device, "threads": threads}, [weights, self._fd])
        os.close(self._fd)
        if machine.lock_pages(self._pages, machine.choose_device(device)):
            weakref.finalize(self, machine.unlock_pages, self._pages)

    def loaded(self) -> None:
        """Wait until the weights are loaded.

        Raises:
            Failure: If the server cannot load them, or not in time.
        """
        message = self._receive()
        for early in ("hello", "warm"):  # from a server that just started
            if message["type"] == early:
                message = self._receive()
        if message["type"] != "loaded":
            raise _unexpected(message)

    def ask(self, tokens: NDArray[np.int64]) -> None:
        """Request the logits for int64 [rows, length] tokens."""
        self._tokens[:] = tokens
        self._send({"type": "forward"}, [])

    def answer(self, device: torch.device) -> torch.Tensor:
        """Wait for the requested logits.

        Returns:
            float32 or bfloat16 logits [rows, length, vocab], a private copy on `device`. The caller checks
            that they are finite (`finite`), after it has sent the next request.

        Raises:
            Failure: If they are late or missing.
        """
        message = self._receive()
        if message["type"] != "logits":
            raise _unexpected(message)
        dtype = DTYPES.get(str(message.get("dtype")))
        if dtype is None:
            raise Failure(
                "invalid", "the model server answered in a type that is none of " + ", ".join(DTYPES)
            )
        self.exact &= dtype is torch.float32
        rows, length, vocab = self._shape
        count, offset = rows * length * vocab, logits_offset(rows, length)
        shared = torch.frombuffer(self._memory, dtype=dtype, count=count, offset=offset).view(self._shape)
        return shared.to(device, copy=True)

    def _send(self, message: Message, fds: list[int]) -> None:
        try:
            self._wire.send(message, fds, timeout=self._left())
        except Closed:
            raise Failure("crash", "the model server died") from None
        except Timeout:
            raise Failure("crash", "timeout: the model server hangs") from None

    def _receive(self) -> Message:
        try:
            message, fds = self._wire.recv(timeout=self._left())
        except Closed:
            raise Failure("crash", "the model server died") from None
        except Timeout:
            raise Failure("crash", "timeout: scoring took longer than") from None
        except WireError:
            raise Failure("invalid", "the model server sent what is no message") from None
        close_all(fds)
        if message.get("type") == "failed":
            raise _explained(message)
        return {"type": None, **message}

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


def finite(logits: torch.Tensor) -> torch.Tensor:
    """The same logits, if all of them are finite.

    Raises:
        Failure: If they are not.
    """
    low, high = (float(bound) for bound in torch.aminmax(logits))
    if not np.isfinite(low) or not np.isfinite(high):
        raise Failure("invalid", "the model returned logits that are not finite numbers")
    return logits


def _unexpected(message: Message) -> Failure:
    kind = message["type"] if message["type"] in ("hello", "warm", "loaded", "logits") else "something"
    return Failure("invalid", f"the model server sent {kind!r} out of turn")


def _explained(message: Message) -> Failure:
    """Why a server failed, in words of our own."""
    kind, line = message.get("kind"), message.get("line")
    said = kind if isinstance(kind, str) and kind in KINDS else "an error of its own"
    if isinstance(line, int) and 0 < line <= LAST_LINE:
        said += f" at line {line} of the script"
    if message.get("stage") == "load":
        return Failure("invalid", f"the submitted weights do not load into build_model: {said}")
    if kind == "ModelError":
        said = "it changed its weights, or did not return logits [rows, length, vocab] of a float type"
        return Failure("invalid", f"the model failed: {said}")
    return Failure("crash", f"the model failed: {said}")
