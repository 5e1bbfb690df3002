"""Cleans up after a killed run of a search, and makes git agree with the journal.

Invariants: this module decides nothing; a second recovery changes nothing; it touches only things that
certainly belong to the search: its trials, processes, refs and locks.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from autoresearch.errors import UserError
from autoresearch.search.observers import View
from autoresearch.search.scheduler import WAITS_KEY
from autoresearch.search.state import SearchState
from autoresearch.store.files import remove_tree
from autoresearch.store.git.commits import rebuild


def recover(state: SearchState, view: View) -> None:
    """Clean up after a killed run, and make git agree with the journal.

    Args:
        state: Of the search.
        view: Gets a message if something was interrupted.

    Raises:
        UserError: If git has lost a commit that the search needs.
    """
    journal, folder = state.journal, state.journal.path.parent
    journal.set(WAITS_KEY, "")
    if orphans := end_orphans(folder):
        view.message(f"Ended {orphans} processes that an earlier run had left.", warning=True)
    lost = journal.abandon_open_trials()
    if lost:
        trials = "1 unfinished trial" if lost == 1 else f"{lost} unfinished trials"
        view.message(f"Going on after an interruption: {trials} will run again.")
    remove_tree(folder / "trials")
    for partial in folder.glob("compiled.*"):
        remove_tree(partial)  # a compile cache that was being copied
    if (folder / "worktree").exists():  # of an older version
        remove_tree(folder / "worktree")
        state.repository.prune_worktrees(folder)
    _restore_git(state, view)


def _restore_git(state: SearchState, view: View) -> None:
    """Make git agree with the journal, as far as the search needs it.

    Raises:
        UserError: If the commit of the incumbent is lost.
    """
    journal = state.journal
    done = rebuild(journal, state.repository, state.task.editable)
    if done.remade:
        view.message(f"Made {len(done.remade)} commits again that git had lost.", warning=True)
    if not done.missing:
        return
    needed = {e.number for e in (state.incumbent, *state.open)}
    if lost := sorted(needed.intersection(done.missing)):
        name = journal.info().name
        raise UserError(
            f"The commit of experiment {lost[0]} is gone from git, and cannot be made from the journal.",
            f"Fetch it from where the search ran: git fetch PLACE 'refs/autoresearch/{name}/*:"
            f"refs/autoresearch/{name}/*', then run the same command again.",
            code=3,
        )
    numbers = ", ".join(map(str, done.missing))
    view.message(f"Git has lost the commits of experiments {numbers}; the search goes on.", warning=True)


def end_orphans(folder: Path) -> int:
    """Kill processes that an earlier run started for a search; returns their number.

    They are recognised by their environment: the socket of the harness, and code inside the search's folder.
    """
    inside, found = f"{folder.resolve()}/", []
    ours = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = {} if process in ours else process.environ()
            if "HARNESS_FD" in environment and environment.get("PYTHONPATH", "").startswith(inside):
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=5.0)
    return len(found)
