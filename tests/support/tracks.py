"""Tracks of the toy task, and people who contribute to them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from autoresearch.config import Serve, load
from autoresearch.edit.candidate import diff
from autoresearch.report import page
from autoresearch.search.setup.open import open_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.swarm.contribution import Evidence, Signed, sign, tree_digest
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.join.client import clone, work
from autoresearch.swarm.join.outbox import Joined
from autoresearch.swarm.join.remote import Remote
from autoresearch.swarm.store import Store
from autoresearch.swarm.web.host import http_server, listen
from autoresearch.swarm.web.track import Track
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
        folder: Path,
        old: str,
        new: str,
        *,
        at: tuple[str, dict[str, str]] | None = None,
        pairs: Sequence[tuple[int, float, float]] = ((1, 0.6, 0.61), (2, 0.6, 0.61)),
        **fields: object,
    ) -> Signed:
        """A signed contribution that replaces a text in the script."""
        parent, sources = at or tip_of(folder)
        assert old in sources[toy_task.PATH]
        after = {toy_task.PATH: sources[toy_task.PATH].replace(old, new)}
        given = {
            "track": folder.name,
            "parent": parent,
            "patch": diff(sources, after),
            "tree": tree_digest(after),
            "title": " ".join(f"{old} becomes {new}".split()),
            "why": "it may help",
            "evidence": Evidence(tuple(pairs), "cpu"),
            "author": self.name,
            "time": 1_700_000_000.0,
        }
        return sign(self.key, **{**given, **fields})


@contextmanager
def served(
    found: Mapping[str, Track], store: Store, limits: Serve = LIMITS, proxies: str = ""
) -> Iterator[str]:
    """A server on the loopback, in a thread; gives its address."""
    listener = listen("127.0.0.1", 0)
    server = http_server(dict(found), store, limits, proxies)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Joiner:
    """Somebody who joined a track, with proposals that are known; each line replaces a text in the script."""

    def __init__(self, folder: Path, name: str, url: str, changes: Sequence[tuple[str, str]]) -> None:
        self.person, self.said = Person(folder, name), list[str]()
        self.root, self.name = folder / f"{name}-clone", name
        self.remote, self.file = Remote(url), folder / f"{name}.jsonl"
        self.propose(changes)

    def propose(self, changes: Sequence[tuple[str, str]]) -> None:
        """Propose these from now on."""
        lines = [
            {
                "hypothesis": f"{self.name}: {old} becomes {new}",
                "category": "other",
                "edits": [{"path": toy_task.PATH, "search": old, "replace": new}],
            }
            for old, new in changes
        ]
        self.file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def work(self) -> list[dict[str, str]]:
        """Search until the proposals are used up; gives what became of what was submitted."""
        clone(self.remote, self.root)
        runs, key = self.root / "runs", self.person.key
        joined = Joined(self.root, runs, self.remote, key, self.name, self.settings, self.said.append)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            work(joined, "quiet")
        return self.rows

    @property
    def settings(self) -> tuple[str, ...]:
        """Of its own searches."""
        return ("tracking=none", "proposer=replay", f"proposer.path={self.file}", "experiments=50")

    @property
    def rows(self) -> list[dict[str, str]]:
        """What became of what was submitted, as far as it knows."""
        paths = sorted(self.root.glob("runs/outbox/*.json"))
        return [json.loads(path.read_text())["row"] for path in paths]
