"""The guards of the task: loss on slices of held-out text, calibration, other text, speed and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.errors import Refused
from autoresearch.types import Direction, GuardMetric
from nanomodel.scoring.slices import LOSSES, PROPERTIES, TOKENS, TRANSFORMS, Slice

RESOURCE_MARGIN = 0.1
"""Share by which a change may be slower or larger: machines differ by as much from hour to hour."""

SLICES = {
    "early": ("loss from a short context", {"tokens": "early"}),
    "late": ("loss from a long context", {"tokens": "late"}),
    "rare": ("loss on rare tokens", {"tokens": "rare"}),
    "calibration": ("nats beyond, or short of, the uncertainty that the model states", {"loss": LOSSES[1]}),
    "digits": ("loss on the documents with the most digits", {"documents": "digits"}),
    "capitals": ("loss on text in small letters", {"transform": "lower"}),
    "long": ("loss on the longest documents", {"documents": "length"}),
}
"""Name -> what it measures, in words and as data."""

OTHER = GuardMetric("other", "loss on text of another kind (data.other_path)", "other_bpb", "other")
MEMORY = GuardMetric("memory", "MB of memory in training", "memory_mb", margin=RESOURCE_MARGIN)

WORDS = f"""A definition is a JSON object of texts; every key may be absent:
- documents: only the third of the held-out documents with the most of a property: {", ".join(PROPERTIES)}
- side: high (the default), or low for the third with the least of it
- contains: only documents with this text, at most 80 characters
- tokens: {"; ".join(f"{name}: {words}" for name, words in TOKENS.items())}
- transform: the text is changed before it is scored: {", ".join(TRANSFORMS)}
- loss: nats (the default), or overconfidence: nats beyond the entropy that the model states
- split: validation (the default), or other: text of another kind, where there is some"""


def guard_metrics(kind: str) -> Sequence[GuardMetric]:
    """The guards under a budget of some kind."""
    speed = (
        GuardMetric(
            "speed", "tokens per second", "tokens_per_second", "", {}, Direction.MAXIMIZE, RESOURCE_MARGIN
        )
        if kind == "seconds"
        else GuardMetric("speed", "seconds of a training", "train_seconds", margin=RESOURCE_MARGIN)
    )
    return (*(_slice(name, *of) for name, of in SLICES.items()), OTHER, speed, MEMORY)


def devised(name: str, text: str, definition: Mapping[str, Any]) -> GuardMetric:
    """See `Task.devised`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
        raise Refused("a guard needs a name of small letters, digits and underscores, 32 at most")
    if not definition:
        raise Refused("the definition is empty: it would be the deciding metric once more")
    try:
        Slice.parse(definition)
    except ValueError as error:
        raise Refused(f"the definition is no slice: {error}") from None
    return _slice(name, text, definition)


def _slice(name: str, text: str, definition: Mapping[str, Any]) -> GuardMetric:
    return GuardMetric(name, text, f"guard_{name}", f"guard-{name}", dict(definition))
