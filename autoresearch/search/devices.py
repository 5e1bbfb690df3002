"""Kinds of devices: which scores may be compared, and the baselines that each kind needs first.

Under a budget of seconds a faster device trains longer, and scores better. So a candidate meets the incumbent
on one kind of device only: each of the judge's seeds belongs to one (`judge.base.Judge.use_device`). Before a
further kind is used, the starting script is trained there on the seeds of the baseline. What it scores
otherwise is taken off each score from there, so that levels and plots have one unit; no verdict rests on it.

Where the same seed should give the same score, as under a budget of tokens, one training tells whether it
does. If so, scores are shared; if not, the kind is treated as under seconds. The first kind is the one on
which the baseline was trained. Invariant: what was found is in the journal before the kind is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from autoresearch.clock import now
from autoresearch.execute.base import Place
from autoresearch.search.observers import View
from autoresearch.search.steps import Ended, Steps
from autoresearch.store.journal import Journal
from autoresearch.store.records.notes import Notes, read_records, write_records
from autoresearch.text import one_line
from autoresearch.types import Arm, Measurement, Outcome, Plain, Split, Trial

DEVICES = "devices"
"""Key of the journal's note with every further kind of device."""

ROUNDING = 1e-5
"""Largest difference of a score that counts as the same, as a share of it."""

MEASURED = "score_measured"
"""The metric that holds a score as it was measured, where the score is given as on the first kind."""


@dataclass(frozen=True)
class Kind(Plain):
    """A further kind of device, on which the starting script was trained.

    Attributes:
        device: Its fingerprint.
        shared: Whether it gives the same scores as the first kind.
        offset: By how much it scores higher than the first kind.
        metrics: Largest of each number that those trainings measured.
        first: The first kind.
    """

    device: str
    shared: bool
    offset: float
    metrics: Mapping[str, float]
    first: str

    def __str__(self) -> str:
        name, first = one_line(self.device, 60), one_line(self.first, 60)
        if self.shared:
            return f"{name} gives the same scores as {first}: they are shared."
        return f"{name} scores {self.offset:+.4g} beside {first}: each is compared with its own runs only."


def read_kinds(notes: Notes) -> list[Kind]:
    """The further kinds of devices of a search, in the order in which they came."""
    return read_records(notes, DEVICES, Kind)


class Devices:
    """The kinds of devices of one search.

    Attributes:
        unfit: Those that could not train the starting script, and why.
    """

    def __init__(self, journal: Journal) -> None:
        """Read what is known."""
        self._journal = journal
        self._kinds = {kind.device: kind for kind in read_kinds(journal)}
        self._first = ""
        self.unfit: dict[str, str] = {}

    @property
    def baseline(self) -> list[Trial]:
        """The trainings of the baseline that have a score."""
        trials = self._journal.experiment(0).trials
        return [t for t in trials if t.result and t.score is not None and t.arm is Arm.BASELINE]

    @property
    def first(self) -> str:
        """The first kind, on which the baseline is trained; empty before that."""
        if not self._first:
            self._first = next((t.result.provenance.device for t in self.baseline if t.result), "")
        return self._first

    def begin(self, device: str) -> None:
        """Train the baseline on a device, unless it has begun on another one."""
        self._first = self.first or device

    def is_known(self, device: str) -> bool:
        """Whether trials may run on a device."""
        return not device or not self.first or device == self.first or device in self._kinds

    def name(self, device: str) -> str:
        """What the judge calls the kind of a device: nothing if it gives the scores of the first kind."""
        known = self._kinds.get(device)
        return device if known and not known.shared else ""

    def runs_as(self, result: Measurement, name: str) -> bool:
        """Whether a trial ran on the kind of device that was asked for, as the judge calls it."""
        device = result.provenance.device
        return not device or (self.is_known(device) and self.name(device) == name)

    def metrics(self, device: str) -> Mapping[str, float] | None:
        """Largest of each number that the starting script measured there; None on the first kind."""
        known = self._kinds.get(device)
        return known.metrics if known else None

    def levelled(self, result: Measurement) -> Measurement:
        """A result with its score as on the first kind of device."""
        known = self._kinds.get(result.provenance.device)
        if known is None or known.shared or result.score is None:
            return result
        metrics = {**result.metrics, MEASURED: result.score}
        return replace(result, score=result.score - known.offset, metrics=metrics)

    def add(self, kind: Kind) -> None:
        """Use a further kind from now on."""
        self._kinds[kind.device] = kind
        write_records(self._journal, DEVICES, self._kinds.values())


@dataclass(frozen=True)
class OnDevice:
    """Starts a training that must run on one kind of device.

    Attributes:
        device: Its fingerprint.
        begin: Starts it there.
    """

    device: str
    begin: Callable[[], Trial]

    def __call__(self) -> Trial:
        """Start it."""
        return self.begin()


def compare_devices(
    devices: Devices, places: Iterable[Place], start: Callable[..., Trial], view: View, *, steady: bool
) -> Steps[None]:
    """Train the starting script on the next kind of device that is not known yet, if there is any.

    Args:
        devices: Those that are known.
        places: Where trials can run.
        start: Starts a training that is not judged; see `Scheduler.start_unrecorded`.
        view: Is told.
        steady: Whether the same seed should give the same score.
    """
    unknown = (p.device for p in places if not devices.is_known(p.device) and p.device not in devices.unfit)
    device = next(unknown, "")
    if not device:
        return
    gaps: list[float] = []
    shared, metrics = False, dict[str, float]()
    for old in devices.baseline:
        again = replace(old, id=0, arm=Arm.AUDIT, started=now(), finished=None, result=None, place="")
        trial = replace(again, label=f"baseline on {one_line(device, 40)}")
        begin = partial(start, trial, (Split.VALIDATION,), "", device=device)
        ended: Ended = yield OnDevice(device, begin)
        result = ended.result
        if result.provenance.device not in ("", device):
            return  # its places are gone; it begins again once there is one
        if result.score is None or result.outcome is not Outcome.OK or old.score is None:
            devices.unfit[device] = result.reason
            view.message(
                f"{device} is not used: the starting script fails there: {result.reason}", warning=True
            )
            return
        gaps.append(result.score - old.score)
        metrics = {name: max(value, metrics.get(name, value)) for name, value in result.metrics.items()}
        shared = steady and all(abs(gap) <= ROUNDING * abs(old.score) for gap in gaps)
        if shared:
            break
    kind = Kind(device, shared, 0.0 if shared else fmean(gaps), metrics, devices.first)
    devices.add(kind)
    view.message(str(kind))
