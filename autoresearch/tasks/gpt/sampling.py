"""Lets a model that was scored write text: a jailed server gives logits, and this process chooses the tokens.

The server is a new one that has seen no held-out text, and is shown only the prompt and what was chosen so
far. Each answer is checked and copied as in scoring (`nanomodel.scoring.client`). What it leads to is text of
a candidate: data, never instructions. The window is always as long as in scoring, since a script may know
only that; what stands behind the last token cannot count, as a scored model does not look ahead.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.errors import UserError
from autoresearch.execute.base import TrialEnded
from autoresearch.tasks.gpt.data import closing, sealed_copy
from autoresearch.tasks.gpt.program import JailedProgram, one_gpu
from autoresearch.tasks.gpt.settings import LaunchOptions
from autoresearch.types import Outcome, TextRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nanomodel.data import Prepared
    from nanomodel.scoring.client import ModelClient

LIKELIEST = 50
"""Only so many of the likeliest tokens are chosen from (top-k sampling, Fan et al. 2018)."""


def write_texts(
    options: LaunchOptions, code: Path, folder: Path, weights: int, data: Path, request: TextRequest
) -> tuple[str, ...]:
    """Have a model write.

    Args:
        options: How to start its server.
        code: The candidate's tree.
        folder: A scratch folder for the server.
        weights: Descriptor of the sealed weights.
        data: Folder of the prepared data, whose tokenizer is used.
        request: What to write.

    Raises:
        TrialEnded: If the model fails.
    """
    import os

    from nanomodel.data import open_cache
    from nanomodel.scoring.client import Failure, ModelClient

    prepared, settings = open_cache(data), options.settings
    device, _ = one_gpu(settings.device)
    deadline = time.monotonic() + settings.startup_seconds + settings.score_seconds
    with (
        JailedProgram(options, code, folder, settings.serve) as server,
        closing(sealed_copy(weights, os.fstat(weights).st_size)) as copy,
    ):
        try:
            client = ModelClient(server.wire, request.count, settings.context, prepared.vocab, deadline)
            client.load(copy, settings.context, device, settings.serve_threads)
            client.loaded()
            return _written(client, prepared, settings.context, request)
        except Failure as failure:
            raise TrialEnded(Outcome(failure.outcome), f"it cannot write text: {failure}") from None


def _written(client: ModelClient, prepared: Prepared, context: int, request: TextRequest) -> tuple[str, ...]:
    """Choose token after token, for all texts at once; a text ends where its document does."""
    import numpy as np
    import torch

    from nanomodel.data import SEPARATOR
    from nanomodel.scoring.client import finite

    prompt = _encoded(prepared, request.prompt)[-(context // 2) :]
    rng, cpu = np.random.default_rng(request.seed), torch.device("cpu")
    chosen = np.empty((request.count, 0), np.int64)
    ended = np.zeros(request.count, bool)
    while chosen.shape[1] < request.tokens and not ended.all():
        shown = np.hstack([np.tile(prompt, (request.count, 1)), chosen])[:, -context:]
        window = np.full((request.count, context), SEPARATOR, np.int64)
        window[:, : shown.shape[1]] = shown
        client.ask(window)
        logits = finite(client.answer(cpu)[:, shown.shape[1] - 1]).double().numpy()
        token = np.array([choose(row, request.temperature, rng) for row in logits])
        ended |= token == SEPARATOR
        chosen = np.hstack([chosen, np.where(ended, SEPARATOR, token)[:, None]])
    return tuple(request.prompt + prepared.decode(row) for row in chosen)


def choose(logits: NDArray[np.float64], temperature: float, rng: np.random.Generator) -> int:
    """A token by its logits [vocab]."""
    import numpy as np

    if temperature == 0:
        return int(logits.argmax())
    best = np.argsort(logits)[-LIKELIEST:]
    scaled = (logits[best] - logits.max()) / temperature
    weights = np.exp(scaled)
    return int(rng.choice(best, p=weights / weights.sum()))


def _encoded(prepared: Prepared, prompt: str) -> NDArray[np.int64]:
    """The tokens of a prompt, after the separator that begins a document.

    Raises:
        UserError: If the tokenizer's library is missing, and more than bytes are to be told apart.
    """
    import numpy as np

    from nanomodel.data import SEPARATOR
    from nanomodel.data.tokenizer import RAW, Encoder

    if not prompt:
        return np.array([SEPARATOR], np.int64)
    try:
        encoder = Encoder(prepared.vocabulary[RAW:])
    except ImportError:
        raise UserError(
            "A prompt needs the package tiktoken.", "Install it, or leave --prompt out."
        ) from None
    return encoder.encode([prompt.encode("utf-8", "replace")])[0].astype(np.int64)
