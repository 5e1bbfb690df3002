"""What the owner of tracks may do: ban a contributor, hide texts, take commits back, back up and restore.

Everything is written to the log, where anyone can see it; nothing is deleted. To take a commit back is what
the search does with a change that is found to be invalid: branch and judge step back, and what others had
kept on top of it is measured again. Not covered: who may do it: whoever can write the folder of searches.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.finish.export import export_search, import_search
from autoresearch.search.checks.revocation import revoke, settle
from autoresearch.search.loop import Search
from autoresearch.search.setup.open import open_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.lock import lock
from autoresearch.swarm.store import FOLDER, Received, State, Store
from autoresearch.swarm.verify.follower import Follower, contribution_of
from autoresearch.types import in_order

STORE, KEYS = "store.db", ("key", "key.pub")
"""Files of a backup, besides an exported search for each track."""


def hide(store: Store, track: str, numbers: Sequence[int], reason: str) -> None:
    """Hide the texts of contributions; an empty reason shows them again.

    Raises:
        UserError: If the track has no contribution of that number.
    """
    known = {one.number: one for one in store.contributions(track)}
    if unknown := [number for number in numbers if number not in known]:
        raise UserError(f"{track} has no contribution {unknown[0]}.", "The leaderboard tells their numbers.")
    action = "hide" if reason else "show"
    for number in numbers:
        told = {"action": action, "contribution": known[number].digest, "reason": reason}
        store.moderate(track, told, {number: reason})


def remove(folder: Path, store: Store, whose: str, reason: str) -> list[int]:
    """Rebuild the branch of a track without the commits of a contributor.

    Args:
        folder: Of the search of the track; nobody may verify it meanwhile.
        store: The store.
        whose: Fingerprint of the contributor's key.
        reason: Why, for the log.

    Returns:
        Numbers of the experiments that were taken back as theirs.

    Raises:
        UserError: If another process verifies the track.
    """
    taken = []
    with open_search([f"name={folder.name}", f"runs={folder.parent}"], "quiet", proposes=False) as search:
        received = {one.number: one for one in store.contributions(folder.name)}
        while (number := _first(search, received, whose)) is not None:
            told = {"action": "remove", "who": whose, "reason": reason}
            told["commit"] = search.journal.experiment(number).commit
            store.moderate(folder.name, told)
            revoke(search.state, number, f"the owner of the track took it back: {reason}")
            for draft in search.journal.drafts():
                if _sender(received, contribution_of(draft.proposal)) == whose:
                    search.journal.drop(draft, reason)
            taken.append(number)
        settle(search.state)
        Follower(store, search).settle()
        for one in received.values():
            if one.who == whose and one.state is State.WAITING:
                store.close_without_run(one.number, State.REFUSED, reason)
    return taken


def _first(search: Search, received: dict[int, Received], whose: str) -> int | None:
    """The first kept experiment of a contributor."""
    for e in in_order(search.journal.experiments()):
        if e.kept and _sender(received, contribution_of(e.proposal)) == whose:
            return e.number
    return None


def _sender(received: dict[int, Received], number: int | None) -> str:
    return received[number].who if number in received else ""


def back_up(runs: Path, names: Sequence[str], repository: Repository, target: Path) -> int:
    """Write tracks into one file, with the store and the server's key; they may be served meanwhile.

    Args:
        runs: Folder of searches.
        names: Of the tracks.
        repository: With their commits.
        target: The file, which must not exist; only its owner can read it.

    Returns:
        Its size in bytes.

    Raises:
        UserError: If it exists, or a track has no commit to be exported yet.
    """
    if target.exists():
        raise UserError(f"{target} exists already.", "Name another file.")
    partial = target.with_name(f"{target.name}.part")
    partial.touch(mode=0o600)
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as name, zipfile.ZipFile(partial, "w") as file:
        # The store first: what it tells of is in the journals, which come later.
        with Store(runs / FOLDER) as store:
            store.copy(Path(name, STORE))
        file.write(Path(name, STORE), STORE)
        for key in KEYS:
            file.write(runs / FOLDER / key, key)
        for track in names:
            export_search(runs / track, repository, Path(name, f"{track}.search"))
            file.write(Path(name, f"{track}.search"), f"{track}.search")
    partial.rename(target)
    return target.stat().st_size


def restore(path: Path, repository: Repository, runs: Path) -> list[str]:
    """Open a backup in a repository that has no tracks; gives the names of the tracks.

    Args:
        path: The file; one that you wrote, since it brings the key of the server.
        repository: Gets the commits.
        runs: Gets the searches and the store.

    Raises:
        UserError: If there is a store or a search of one of the names, or the file is damaged.
    """
    folder = runs / FOLDER
    if (folder / STORE).exists():
        raise UserError(f"{folder} holds a store already.", "Restore into a new repository, or runs=FOLDER.")
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as name:
        try:
            with zipfile.ZipFile(path) as file:
                found = [entry for entry in file.namelist() if entry.endswith(".search") and "/" not in entry]
                for entry in (STORE, *KEYS, *found):
                    file.extract(entry, name)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no whole backup: {error}.", "Copy it again.", code=3) from None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with lock(folder):
            tracks = [import_search(Path(name, entry), repository, runs).name for entry in found]
            for entry in KEYS:
                shutil.copyfile(Path(name, entry), folder / entry)
                (folder / entry).chmod(0o600)
            shutil.copyfile(Path(name, STORE), folder / f"{STORE}.part")
            (folder / f"{STORE}.part").rename(folder / STORE)
    return tracks


def opened_store(runs: Path) -> closing[Store]:
    """The store of a server.

    Raises:
        UserError: If there is none.
    """
    if not (runs / FOLDER / STORE).exists():
        raise UserError(f"No track was served from {runs} yet.", "Serve one: autoresearch serve TRACK")
    return closing(Store(runs / FOLDER))
