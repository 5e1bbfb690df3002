"""Builds a dictionary for zlib from log lines, and leaves it for the scorer."""

import os
from collections import Counter
from pathlib import Path

SIZE = 512  # 128..2048 log
WORDS = 2  # 1..6 ; most words in a phrase
LEAST = 3  # 2..50 log ; a phrase that is seldom met is left out
ORDER = "saved"  # count | saved | length


def build(lines: list[str]) -> bytes:
    """At most SIZE bytes of phrases, the most useful last."""
    counts: Counter[str] = Counter()
    for line in lines:
        words = line.split(" ")
        for size in range(1, WORDS + 1):
            counts.update(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
    worth = {"count": lambda p: counts[p], "saved": lambda p: counts[p] * len(p), "length": len}[ORDER]
    chosen = b""
    for phrase in sorted((p for p in counts if counts[p] >= LEAST), key=lambda p: (-worth(p), p)):
        text = phrase.encode() + b" "
        if text not in chosen and len(text) + len(chosen) <= SIZE:
            chosen = text + chosen
    return chosen


if __name__ == "__main__":
    lines = (Path(os.environ["AUTORESEARCH_DATA"]) / "log.txt").read_text().split("\n")
    (Path(os.environ["AUTORESEARCH_OUT"]) / "dictionary.bin").write_bytes(build(lines))
