"""How the places of other machines fare: their trials, failures, clocks and speed; told to `status`.

Places are compared by the same program: the starting script and each incumbent run at many of them. One that
trains them slower than other places of its kind, or whose machine fails, spoils what is measured there, so
the trial is repeated elsewhere; if that happens again the place is set aside. A worker itself watches what
else its machine does (`execute.health`, `execute.load`). Not covered: a place that runs no program which
another one has run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from autoresearch.text import count, one_line
from autoresearch.types import Measurement, Outcome

PLACES = "places.json"
"""File in the folder of a search that tells of its places, for `status`."""

SLOW = 0.75
"""A place is slow if it trains a program at less than this share of the speed that is usual for its kind."""

OTHERS = 2
"""So many other trials of a program must tell what is usual."""

SPOILED = 2
"""A place is set aside after so many trials in a row that its machine spoiled."""

PROGRAMS = 64
"""Programs whose speeds are remembered."""


@dataclass
class Record:
    """How one place has fared.

    Attributes:
        trials: That ended there.
        failures: Those of which the machine failed or was slow, and workers that were lost.
        in_a_row: The latest of these, with no good trial since.
        clock: Of its GPU in MHz, mean of the latest trial; 0 if that is not known.
        speed: Of the latest program that others have run, as a share of what is usual; 0 if not known.
    """

    trials: int = 0
    failures: int = 0
    in_a_row: int = 0
    clock: float = 0.0
    speed: float = 0.0


@dataclass
class Records:
    """The records of all places of one search."""

    places: dict[str, Record] = field(default_factory=dict)
    speeds: dict[tuple[str, str], list[tuple[str, float]]] = field(default_factory=dict)

    def of(self, place: str) -> Record:
        """The record of a place; it stays if the place goes and comes back."""
        return self.places.setdefault(place, Record())

    def ended(self, place: str, device: str, program: str, result: Measurement) -> str:
        """Note a trial; says why its result is worthless, or nothing.

        Args:
            place: Where it ran.
            device: Of the place; only places with the same are compared.
            program: The hash of what ran; empty: nothing is to be learned of its speed.
            result: What it measured.
        """
        record = self.of(place)
        record.trials += 1
        record.clock = result.metrics.get("clock_mhz", record.clock)
        speed = _speed(result) if program else 0.0
        usual = self._usual(device, program, place)
        why = ""
        if speed and usual:
            record.speed = speed / usual
            if record.speed < SLOW:
                why = f"it trained at {record.speed:.0%} of the speed of other places of its kind"
        if speed and not why:
            self._remember(device, program, place, speed)
        self._count(record, bool(why))
        return why

    def failed(self, place: str) -> None:
        """Note that a machine failed under a trial, or that its worker was lost."""
        record = self.of(place)
        record.trials += 1
        self._count(record, True)

    def spoils(self, place: str) -> bool:
        """Whether a place has spoiled too many trials in a row."""
        return self.of(place).in_a_row >= SPOILED

    def _count(self, record: Record, spoiled: bool) -> None:
        record.failures += spoiled
        record.in_a_row = record.in_a_row + 1 if spoiled else 0

    def _usual(self, device: str, program: str, place: str) -> float | None:
        """The usual speed of a program at other places; None if too little is known."""
        others = [speed for name, speed in self.speeds.get((device, program), ()) if name != place]
        return median(others) if len(others) >= OTHERS else None

    def _remember(self, device: str, program: str, place: str, speed: float) -> None:
        known = self.speeds.setdefault((device, program), [])
        known.append((place, speed))
        del known[:-PROGRAMS]
        while len(self.speeds) > PROGRAMS:
            del self.speeds[next(iter(self.speeds))]


def _speed(result: Measurement) -> float:
    """How fast a trial trained; 0 if that is not known."""
    if result.outcome is not Outcome.OK:
        return 0.0
    return result.metrics.get("tokens_per_second", 0.0)


def publish(
    folder: Path, about: Mapping[str, dict[str, Any]], aside: Mapping[str, str], records: Records
) -> None:
    """Write down for `status` what places a search has, and how they fare."""
    if not folder.is_dir():
        return
    known = {
        name: {**about.get(name, {}), **({"set_aside": aside[name]} if name in aside else {}),
               "record": asdict(records.of(name))}
        for name in (*about, *aside)
    }  # fmt: skip
    partial = (folder / PLACES).with_suffix(".partial")
    partial.write_text(json.dumps(known))
    partial.replace(folder / PLACES)


def places_told(folder: Path) -> list[str]:
    """What a search that runs says of its remote places, in sentences; empty if it has none.

    Args:
        folder: Of the search.
    """
    try:
        known: dict[str, dict[str, Any]] = json.loads((folder / PLACES).read_text())
    except (OSError, ValueError):
        return []
    used = {name: about for name, about in known.items() if "set_aside" not in about}
    kinds = Counter(kind(about) for about in used.values())
    lines = [f"{count(number, 'place')}: {one_line(text)}." for text, number in kinds.items()]
    lines += [f"Place {one_line(name)}: {told}." for name in used if (told := _told(used[name]))]
    aside = {name: about["set_aside"] for name, about in known.items() if "set_aside" in about}
    return lines + [f"Place {one_line(name)} is set aside: {one_line(why)}." for name, why in aside.items()]


def _told(about: Mapping[str, Any]) -> str:
    """What is worth telling of the record of a place; empty if nothing is."""
    record = Record(**about.get("record", {}))
    if not record.failures:
        return ""
    clock = f", {record.clock:.0f} MHz" if record.clock else ""
    speed = f", {record.speed:.0%} of the usual speed" if record.speed else ""
    return f"{record.failures} of {count(record.trials, 'trial')} spoiled{speed}{clock}"


def kind(about: Mapping[str, Any]) -> str:
    """What makes a place comparable with others, in words: its device, its sandbox."""
    return ", ".join([about["device"], *(f"{name} {text}" for name, text in about["about"].items())])
