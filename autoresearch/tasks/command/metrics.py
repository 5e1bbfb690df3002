"""Reads the metrics that a command says, and checks the guards on them and the losses of single items.

A command says its metrics in one of three ways: `METRIC name=value` lines, a JSON file, or anything that a
regular expression finds. One value is wanted of each name; what is missing, said twice, or no finite number
is an error in words.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

LINE = re.compile(r"^METRIC\s+([A-Za-z_]\w{0,63})\s*=\s*(\S+)\s*$", re.MULTILINE)
GUARD = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(baseline)?\s*([-+]?)\s*([\d.]+(?:e[-+]?\d+)?)?\s*", re.IGNORECASE)
LARGEST_FILE = 1 << 20
MOST = 64
"""Metrics of one trial."""


MOST_BYTES = 1 << 30
TOLERANCE = 1e-4
"""Largest difference between the metric and the mean of its items, as a share of it."""


class MetricError(Exception):
    """A command does not say its metric as it should; the message says what is wrong."""


def check_source(text: str) -> str:
    """A value of `task.metrics`.

    Raises:
        ValueError: If it is none.
    """
    kind, _, rest = text.partition(":")
    if kind == "lines" and not rest:
        return text
    if kind == "json" and rest and not rest.startswith("/") and ".." not in rest.split("/"):
        return text
    if kind == "regex":
        try:
            if re.compile(rest).groups == 1:
                return text
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        raise ValueError("needs exactly one group, such as regex:loss (\\S+)")
    raise ValueError("must be lines, json:FILE (inside the working folder), or regex:PATTERN")


def read_metrics(source: str, name: str, log: str, folder: Path) -> dict[str, float]:
    """The metrics that a command has said.

    Args:
        source: A value of `task.metrics`.
        name: The metric that must be among them.
        log: What the command printed.
        folder: Where it ran, for a JSON file.

    Raises:
        MetricError: If the metric is missing or said twice, or a value is no finite number.
    """
    kind, _, rest = source.partition(":")
    pairs = {"lines": _from_lines, "json": _from_file, "regex": _from_matches}[kind](rest, name, log, folder)
    found: dict[str, float] = {}
    for key, text in pairs:
        try:
            value = float(text)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise MetricError(f"{key} is no number: {str(text)[:60]!r}") from None
        if not math.isfinite(value):
            raise MetricError(f"{key} is {value}, which is no score")
        if key in found:
            raise MetricError(f"{key} is said more than once: {found[key]:g}, then {value:g}")
        found[key] = value
    if name not in found:
        raise MetricError(f"no {name} was said ({_wanted(source, name)})")
    return dict(list(found.items())[:MOST]) | {name: found[name]}


def _wanted(source: str, name: str) -> str:
    kind, _, rest = source.partition(":")
    if kind == "lines":
        return f"a line METRIC {name}=VALUE is wanted"
    return f'{{"{name}": VALUE}} is wanted in {rest}' if kind == "json" else f"nothing matches {rest}"


def _from_lines(rest: str, name: str, log: str, folder: Path) -> list[tuple[str, object]]:
    return [(found[1], found[2]) for found in LINE.finditer(log)]


def _from_matches(rest: str, name: str, log: str, folder: Path) -> list[tuple[str, object]]:
    found = re.findall(rest, log, re.MULTILINE)
    return [(name, found[-1])] if found else []


def _from_file(rest: str, name: str, log: str, folder: Path) -> list[tuple[str, object]]:
    try:
        values = json.loads(read_plain(folder / rest, folder, LARGEST_FILE))
    except FileNotFoundError:
        raise MetricError(f"there is no file {rest} with the metric {name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise MetricError(f"{rest} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise MetricError(f"{rest} must hold a mapping of names to numbers")
    number = re.compile(r"[A-Za-z_]\w{0,63}")
    return [(k, v) for k, v in values.items() if k == name or (number.fullmatch(k) and _is_number(v))]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_plain(path: Path, folder: Path, most: int) -> bytes:
    """The content of a plain file that a program left in a folder of its own.

    Raises:
        OSError: If it is a link or no plain file, lies elsewhere, or is larger than `most` bytes.
    """
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise OSError(f"{path.name} lies behind a link")
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as opened:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(f"{path.name} is no plain file")
        if about.st_size > most:
            raise OSError(f"{path.name} has {about.st_size:,} bytes; at most {most:,} are read")
        return opened.read(most)


@dataclass(frozen=True)
class Guard:
    """What a further metric must keep in each trial of a candidate.

    Attributes:
        name: The metric.
        least: Whether the bound is the least value, else the largest.
        relative: Whether the bound is added to the mean of the baseline.
        bound: The bound.
    """

    name: str
    least: bool
    relative: bool
    bound: float

    @classmethod
    def parse(cls, text: str) -> Guard:
        """Read `NAME >= baseline - 0.002` or `NAME <= 12`.

        Raises:
            ValueError: If it is no such text.
        """
        found = GUARD.fullmatch(text)
        if not found or not (found[3] or found[5]):
            raise ValueError("must look like accuracy >= baseline - 0.002, or size <= 1000")
        number = float(f"{found[4] or '+'}{found[5] or 0}")
        return cls(found[1], found[2] == ">=", bool(found[3]), number)

    def __str__(self) -> str:
        sign = ">=" if self.least else "<="
        by = f"{'-' if self.bound < 0 else '+'} {abs(self.bound):g}"
        return f"{self.name} {sign} " + (f"baseline {by}" if self.relative else f"{self.bound:g}")

    def broken(self, metrics: Mapping[str, float], baseline: Sequence[Mapping[str, float]]) -> str:
        """What a trial does against it, in words; empty if it keeps it."""
        known = [trial[self.name] for trial in baseline if self.name in trial]
        if self.relative and not known:
            return ""
        bound = self.bound + (fmean(known) if self.relative else 0.0)
        if self.name not in metrics:
            return f"guard: it does not say {self.name}, and {self} is wanted"
        value = metrics[self.name]
        if value >= bound if self.least else value <= bound:
            return ""
        return f"guard: {self.name} is {value:.6g}, and {self} is wanted, here {bound:.6g}"


def check_items(file: Path, score: float, target: Path) -> None:
    """Check losses of items, and write them as `execute.base.Measurer.measure` wants them.

    Args:
        file: Float array: [n] losses, [n, 2] losses times weights and weights, or [n, 3] also documents.
        score: The metric, which must be their weighted mean.
        target: File to write.

    Raises:
        MetricError: If they are missing, of another shape, not finite, or have another mean.
    """
    import numpy as np

    try:
        table = np.load(io.BytesIO(read_plain(file, file.parent, MOST_BYTES)), allow_pickle=False)
    except FileNotFoundError:
        raise MetricError(f"it wrote no losses of items to {file.name} (AUTORESEARCH_ITEMS)") from None
    except (OSError, ValueError, EOFError) as error:
        raise MetricError(f"its losses of items cannot be read: {error}") from None
    if table.ndim not in (1, 2) or not len(table) or table.dtype.kind not in "fiu":
        raise MetricError(f"its losses of items have the shape {table.shape}, type {table.dtype}")
    losses = table.astype(np.float64).reshape(len(table), -1)
    weights = losses[:, 1] if losses.shape[1] > 1 else np.ones(len(losses))
    if losses.shape[1] > 3 or not np.isfinite(losses).all() or (weights < 0).any() or not weights.sum():
        raise MetricError(
            "its losses of items must be finite: [n], or [n, 2] with weights, or [n, 3] with documents"
        )
    sums = losses[:, 0] if losses.shape[1] > 1 else losses[:, 0] * weights
    mean = float(sums.sum() / weights.sum())
    if not math.isclose(mean, score, rel_tol=TOLERANCE, abs_tol=1e-9):
        raise MetricError(f"its metric is {score:.6g}, but the losses of items have the mean {mean:.6g}")
    documents = losses[:, 2] if losses.shape[1] == 3 else np.arange(len(losses))
    np.save(target, np.column_stack([sums, weights, documents]))
