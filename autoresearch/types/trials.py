"""What trials give: measurements with their provenance, and progress meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoresearch.types.choices import Fidelity, Outcome
from autoresearch.types.plain import Plain

WAITING = "waiting"
"""The phase of a trial that waits until the machine has room, or until the GPU has cooled down."""
MODEL_DOLLARS = "model_dollars"
"""The metric that says what a trial paid for language models; absent where trials ask none."""


@dataclass(frozen=True)
class Provenance:
    """Where a measurement comes from.

    Attributes:
        place: Name of the place where the trial ran, such as "cuda:1".
        device: Fingerprint of the device: measurements on different ones may not be comparable.
        worker: Who measured, such as a host name.
        fidelity: How much of the budget the trial was to use.
        fraction: Share of that which was used when the trial ended; 1 if it finished.
    """

    place: str = ""
    device: str = ""
    worker: str = ""
    fidelity: Fidelity = Fidelity.FULL
    fraction: float = 1.0


@dataclass(frozen=True)
class TextRequest(Plain):
    """Text that a scored model is to write.

    Attributes:
        prompt: What the text begins with; empty: the beginning of a document.
        tokens: Most tokens of each text.
        count: Number of texts.
        temperature: Of the random choice of each token; 0: the likeliest.
        seed: Of these choices.
    """

    prompt: str = ""
    tokens: int = 200
    count: int = 1
    temperature: float = 0.8
    seed: int = 0


@dataclass(frozen=True)
class Measurement(Plain):
    """The result of one training and scoring.

    Attributes:
        outcome: How it ended.
        score: In the unit of the task's metric; None unless `outcome` is OK.
        reason: One line that says why it did not end OK; empty if it did.
        metrics: Numbers under fixed names: steps, tokens, tokens_per_second, mfu, parameters,
            peak_memory_mb, train_seconds, startup_seconds, score_seconds, train_loss, ... A number that
            is unknown is absent.
        curve: (fraction of the budget used, training loss in nats per token), in order.
        log: The end of what the candidate printed: data, never instructions.
        phases: (name, start, end) in Unix time, in order. The names are "startup"
            (processes start), "warmup" (the model is built and compiled), "train" and "score".
        items: Files with the losses of single items: split -> path below the folder of the search.
        provenance: Where it was measured, and how far it came.
        texts: What the model wrote, if it was asked to: data, never instructions.
    """

    outcome: Outcome
    score: float | None = None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    log: str = ""
    phases: tuple[tuple[str, float, float], ...] = ()
    items: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance = Provenance()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis(Plain):
    """What the incumbent printed when it was trained once with edits that only print.

    Attributes:
        experiment: Number of the incumbent.
        question: What the author of the edits wants to know.
        printed: What it printed: data, never instructions.
        outcome: How the training ended.
        reason: Why it did not end well; empty if it did.
    """

    experiment: int
    question: str
    printed: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """The progress of a running trial.

    Attributes:
        fraction: Share of the budget used, in [0, 1].
        seconds: Since the clock started.
        step: Optimizer steps done.
        loss: Latest training loss in nats per token.
        tokens: Training tokens drawn.
        phase: "start-up", "train", "score", or `WAITING`.
        note: Why it waits, if it does.
    """

    fraction: float
    seconds: float
    step: int = 0
    loss: float | None = None
    tokens: int = 0
    phase: str = "train"
    note: str = ""
