"""What a search keeps on the disk, and what it can do without.

Owns the rule: of old experiments only the end of what they printed and were asked stays, and the losses that
a score still rests on; `keep_logs` says what is old. What MLflow has not seen yet is kept by whoever calls.
Commits stay in git. Not covered: who may touch a search now (`upkeep`, `launch`).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from autoresearch.execute.sandbox import remove_tree
from autoresearch.store.calls import CallLog
from autoresearch.store.journal import Journal
from autoresearch.store.losses import losses_folder

SCRATCH = ("trials", "standby", "compiled", "compiled.*", "worktree", "trusted", "journal.partial", "agent")
"""What a search makes anew when it goes on, as patterns."""
CHARACTERS = 2000
"""What stays of an old text: its end."""


def trim(journal: Journal, keep: int) -> dict[str, int]:
    """Remove what only old experiments have; safe while the search is at work.

    Args:
        journal: Of the search.
        keep: How many of the latest experiments stay whole.

    Returns:
        Bytes that were freed, by what they were.
    """
    freed = {}
    folder, experiments = journal.path.parent, journal.experiments()
    old = [e for e in experiments if 0 < e.number <= experiments[-1].number - keep]
    unneeded = [losses_folder(folder, trial.id) for e in old if not e.kept for trial in e.trials]
    if size := sum(map(removed, unneeded)):
        freed["old losses"] = size
    calls = CallLog(folder).path
    before = _size(journal.path), _size(calls)
    if journal.shorten_logs(keep, CHARACTERS):
        journal.compact()
        freed["old logs"] = max(0, before[0] - _size(journal.path))
    if old and _shorten_calls(calls, experiments[old[-1].number].finished or 0.0):
        freed["old prompts"] = max(0, before[1] - _size(calls))
    return freed


def removed(path: Path) -> int:
    """Remove a file or folder; how many bytes that freed."""
    size = _size(path)
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
    return size - _size(path)


def _shorten_calls(path: Path, before: float) -> bool:
    """Cut what models were asked, and have answered, before a moment; what it cost stays."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as db:
        cut = db.execute(
            "UPDATE calls SET asked = substr(asked, -:most), answered = substr(answered, -:most) "
            "WHERE started < :before AND max(length(asked), length(answered)) > :most",
            {"most": CHARACTERS, "before": before},
        ).rowcount
        if cut:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return cut > 0


def _size(path: Path) -> int:
    """Bytes on disk of a file, or of a folder with all that is in it; links are not followed."""
    if not path.is_symlink() and not path.exists():
        return 0
    total = path.lstat().st_blocks * 512
    if path.is_dir() and not path.is_symlink():
        total += sum(_size(child) for child in path.iterdir())
    return total
