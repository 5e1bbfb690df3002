"""A link: what the server signs about a kept commit. And the published chain, which a clone holds as a ref.

The ref holds the log of the track in files of a fixed number of entries, and the signed contributions that
were kept. It is made from the store, grows by one commit at a time, and the same log gives the same commits.
Not covered: checking it (`check`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from autoresearch.errors import Refused, UserError
from autoresearch.search.loop import Search
from autoresearch.search.setup.environment import environment_at
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.contribution import canonical, sha256, strict_json, tree_digest
from autoresearch.swarm.log import Entry
from autoresearch.types import Experiment, Plain

REF = "refs/autoresearch-chain/"
"""Before the name of a track: where its published chain lies."""

CONTRIBUTOR = "contributor:"
"""Stands before the name of a contributor where a search names who proposed something."""

SEGMENT = 200
"""Entries in each file of the published log."""

LOG, CONTRIBUTIONS = "log", "contributions"
"""Folders of the published chain."""


@dataclass(frozen=True)
class Digests(Plain):
    """Of what a score depends on: two measurements with the same digests are comparable."""

    task: str
    data: str
    judge: str
    environment: str


@dataclass(frozen=True)
class Link(Plain):
    """A kept commit, as the server measured it.

    Attributes:
        commit: Full hash.
        parent: Of its only parent.
        tree: Digest of its editable files; see `tree_digest`.
        metric: Name of the number that decides.
        pairs: Seed, score of the parent, score of the commit.
        effect: Gain over the parent (positive is better).
        interval: 95% interval of `effect`.
        digests: Of task, data, judge and environment.
    """

    commit: str
    parent: str
    tree: str
    metric: str
    pairs: tuple[tuple[int, float, float], ...]
    effect: float | None
    interval: tuple[float, float] | None
    digests: Digests


def digests(search: Search, time: float) -> Digests:
    """The digests of a search, for what was measured at a time (Unix time in seconds)."""
    config, info, task = search.config, search.journal.info(), search.task
    environment = environment_at(search.journal, time)
    frozen = search.repository.entries(info.base_commit, task.frozen)
    editable = set(search.repository.matching(info.base_commit, task.editable))
    meant = {
        "name": task.name,
        "budget": dict(config.budget),
        "task": dict(config.task),
        "guards": config.guards.model_dump(mode="json"),
        "frozen": {path: [e.mode, e.hash] for path, e in frozen.items() if path not in editable},
    }
    return Digests(
        task=_digest(meant),
        data=_digest(dict(info.data)),
        judge=_digest(dict(config.judge)),
        environment=_digest(dict(environment.values) if environment else {}),
    )


def link_of(search: Search, kept: Experiment) -> Link:
    """The link of an experiment that was kept."""
    verdict, repository = kept.verdict, search.repository
    assert verdict is not None
    sources = repository.sources(kept.commit, search.task.editable)
    return Link(
        commit=kept.commit,
        parent=repository.read(kept.commit).parents[0],
        tree=tree_digest(sources),
        metric=search.task.metric.name,
        pairs=verdict.pairs,
        effect=verdict.effect,
        interval=verdict.interval,
        digests=digests(search, kept.created),
    )


def _digest(value: object) -> str:
    return sha256(canonical(value))


# The published chain


def published(repository: Repository, track: str) -> int:
    """How many entries of the log are published."""
    commit = repository.resolve(f"{REF}{track}")
    if commit is None:
        return 0
    files = [path for path in repository.files(commit, [LOG]) if path.startswith(f"{LOG}/")]
    last = max(files)
    text = repository.sources(commit, [last])[last]
    return int(last.removeprefix(f"{LOG}/").partition(".")[0]) * SEGMENT + text.count("\n")


def publish(
    repository: Repository, track: str, entries: Iterable[Entry], contributions: Mapping[str, str]
) -> str | None:
    """Bring the published chain of a track up to date.

    Args:
        repository: Of the track.
        track: Its name.
        entries: Its log from entry `published(...) // SEGMENT * SEGMENT` on.
        contributions: Digest -> signed contribution as JSON, of those that were kept; at least the new ones.

    Returns:
        The commit of the published chain; None if there is no entry.
    """
    ref = f"{REF}{track}"
    before = repository.resolve(ref)
    files: dict[str, str] = {}
    last: Entry | None = None
    for last in entries:
        path = f"{LOG}/{last.number // SEGMENT:06d}.jsonl"
        files[path] = files.get(path, "") + canonical(last.to_dict()).decode() + "\n"
    if last is None:
        return before
    files |= {f"{CONTRIBUTIONS}/{digest}.json": text for digest, text in contributions.items()}
    message = f"Log of {track} up to entry {last.number}\n\nHash: {last.hash}\n"
    made = repository.commit(before or "", files, message, last.time)
    if before and repository.entries(before) == repository.entries(made):
        return before
    repository.update_refs({ref: made}, expected={ref: before}, message="autoresearch: chain")
    return made


class Published:
    """A published chain, for reading.

    Args:
        repository: A clone that holds it.
        track: Name of the track.

    Raises:
        UserError: If it does not hold the chain.
    """

    def __init__(self, repository: Repository, track: str) -> None:
        commit = repository.resolve(f"{REF}{track}")
        if commit is None:
            raise UserError(
                f"This repository does not hold the chain of {track}.",
                f"Fetch it: git fetch origin '+{REF}*:{REF}*'",
            )
        self._repository, self._commit = repository, commit
        self._files = repository.files(commit, [LOG, CONTRIBUTIONS])

    def entries(self) -> Iterator[Entry]:
        """Every entry, as it stands there; one file is in memory at a time.

        Raises:
            UserError: If a line is no entry.
        """
        for path in sorted(path for path in self._files if path.startswith(f"{LOG}/")):
            for line in self._repository.sources(self._commit, [path])[path].splitlines():
                try:
                    yield Entry.from_dict(strict_json(line))
                except (Refused, ValueError, TypeError) as error:
                    raise UserError(f"{path} of the chain is damaged: {error}.", "Fetch it again.") from None

    def contribution(self, digest: str) -> str | None:
        """A signed contribution as JSON; None if it is not there."""
        path = f"{CONTRIBUTIONS}/{digest}.json"
        return self._repository.sources(self._commit, [path])[path] if path in self._files else None
