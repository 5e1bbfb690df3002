"""The files of a search beside its journal: losses of single items, and what may be removed to make room.

A scored trial of a task whose metric is per item leaves `runs/<name>/losses/<trial>/SPLIT.items.npy`, float64
[items, 3]: the loss and the weight of each item, and the number of the document that it is a part of. The
score is the sum of the losses divided by the sum of the weights. The sampling error of a split is computed
from these. Without the third column each item counts as a document.

Of old experiments, those whose scores nothing rests on lose their losses, and keep only the end of what they
printed and of what models were asked; `keep_logs` says how many experiments stay whole. Commits stay in git.
The caller of `trim` must keep the experiments that MLflow does not show yet. Not covered: the statistics
(`judge`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.errors import UserError
from autoresearch.store.calls import CallLog
from autoresearch.store.connection import JOURNAL, holds_search
from autoresearch.store.journal import Journal
from autoresearch.store.lock import LOCK, lock
from autoresearch.store.searches import STOPPED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REMAKABLE = (
    *("trials", "standby", "compiled", "compiled.*", "worktree", "trusted", "journal.partial", "agent"),
    "weights",
)
"""Patterns of what a search makes again when it goes on."""

CHARACTERS = 2000
"""How much of an old text stays: its end."""


LEVELS = 16
"""How deep the folders are nested that are removed without the system's tools."""

GROUPS = 32
"""Largest number of groups of documents by which a trial's losses are summed up for the judge."""


def losses_folder(search: Path, trial: int) -> Path:
    """Where the losses of a trial are."""
    return search / "losses" / str(trial)


def keep_losses(scratch: Path, folder: Path) -> dict[str, Path]:
    """Copy the losses from a trial's scratch folder: split -> file; empty if the trial has no score."""
    kept = {}
    for path in sorted(scratch.glob("*.npy")):
        folder.mkdir(parents=True, exist_ok=True)
        kept[path.stem] = Path(shutil.copyfile(path, folder / f"{path.stem}.items.npy"))
    return kept


def read_losses(folder: Path, split: str = "validation") -> NDArray[np.float64] | None:
    """Loss, weight and document of each item that has a weight, float64 [items, 3]; None if not kept."""
    import numpy as np

    path, old = folder / f"{split}.items.npy", folder / f"{split}.npy"
    table: NDArray[np.float64]
    if path.exists():
        table = np.load(path, allow_pickle=False)
    elif old.exists():  # older versions kept the nats and bytes of texts
        table = np.load(old, allow_pickle=False) * (1.0, np.log(2))
    else:
        return None
    if table.shape[1] == 2:  # older versions, and tasks that have no documents
        table = np.column_stack([table, np.arange(len(table))])
    return table[table[:, 1] > 0]


def document_losses(folder: Path, split: str = "validation") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What each group of documents contributes to a score, and its share of the weight of all.

    Neighbouring documents are put together until at most `GROUPS` groups are left, of about equal weight.
    Documents are never divided, since pieces of one gain alike.

    Args:
        folder: Of the trial's losses.
        split: The split that was scored.

    Returns:
        Contributions, which sum to the score, and shares, which sum to 1; both empty if they are not known.
    """
    import numpy as np

    table = read_losses(folder, split)
    if table is None:
        return (), ()
    documents = np.unique(table[:, 2], return_inverse=True)[1]
    losses, weights = (np.bincount(documents, table[:, column]) for column in (0, 1))
    if len(weights) < 2:
        return (), ()
    middle = (np.cumsum(weights) - weights / 2) / weights.sum()
    groups = np.unique((middle * min(GROUPS, len(weights))).astype(int), return_inverse=True)[1]
    parts, shares = (np.bincount(groups, column) / weights.sum() for column in (losses, weights))
    return tuple(map(float, parts)), tuple(map(float, shares))


@contextmanager
def locked_journal(folder: Path) -> Iterator[Journal]:
    """The journal of a search that no process runs meanwhile.

    Raises:
        UserError: If one does.
    """
    with lock(folder), Journal.of(folder) as journal:
        yield journal


def leftovers(runs: Path) -> list[Path]:
    """Folders of all searches, and of starts that failed before there was a journal, by name."""
    return sorted({path.parent for name in (JOURNAL, LOCK) for path in runs.glob(f"*/{name}")})


def trim(journal: Journal, keep: int) -> dict[str, int]:
    """Remove what only old experiments have; safe while the search runs.

    Args:
        journal: Of the search.
        keep: How many of the latest experiments stay whole.

    Returns:
        What was removed -> bytes that were freed.
    """
    freed = {}
    folder, experiments = journal.path.parent, journal.experiments()
    old = [e for e in experiments if 0 < e.number <= experiments[-1].number - keep]
    unneeded = [losses_folder(folder, trial.id) for e in old if not e.kept for trial in e.trials]
    if size := sum(map(_remove, unneeded)):
        freed["old losses"] = size
    calls = CallLog(folder)
    before = _size(journal.path), _size(calls.path)
    if journal.shorten_logs(keep, CHARACTERS):
        journal.compact()
        freed["old logs"] = max(0, before[0] - _size(journal.path))
    if old and calls.shorten(experiments[old[-1].number].finished or 0.0, CHARACTERS):
        freed["old prompts"] = max(0, before[1] - _size(calls.path))
    return freed


def clean(folder: Path, keep_logs: int) -> dict[str, int]:
    """Remove what a search that does not run can do without.

    Args:
        folder: Of the search.
        keep_logs: Of how many of its latest experiments to keep whole logs.

    Returns:
        What was removed -> bytes that were freed.

    Raises:
        UserError: If it runs.
    """
    freed: dict[str, int] = {}
    if not holds_search(folder):
        return {"a start that failed": remove_search(folder)}
    with locked_journal(folder) as journal:
        for pattern in REMAKABLE:
            if size := sum(map(_remove, list(folder.glob(pattern)))):
                name = pattern.removesuffix(".*")
                freed[name] = freed.get(name, 0) + size
        freed |= trim(journal, keep_logs)
    return freed


def remove_search(folder: Path, before: Callable[[], object] = lambda: None) -> int:
    """Remove a search that has ended; what git and MLflow have of it stays.

    Args:
        folder: Of the search.
        before: Called when it is certain that the search has ended, before anything is removed.

    Returns:
        Bytes that were freed.

    Raises:
        UserError: If it runs, or has not ended.
    """
    if not holds_search(folder):  # a start that failed, or what git has of a search that is gone
        with lock(folder):
            before()
            return _remove(folder)
    with locked_journal(folder) as journal:
        if journal.info().finished is None or journal.get(STOPPED):
            raise UserError(
                f"The search {folder.name} has not ended.",
                f"Go on with it (autoresearch run name={folder.name}), or delete {folder} yourself.",
            )
        before()
        return _remove(folder) + _remove(folder.with_name(f"{folder.name}.log"))


def remove_tree(folder: Path) -> bool:
    """Remove a folder and everything in it, however a candidate left it; links are removed, not followed.

    What is nested deep, or lies in a folder without write permission, the system's own tools remove: they go
    down any depth, and beyond the longest path there is. Python's own `shutil.rmtree` ends with a
    `RecursionError` there, or opens a file for each level; either would let a candidate end a search.

    Returns:
        Whether it is gone.
    """
    if folder.is_dir() and not folder.is_symlink():
        try:
            _remove_shallow(str(folder), None, LEVELS)  # nearly always enough, and starts no process
        except OSError:
            for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
                subprocess.run([*command, "--", str(folder)], capture_output=True, check=False)
    return not folder.exists()


def _remove_shallow(name: str, parent: int | None, levels: int) -> None:
    """Remove a folder with at most so many levels of folders in it; each level holds one open file.

    Args:
        name: Of the folder in its parent.
        parent: The open folder that holds it; None: the name is a path.
        levels: How much deeper it goes.

    Raises:
        OSError: If it is deeper, or something cannot be removed.
    """
    if not levels:
        raise OSError(errno.ELOOP, "too deep", name)
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        with os.scandir(opened) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove_shallow(entry.name, opened, levels - 1)
                else:
                    os.unlink(entry.name, dir_fd=opened)
    finally:
        os.close(opened)
    os.rmdir(name, dir_fd=parent)


def digest(folder: Path) -> str:
    """A hash of every file, link and folder name below a folder, and of what is in them.

    By it frozen code is compared before and after a trial. In a sandbox the tree is mounted read-only, so a
    difference shows that the sandbox failed; with `sandbox=none` this is the only protection.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        if path.is_symlink():
            total.update(str(path.readlink()).encode())
        elif path.is_file():
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _remove(path: Path) -> int:
    """Remove a file or folder; gives how many bytes that freed."""
    size = _size(path)
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
    return size - _size(path)


def _size(path: Path) -> int:
    """Bytes on disk of a file, or of a folder with all that is in it; links are not followed."""
    if not path.is_symlink() and not path.exists():
        return 0
    total = path.lstat().st_blocks * 512
    if path.is_dir() and not path.is_symlink():
        total += sum(_size(child) for child in path.iterdir())
    return total
