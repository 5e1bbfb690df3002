"""The runner as the harness sees it: gives a training script its task and takes its weights.

`RunnerProcess` talks to a runner at the other end of a socket (protocol 1). Without a runner,
`nanomodel.standalone` plays its part.

    script -> {"type": "hello", "protocol": 1}
    runner -> {"type": "task", seed, device, threads, vocab, context, budget: {kind, amount}, compile, ration}
    script -> {"type": "ready"}                     the model is built and compiled
    runner -> {"type": "start"} + [training tokens, uint16]         the clock starts
    script -> {"type": "log", step, loss, progress, tokens, ...}    a few times a second
    script -> {"type": "submit", "metrics": {...}}  the weights lie in the working folder

`ration` says that the tokens are the token budget itself, to be read once and in order.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nanomodel.wire import PROTOCOL, Closed, Message, Wire, WireError, close_all


class HarnessError(Exception):
    """The script cannot go on; the message says why."""


class Runner(Protocol):
    """Gives the task and takes the weights: `RunnerProcess`, or `nanomodel.standalone.Standalone`."""

    def task(self) -> Mapping[str, Any]:
        """The task message of protocol 1."""

    def start(self) -> NDArray[np.uint16]:
        """The training tokens; the clock starts when this returns."""

    def log(self, message: Message) -> None:
        """Take the state of the training: step, loss, progress, tokens."""

    def submit(self, weights: Path, metrics: Mapping[str, float]) -> None:
        """Take the weights in this file; the training is over."""


class RunnerProcess:
    """The runner at the other end of $HARNESS_FD."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def task(self) -> Mapping[str, Any]:
        """Say hello, and learn the task."""
        self._wire.send({"type": "hello", "protocol": PROTOCOL})
        return self._expect("task")[0]

    def start(self) -> NDArray[np.uint16]:
        """Say ready, and map the tokens that come with the start."""
        self._wire.send({"type": "ready"})
        _, fds = self._expect("start")
        with os.fdopen(fds[0], "rb") as file:
            close_all(fds[1:])
            return np.memmap(file, dtype="<u2", mode="r")

    def log(self, message: Message) -> None:
        """Tell the runner."""
        self._wire.send(message)

    def submit(self, weights: Path, metrics: Mapping[str, float]) -> None:
        """Tell the runner, which ends this process."""
        self._wire.send({"type": "submit", "metrics": {k: v for k, v in metrics.items() if math.isfinite(v)}})

    def _expect(self, kind: str) -> tuple[Message, list[int]]:
        try:
            message, fds = self._wire.recv()
        except Closed:
            raise HarnessError("the runner is gone") from None
        if message.get("type") != kind:
            close_all(fds)
            raise WireError(f"the runner sent {message.get('type')!r} where {kind!r} was due")
        return message, fds
