"""What an earlier run of a search left when it was killed: put away, and made to agree with the journal.

Invariants: nothing is decided here; doing it twice is doing it once; only what is certainly the search's own
is touched: its trials, its processes, its refs, its locks.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from autoresearch.errors import UserError
from autoresearch.execute.sandbox import remove_tree
from autoresearch.search.observers import View
from autoresearch.search.state import SearchState
from autoresearch.store.commits import rebuild
from autoresearch.store.git import Repository
from autoresearch.store.journal import Journal


def recover(journal: Journal, repository: Repository, folder: Path, state: SearchState, view: View) -> None:
    """Clear away what a killed run left, and make git agree with the journal.

    Args:
        journal: The search.
        repository: Where its commits are.
        folder: Of the search.
        state: What follows from the journal.
        view: To be told if something was interrupted.

    Raises:
        UserError: If git has lost what the search cannot do without.
    """
    journal.update(finished=None)
    if orphans := end_orphans(folder):
        view.message(f"Ended {orphans} processes that an earlier run had left.", warning=True)
    lost = journal.abandon_open_trials()
    if lost:
        trials = "1 unfinished trial" if lost == 1 else f"{lost} unfinished trials"
        view.message(f"Going on after an interruption: {trials} will run again.")
    remove_tree(folder / "trials")
    for partial in folder.glob("compiled.*"):
        remove_tree(partial)  # a compile cache that was being kept
    _restore(journal, repository, folder, state, view)


def _restore(journal: Journal, repository: Repository, folder: Path, state: SearchState, view: View) -> None:
    """Make git agree with the journal, as far as the search needs it.

    Raises:
        UserError: If the commit that all others would build on is gone for good.
    """
    done = rebuild(journal, repository, folder, state.task.editable)
    if done.remade:
        view.message(f"Made {len(done.remade)} commits again that git had lost.", warning=True)
    if not done.missing:
        return
    needed = {e.number for e in (state.incumbent, state.unfinished) if e}
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
    """Kill processes of an earlier run that work in a search's folder; gives how many there were.

    They are known by their environment, which the runner made from nothing: its socket, and code in here.
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
