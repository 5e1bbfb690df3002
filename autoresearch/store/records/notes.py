"""Records that the journal keeps as notes: briefs, samples, settings, unbilled costs, revoked changes.

Each kind is JSON under one key. Not covered: claims and audits (`claims`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from autoresearch.clock import now
from autoresearch.config import roles
from autoresearch.errors import UserError
from autoresearch.store.journal import Journal
from autoresearch.text import flatten
from autoresearch.types import Cost, Diagnosis, Plain

Record = TypeVar("Record", bound=Plain)

BRIEFS, UNBILLED, AFTER, PAID_AFTER = "briefs", "owed", "seconds_after", "dollars_after"
REVOKED, RECHECKS, SLICES, ABOUT = "revoked", "rechecks", "slices", "about"
SETTINGS, DIAGNOSES, SAMPLES = "settings", "diagnoses", "samples"
"""The keys."""

UNTOLD = ("name", "runs", "brief", "experiments", "minutes", "choices", "overrides")
"""Keys that say how long to go on, or follow from others; a brief has records of its own."""


class Notes(Protocol):
    """Texts by key; a journal, or a snapshot of one."""

    def get(self, key: str) -> str | None:
        """The note under a key, if there is one."""


class WritableNotes(Notes, Protocol):
    """Notes that can be changed; a journal."""

    def set(self, key: str, value: str) -> None:
        """Write or replace the note under a key."""


@dataclass(frozen=True)
class Brief(Plain):
    """One text of the brief, which may be edited while a search runs.

    Attributes:
        time: Unix time from which it was used, in seconds.
        name: Of a shipped brief, or path.
        text: Its Markdown.
    """

    time: float
    name: str
    text: str

    @property
    def hash(self) -> str:
        """By which one text is told from another: twelve digits of its sha256."""
        return hashlib.sha256(self.text.encode("utf-8", "replace")).hexdigest()[:12]


@dataclass(frozen=True)
class Revoked(Plain):
    """A change that was kept, and found to be invalid in a later run.

    Attributes:
        number: The experiment.
        reason: What a later run showed.
        time: When, Unix time in seconds.
        commits: Commits that were the branch's, and are not any more: its own, and those kept after it.
        also: Experiments that were kept after it: they are not kept any more, and are judged again.
    """

    number: int
    reason: str
    time: float
    commits: tuple[str, ...]
    also: tuple[int, ...] = ()


def read_diagnoses(notes: Notes) -> list[Diagnosis]:
    """What the incumbents printed with edits that only print, oldest first."""
    return read_records(notes, DIAGNOSES, Diagnosis)


def read_revoked(notes: Notes) -> list[Revoked]:
    """Every kept change that was found to be invalid, oldest first."""
    return read_records(notes, REVOKED, Revoked)


def read_rechecks(notes: Notes) -> list[int]:
    """Kept experiments that must be run again, because something else of their author was invalid."""
    return list(json.loads(notes.get(RECHECKS) or "[]"))


@dataclass(frozen=True)
class SliceUse(Plain):
    """One slice of held-out text, used to check one change before it was kept.

    Attributes:
        experiment: The experiment.
        share: Which slice.
        of: Number of slices.
        time: When it was opened, Unix time in seconds.
        questions: Seed of the blind questions.
        outcome: How the check ended; empty if the search was killed meanwhile.
        reason: What it showed.
        commit: The candidate's; empty in searches of older versions. On top of another incumbent it is
            checked again.
        ended: When it showed that; 0 if that is not known.
        trials: Its two trainings, the candidate's first, by their numbers in the journal; empty if one of
            them failed, and in searches of older versions, whose journals do not hold them.
    """

    experiment: int
    share: int
    of: int
    time: float
    questions: int
    outcome: str = ""
    reason: str = ""
    commit: str = ""
    ended: float = 0.0
    trials: tuple[int, ...] = ()


def read_slices(notes: Notes) -> list[SliceUse]:
    """Every slice of held-out text that was used, in order."""
    return read_records(notes, SLICES, SliceUse)


def write_slice(notes: WritableNotes, use: SliceUse) -> None:
    """Record the use of a slice, or what it showed."""
    write_records(notes, SLICES, {u.share: u for u in [*read_slices(notes), use]}.values())


@dataclass(frozen=True)
class Sample(Plain):
    """Text that one model of a search has written.

    Attributes:
        experiment: Of the model; 0 is the start.
        commit: Its commit.
        prompt: What the text begins with.
        texts: Of the model, without control characters: data, never instructions.
        time: Unix time in seconds.
    """

    experiment: int
    commit: str
    prompt: str
    texts: tuple[str, ...]
    time: float


def read_samples(notes: Notes) -> list[Sample]:
    """What the models of a search wrote last, the start first."""
    return read_records(notes, SAMPLES, Sample)


def write_samples(notes: WritableNotes, samples: Iterable[Sample]) -> None:
    """Record what models wrote, in place of what was recorded before."""
    write_records(notes, SAMPLES, samples)


def read_records(notes: Notes, key: str, kind: type[Record]) -> list[Record]:
    """The records under a key, in order; empty if there are none."""
    return [kind.from_dict(data) for data in json.loads(notes.get(key) or "[]")]


def write_records(notes: WritableNotes, key: str, records: Iterable[Plain]) -> None:
    """Replace the records under a key."""
    notes.set(key, note_text(records))


def note_text(records: Iterable[Plain]) -> str:
    """The note that `read_records` reads, for what is written together with other things."""
    return json.dumps([record.to_dict() for record in records])


def read_briefs(notes: Notes) -> list[Brief]:
    """Every text that the brief has had, oldest first; empty for old searches, which did not record them."""
    return read_records(notes, BRIEFS, Brief)


def current_brief(journal: Journal, path: Path, name: str = "", edited: Brief | None = None) -> str:
    """The brief as it is now; if it has changed since the last call, the new text is recorded with its time.

    What the search was begun with stays the brief of the search.

    A file that cannot be read or is empty (deleted, or half written) counts as unchanged, so that no search
    ends at night because of it.

    Args:
        journal: Of the search.
        path: The file or folder.
        name: What it is called in the configuration; empty if that has not changed.
        edited: What a person wrote for this search alone. It counts if it was made of the brief of that name,
            and until the file is changed after it.
    """
    info, known = journal.info(), read_briefs(journal)
    if not known:
        known = [Brief(info.created, info.brief, info.brief_text)] if info.brief_text else []
    last = known[-1] if known else Brief(info.created, info.brief, "")
    name, text, when = name or info.brief, last.text, 0.0
    with suppress(OSError, UnicodeDecodeError, UserError, KeyError):
        text, when = roles.read(path), max(file.stat().st_mtime for file in roles.files(path))
    if edited is not None and edited.name == name and edited.time >= when:
        text, name = edited.text, f"{name}, edited"
    if not text.strip() and last.text:
        return last.text
    if text != last.text or not journal.get(BRIEFS):
        if text != last.text:
            known.append(Brief(now(), name, text))
        write_records(journal, BRIEFS, known)
    return text


@dataclass(frozen=True)
class SettingChange(Plain):
    """A setting that was another when a search went on; none of these decides what a score means.

    Attributes:
        time: From when on, Unix time in seconds.
        key: Such as "proposer.models".
        before: Its value before; None too for an option that the choice before did not have.
        after: Its value since then.
    """

    time: float
    key: str
    before: Any
    after: Any


def read_setting_changes(notes: Notes) -> list[SettingChange]:
    """Every setting that was changed when the search went on, oldest first."""
    return read_records(notes, SETTINGS, SettingChange)


def record_settings(
    journal: Journal, config: Mapping[str, Any], chosen_at_start: Mapping[str, str]
) -> list[SettingChange]:
    """Record the settings with which a search goes on, and give those among them that have changed.

    Args:
        journal: Of the search.
        config: All settings, as JSON-ready values. Those of a choice that is left behind are not told.
        chosen_at_start: What the program chose for settings that nobody had set. To go on with that is no
            change.
    """
    known, given, time = flatten(journal.info().config), flatten(config), now()

    def chosen(key: str) -> bool:
        name = f"{key.partition('.')[0]}.name"
        return key not in known and known.get(name) != given.get(name)  # an option of another choice

    changed = [
        SettingChange(time, key, known.get(key), value)
        for key, value in given.items()
        if key.partition(".")[0] not in UNTOLD
        and (key in known or chosen(key))  # an older version did not know some
        and known.get(key) != value
        and not (known.get(key) in ("auto", None) and str(value) == chosen_at_start.get(key))
    ]
    if changed:
        write_records(journal, SETTINGS, [*read_setting_changes(journal), *changed])
    journal.update(config=dict(config))
    return changed


def read_unbilled(notes: Notes) -> dict[str, Cost]:
    """Proposer and model ("anthropic:claude-sonnet-5-5") -> what it has cost that no proposal carries."""
    return {who: Cost(**cost) for who, cost in json.loads(notes.get(UNBILLED) or "{}").items()}


def write_unbilled(notes: WritableNotes, unbilled: Mapping[str, Cost], own: Collection[str]) -> None:
    """Record costs that no proposal carries; nothing is written if nothing has changed.

    Args:
        notes: The journal.
        unbilled: Proposer and model -> cost.
        own: The proposers that this is all of; what is recorded of others stays.
    """
    others = {who: cost for who, cost in read_unbilled(notes).items() if who.partition(":")[0] not in own}
    text = json.dumps({who: asdict(cost) for who, cost in {**others, **unbilled}.items()})
    if text != (notes.get(UNBILLED) or "{}"):
        notes.set(UNBILLED, text)


def seconds_after(notes: Notes) -> float:
    """How long the trainings after the search, of claims and audits, kept devices busy."""
    return float(notes.get(AFTER) or 0.0)


def dollars_after(notes: Notes) -> float:
    """What the trainings after the search paid for language models."""
    return float(notes.get(PAID_AFTER) or 0.0)
