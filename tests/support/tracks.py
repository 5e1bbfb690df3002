"""Tracks of the toy task, and people who contribute to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from autoresearch.config import load
from autoresearch.edit.candidate import diff
from autoresearch.report import page
from autoresearch.search.setup.open import open_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.swarm.contribution import Evidence, Signed, sign, tree_digest
from autoresearch.swarm.identity import Identity
from autoresearch.types import in_order
from tests.support import toy_task
from tests.support.stub import git

PADS = "".join(f"pad{i} = 0\n" for i in range(9))
SCRIPT = f"LEVEL = 1.0  # 0..2\n{PADS}OTHER = 0\n{PADS}MORE = 0\n"
"""A script with lines that can be edited apart from each other."""

SETTINGS = ("task=toy", "tracking=none", "baselines=3", "proposer=random", "claim=0", "experiments=0")

LIMITS = load([], {}, own_file=False).serve


def quicken(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    """Make the toy task known, and reports without pictures, which take most of the time."""
    toy_task.install(monkeypatch, site)
    for plot in ("write_progress_plot", "write_timeline_plot"):
        monkeypatch.setattr(page, plot, lambda *_: None)


def make_track(name: str = "t", *overrides: str) -> Path:
    """Begin a track in the current folder: its baseline is trained."""
    with open_search([f"name={name}", *SETTINGS, *overrides], "quiet") as search:
        search.run()
    return search.folder


def tip_of(folder: Path) -> tuple[str, dict[str, str]]:
    """Commit and files of the tip of a track."""
    with closing(Journal(folder / "journal.db")) as journal:
        kept = [e.commit for e in in_order(journal.experiments()) if e.kept]
        tip = kept[-1] if kept else journal.info().base_commit
    return tip, Repository(folder.parent.parent).sources(tip, [toy_task.PATH])


def make_begun_root(root: Path) -> None:
    """A repository with the track `t`, whose baseline is trained; the toy task must be known."""
    toy_task.make_repository(root)
    (root / toy_task.PATH).write_text(SCRIPT)
    git(root, "commit", "-qam", "pads")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_track()


class Person:
    """Somebody with a key of their own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.key = name, Identity.make(folder / name / "key")

    def change(
        self,
        track: Path,
        old: str,
        new: str,
        *,
        at: tuple[str, dict[str, str]] | None = None,
        pairs: Sequence[tuple[int, float, float]] = ((1, 0.6, 0.61), (2, 0.6, 0.61)),
        **fields: object,
    ) -> Signed:
        """A signed contribution that replaces a text in the script."""
        parent, sources = at or tip_of(track)
        assert old in sources[toy_task.PATH]
        after = {toy_task.PATH: sources[toy_task.PATH].replace(old, new)}
        given = {
            "track": track.name,
            "parent": parent,
            "patch": diff(sources, after),
            "tree": tree_digest(after),
            "title": f"{old} becomes {new}",
            "why": "it may help",
            "evidence": Evidence(tuple(pairs), "cpu"),
            "author": self.name,
            "time": 1_700_000_000.0,
        }
        return sign(self.key, **{**given, **fields})
