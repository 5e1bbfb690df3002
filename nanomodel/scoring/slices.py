"""Slices of a split, chosen by data: some documents, some tokens, text that was transformed; losses on each.

A slice is a JSON object; every key may be absent:

    {"split": "validation",            the split; it must be among those that are scored
     "documents": "digits", "side": "high",    the third of documents with the most (or least) of something
     "contains": "text",               only documents with this text
     "tokens": "rare",                 all, rare, common, early or late tokens (see `TOKENS`)
     "transform": "lower",             the text is changed first, and scored once more (see `TRANSFORMS`)
     "loss": "nats"}                   or "overconfidence": nats beyond the entropy that the model states

Nothing of it is code. A slice of an untransformed split costs no answer of a model; a transformed one is read
by the model as further windows. Not covered: who chooses slices, and what follows from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanomodel.data import SEPARATOR
from nanomodel.data.cache import Prepared
from nanomodel.data.tokenizer import RAW, Encoder
from nanomodel.scoring.windows import Windows

PROPERTIES: dict[str, Callable[[bytes], float]] = {
    "digits": lambda text: sum(c in b"0123456789" for c in text) / (len(text) or 1),
    "capitals": lambda text: sum(65 <= c <= 90 for c in text) / (len(text) or 1),
    "punctuation": lambda text: sum(c in b"!\"'(),-.:;?" for c in text) / (len(text) or 1),
    "lines": lambda text: text.count(b"\n") / (len(text) or 1),
    "repetition": lambda text: 1 - len(set(text.split())) / (len(text.split()) or 1),
    "length": lambda text: float(len(text)),
}
"""Properties of documents by which they are chosen."""

TOKENS = {
    "all": "all tokens",
    "rare": "the rarest fifth of the tokens, by how often each occurs in the split",
    "common": "the other four fifths",
    "early": "the first quarter of each window: predictions from a short context",
    "late": "the second half of each window: predictions from a long context",
}
"""Choices of tokens."""

TRANSFORMS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "spaces": lambda text: " ".join(text.split()),
    "digits": lambda text: "".join("0" if c.isdigit() else c for c in text),
    "reverse": lambda text: " ".join(reversed(text.split())),
}
"""Changes of the text: small or capital letters, single spaces, every digit a 0, words in reverse order."""

LOSSES = ("nats", "overconfidence")
SIDES = ("high", "low")
MOST_TRANSFORMED = 1 << 15
"""Tokens of a transformed split at most."""
MOST_TEXT = 80
RARE = 0.2


@dataclass(frozen=True)
class Slice:
    """One slice, checked; see the module."""

    split: str = "validation"
    documents: str = ""
    side: str = "high"
    contains: str = ""
    tokens: str = "all"
    transform: str = ""
    loss: str = "nats"

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Slice:
        """Check a slice.

        Raises:
            ValueError: If it is none; says why.
        """
        known = {name: getattr(cls, name) for name in cls.__dataclass_fields__}
        if unknown := sorted(set(map(str, data)) - known.keys()):
            raise ValueError(f"there is no key {unknown[0]!r}; there are {', '.join(known)}")
        if wrong := [key for key, value in data.items() if not isinstance(value, str)]:
            raise ValueError(f"{wrong[0]} is no text")
        found = cls(**data)
        choices = (
            ("documents", ("", *PROPERTIES)),
            ("side", SIDES),
            ("tokens", tuple(TOKENS)),
            ("transform", ("", *TRANSFORMS)),
            ("loss", LOSSES),
            ("split", ("validation", "other")),
        )
        for key, values in choices:
            if getattr(found, key) not in values:
                raise ValueError(f"{key} is one of {', '.join(filter(None, values))}")
        if len(found.contains) > MOST_TEXT:
            raise ValueError(f"contains has at most {MOST_TEXT} characters")
        return found


def transformed(prepared: Prepared, tokens: NDArray[np.uint16], name: str) -> NDArray[np.uint16]:
    """The documents of a split with their text changed, encoded anew, uint16 [n]."""
    encoder = Encoder(prepared.vocabulary[RAW:])
    texts = _texts(prepared, tokens[:MOST_TRANSFORMED])
    changed = [TRANSFORMS[name](text.decode("utf-8", "replace")).encode() for text in texts]
    return np.concatenate(encoder.encode(changed))


def table(
    part: Slice, prepared: Prepared, windows: Windows, losses: NDArray[np.float32], correction: float = 0.0
) -> NDArray[np.float64]:
    """Loss, bytes and document of each piece that has some of a slice, float64 [pieces, 3].

    Args:
        part: The slice.
        prepared: Where its split comes from.
        windows: The windows of its split, transformed if it says so.
        losses: Of each target, [windows, length].
        correction: Nats to be added for each target.
    """
    everything = np.arange(len(windows))
    counted, targets = windows.counted(everything), windows.targets(everything)
    chosen = counted & _tokens(part, windows, targets, counted)
    pieces, owners = windows.pieces(everything), windows.owners()
    if part.documents or part.contains:
        chosen &= _documents(part, prepared, windows)[owners[pieces]]
    number = pieces[chosen]
    sizes = np.bincount(number, windows.token_bytes[targets[chosen]], len(owners))
    sums = np.bincount(number, losses[chosen].astype(np.float64) + correction, len(owners))
    found = np.stack([sums, sizes, owners.astype(np.float64)], axis=1)
    return found[found[:, 1] > 0]


def _tokens(
    part: Slice, windows: Windows, targets: NDArray[np.int64], counted: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    position = np.broadcast_to(np.arange(windows.length), targets.shape)
    if part.tokens == "early":
        return position < max(1, windows.length // 4)
    if part.tokens == "late":
        return position >= windows.length // 2
    if part.tokens == "all":
        return np.ones(targets.shape, bool)
    counts = np.bincount(targets[counted], minlength=windows.vocab)
    order = np.argsort(counts, kind="stable")
    rare = np.zeros(windows.vocab, bool)
    rare[order[np.cumsum(counts[order]) <= RARE * counts.sum()]] = True
    found: NDArray[np.bool_] = rare[targets]
    return found if part.tokens == "rare" else ~found


def _documents(part: Slice, prepared: Prepared, windows: Windows) -> NDArray[np.bool_]:
    """Of each document of a split, whether it is in the slice, bool [documents]."""
    texts = _texts(prepared, windows.tokens)
    wanted = np.array([part.contains.encode() in text for text in texts])
    if part.documents:
        values = np.array([PROPERTIES[part.documents](text) for text in texts])
        low, high = np.quantile(values, [1 / 3, 2 / 3])
        wanted &= values >= high if part.side == "high" else values <= low
    return wanted


def _texts(prepared: Prepared, tokens: NDArray[np.uint16]) -> Sequence[bytes]:
    """The text of each document of some tokens; the first may lack its separator."""
    ids, words = np.asarray(tokens), prepared.vocabulary
    begins = np.flatnonzero(ids == SEPARATOR)
    cuts = begins if len(begins) and begins[0] == 0 else np.append(0, begins)
    return [b"".join(words[int(i)] for i in part) for part in np.split(ids, cuts[1:])]
