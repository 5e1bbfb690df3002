"""What a search does right now, in a file that other processes read: `now.json` in its folder.

`Published` is a view: it passes everything on to the view that a person sees, and writes the file twice a
second at most. `watch` reads it. The journal holds what must not be lost; this file may be old or missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from autoresearch.report.live.terminal import SearchView, never_raises, trial_name, trial_state
from autoresearch.types import Experiment, Progress, Trial

FILE = "now.json"
EVERY = 0.5
"""Least seconds between two writes, except at the beginning and end of something."""
POINTS = 200
"""Points of a trial's loss curve that are told."""


class Published:
    """Shows a search in another view, and in a file.

    Args:
        view: What a person sees.
        folder: Of the search.
    """

    def __init__(self, view: SearchView, folder: Path) -> None:
        self._view = view
        self._path = folder / FILE
        self._curves: dict[int, list[tuple[float, float]]] = {}
        self._written = -EVERY

    def __enter__(self) -> Self:
        self._view.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._view.__exit__(*exc)
        never_raises(self._path.unlink)(missing_ok=True)

    def message(self, text: str, *, warning: bool = False) -> None:
        """A line about the search as a whole."""
        self._view.message(text, warning=warning)
        self._write()

    def proposing(self, number: int, proposer: str) -> None:
        """The search waits for a proposal."""
        self._view.proposing(number, proposer)
        self._write()

    def experiment(self, experiment: Experiment) -> None:
        """The trials of an experiment are about to run."""
        self._view.experiment(experiment)
        self._write()

    def trial(self, trial: Trial) -> None:
        """A trial starts, has ended, or was cancelled."""
        self._view.trial(trial)
        if trial.finished is not None:
            self._curves.pop(trial.id, None)
        self._write()

    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial has made progress."""
        self._view.progress(trial, progress)
        if progress.loss is not None:
            curve = self._curves.setdefault(trial.id, [])
            curve.append((progress.fraction, progress.loss))
            if len(curve) > POINTS:
                del curve[1:-1:2]
        if time.monotonic() - self._written >= EVERY:
            self._write()

    def verdict(
        self, experiment: Experiment, incumbent_score: float, noise: float, needed: Callable[[], str] = str
    ) -> None:
        """An experiment has its verdict."""
        self._view.verdict(experiment, incumbent_score, noise, needed)
        self._write()

    @never_raises
    def _write(self) -> None:
        self._written = time.monotonic()
        view = self._view
        with view.lock:
            left = view.seconds_left()
            now = {
                "updated": time.time(),
                "doing": view.doing,
                "hypothesis": view.hypothesis,
                "seconds_left": left,
                "needed": view.needed,
                "places": view.places,
                "messages": [{"text": text, "warning": warning} for text, warning in view.messages][-5:],
                "trials": [self._trial(*running) for running in view.running.values()],
            }
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(now), encoding="utf-8")
        partial.replace(self._path)

    def _trial(self, trial: Trial, progress: Progress | None) -> dict[str, Any]:
        return {
            "id": trial.id,
            "experiment": trial.experiment,
            "name": trial_name(trial, self._view.baselines),
            "place": trial.place,
            "state": trial_state(trial, progress),
            "fraction": progress.fraction if progress else 0.0,
            "progress": asdict(progress) if progress else None,
            "curve": self._curves.get(trial.id, []),
        }


def read_now(folder: Path) -> Mapping[str, Any]:
    """What the file of a search says; empty if there is none, as when the search does not run."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
        found = json.loads(text, parse_constant=lambda _: None)  # a loss may be NaN
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
