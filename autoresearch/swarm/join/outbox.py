"""What a contributor submits: written down before it is sent, signed once, and followed until it is closed.

So nothing is sent twice, and nothing is lost, however often the contributor is killed. What came back because
it no longer fits the tip is merged onto it and left to the next round. Not covered: searching (`client`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.clock import now
from autoresearch.edit.apply import apply
from autoresearch.edit.candidate import carry, diff
from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.search.setup.environment import this_environment
from autoresearch.search.setup.settings import recorded_config
from autoresearch.store.connection import JOURNAL
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.swarm.chain.links import REF as CHAIN
from autoresearch.swarm.contribution import Evidence, Signed, canonical, sha256, sign, tree_digest
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.join.remote import Remote
from autoresearch.swarm.web.track import REF
from autoresearch.tasks import create_task
from autoresearch.text import clean, one_line
from autoresearch.types import Experiment, in_order

OUTBOX, ABOUT = "outbox", "track.json"
"""In the folder of searches: what was submitted, and which track the clone is of."""

OPEN = ("waiting", "taken")
"""States of a contribution that waits for its verdict."""


@dataclass(frozen=True)
class Joined:
    """A clone of a track on a contributor's machine.

    Attributes:
        root: Of the clone.
        runs: Its folder of searches.
        remote: The server.
        identity: The contributor's key.
        author: The contributor's name.
        settings: For its own searches, after those of the track.
        say: Tells a person something.
    """

    root: Path
    runs: Path
    remote: Remote
    identity: Identity
    author: str
    settings: tuple[str, ...]
    say: Callable[[str], None]

    @property
    def repository(self) -> Repository:
        """The clone."""
        return Repository(self.root)

    @property
    def outbox(self) -> list[Path]:
        """What was submitted, oldest first."""
        return sorted((self.runs / OUTBOX).glob("*.json"))


def offers(joined: Joined, folder: Path) -> Iterator[tuple[str, Signed]]:
    """What the judge of a round has kept and was not submitted yet: its name in the outbox, and the offer."""
    config = recorded_config(folder)
    task, repository = create_task(config), joined.repository
    with Journal.of(folder) as journal:
        info, experiments = journal.info(), in_order(journal.experiments())
    environment = sha256(canonical(dict(this_environment(config, task).values)))
    tip = repository.sources(info.base_commit, task.editable)
    known = {path.stem.partition("-")[2] for path in joined.outbox}
    for e in experiments:
        name = f"{folder.name}-{e.number:04d}"
        if not e.kept or e.proposal is None or name in known:
            continue
        after = _alone(repository, e, tip, task.editable)
        yield (
            name,
            sign(
                joined.identity,
                track=joined.remote.track,
                parent=info.base_commit,
                patch=diff(tip, after),
                tree=tree_digest(after),
                title=one_line(e.proposal.hypothesis, 160),
                why=clean(e.proposal.mechanism)[:4000],
                evidence=Evidence(_pairs(e), one_line(info.device, 160), environment),
                author=joined.author,
                time=now(),
            ),
        )


def _alone(
    repository: Repository, e: Experiment, tip: Mapping[str, str], editable: Sequence[str]
) -> Mapping[str, str]:
    """The tip with this change alone; with all that was kept before it where it does not fit without."""
    base, theirs = (repository.sources(commit, editable) for commit in (e.parent, e.commit))
    try:
        return carry(tip, base, theirs, e.proposal.edits if e.proposal else (), repository.merge)
    except Refused:
        return theirs


def _pairs(e: Experiment) -> tuple[tuple[int, float, float], ...]:
    """What was measured: seed, score of what it was compared with, score of the change."""
    return tuple(e.verdict.pairs[:64]) if e.verdict else ()


def deliver(joined: Joined) -> None:
    """Write down what is to be submitted, and send what the server does not have yet."""
    (joined.runs / OUTBOX).mkdir(exist_ok=True)
    for journal in sorted(joined.runs.glob(f"*/{JOURNAL}")):
        for name, signed in offers(joined, journal.parent):
            path = joined.runs / OUTBOX / f"{len(joined.outbox):05d}-{name}.json"
            write(path, {"signed": signed.to_dict()})
    for path in joined.outbox:
        send(joined, path)


def send(joined: Joined, path: Path) -> None:
    """Send one contribution of the outbox, or ask what became of it; what is closed stays so."""
    note = json.loads(path.read_text(encoding="utf-8"))
    row = note.get("row")
    if row is not None and row["state"] not in OPEN:
        return
    signed = Signed.from_plain(note["signed"])
    title = signed.contribution.title
    if row is None:
        row = joined.remote.submit(signed)
        said = "was refused: " + one_line(row["reason"], 400) if row["state"] == "refused" else "is submitted"
        joined.say(f"{title}: {said}")
    else:
        row = joined.remote.status(signed.contribution.digest)
        if row["state"] != note["row"]["state"] and row["state"] not in OPEN:
            joined.say(f"{title}: {one_line(str(row['state']))}. {one_line(str(row['reason']), 400)}")
    write(path, {**note, "row": row})


def rebase(joined: Joined, about: Mapping[str, Any], folder: Path) -> None:
    """Leave what came back, merged onto the tip, as patches that this round tries first; each once."""
    repository, inbox = joined.repository, Inbox(folder)
    task = create_task(recorded_config(folder))
    tip = repository.sources(about["tip"], task.editable)
    for path in joined.outbox:
        note = json.loads(path.read_text(encoding="utf-8"))
        if note.get("row", {}).get("state") != "returned" or note.get("rebased"):
            continue
        sent = Signed.from_plain(note["signed"]).contribution
        base = repository.sources(sent.parent, task.editable)
        edits = edits_from_patch(sent.patch, base)
        try:
            merged = carry(tip, base, apply(base, edits), edits, repository.merge)
        except Refused as error:
            joined.say(f"{sent.title}: given up, since {error}")
        else:
            if merged != tip and sent.title not in {entry.idea.text for entry in inbox.entries()}:
                inbox.add_idea(sent.title, diff(tip, merged))
        write(path, {**note, "rebased": about["tip"]})


def fetch_tip(repository: Repository, remote: Remote, tip: str) -> None:
    """Fetch the tip of a track, under a ref of its own."""
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as name:
        bundle = Path(name, "bundle")
        remote.download("bundle", bundle)
        ref = f"{REF}{remote.track}"
        repository.fetch(bundle, {ref: f"{ref}-{tip[:10]}"})
        fetch_chain(repository, bundle, remote.track)


def fetch_chain(repository: Repository, bundle: Path, track: str) -> None:
    """Take the chain of a track over from a bundle, and the tip that it leads to, for `verify-chain`."""
    repository.fetch(bundle, {f"+{REF}{track}": f"{REF}{track}", f"+{CHAIN}{track}": f"{CHAIN}{track}"})


def track_of(root: Path) -> str:
    """The address of the track that a clone is of.

    Raises:
        UserError: If it is none.
    """
    note = Repository(root).root / "runs" / ABOUT
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, KeyError):
        raise UserError("This is no clone of a track.", "Say which track: --url URL") from None


def write(path: Path, value: Any) -> None:
    """Replace a JSON file at once, so that a kill leaves the old one or the new one."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(path)
