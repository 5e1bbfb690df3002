"""Git made to agree with the journal: what is gone is made again, and refs point where they should.

Rests on commits being functions of the journal: the edits, on the parent's sources, with a message and dates
that are written down. A commit that comes out with another hash is none of ours, and is not used. So a search
goes on beside a fresh clone of the commit it began with. Doing it twice is doing it once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.edit.apply import apply
from autoresearch.errors import Refused, UserError
from autoresearch.store.commit_message import commit_message
from autoresearch.store.git import Repository, Worktree
from autoresearch.store.journal import Journal
from autoresearch.tracking.outbox import named_runs
from autoresearch.types import Experiment, State


@dataclass(frozen=True)
class Rebuilt:
    """What became of a search in git.

    Attributes:
        refs: How many candidates can be reached.
        remade: Numbers of experiments whose commit was gone, and is there again.
        missing: Numbers of experiments whose commit is gone.
        branch: What was done about the branch, as a sentence.
    """

    refs: int
    remade: tuple[int, ...]
    missing: tuple[int, ...]
    branch: str


def rebuild(journal: Journal, repository: Repository, folder: Path, editable: Iterable[str]) -> Rebuilt:
    """Make commits that are gone again; point `refs/autoresearch/<name>/*` and the branch at their commits.

    Args:
        journal: The search.
        repository: Where its commits belong.
        folder: Of the search; a worktree may be made in it.
        editable: Paths that candidates may change.
    """
    info, tried = journal.info(), [e for e in journal.experiments()[1:] if e.commit]
    there = repository.existing([info.base_commit, *(e.commit for e in tried)])
    gone = [e for e in tried if e.commit not in there]
    remade = _remade(journal, repository, folder, tuple(editable), there, gone) if gone else []
    reached = [e for e in tried if e.commit in there]
    refs = {f"refs/autoresearch/{info.name}/{e.number:04d}": e.commit for e in reached}
    kept = [e.commit for e in tried if e.kept and e.state is State.RECORDED]
    tip, branch = kept[-1] if kept else info.base_commit, f"refs/heads/{info.branch}"
    now = repository.refs(f"refs/autoresearch/{info.name}") | repository.refs(branch)
    if now.get(branch, tip) not in (info.base_commit, *(e.commit for e in tried)):
        said = f"{info.branch} points to {now[branch][:10]}, which is not of this search: left as it is"
    elif tip not in there:
        said = f"{info.branch} cannot be made: its commit {tip[:10]} is gone"
    else:
        refs[branch] = tip
        said = f"{info.branch} is at {tip[:10]}"
    repository.unlock(refs)
    repository.update_refs({ref: commit for ref, commit in refs.items() if now.get(ref) != commit})
    missing = tuple(e.number for e in gone if e.commit not in there)
    return Rebuilt(len(reached), tuple(remade), missing, said)


def _remade(
    journal: Journal,
    repository: Repository,
    folder: Path,
    editable: tuple[str, ...],
    there: set[str],
    gone: list[Experiment],
) -> list[int]:
    """Make what is gone, in order, so that parents come first; adds it to what is there."""
    remade = []
    base = journal.info().base_commit
    worktree = repository.worktree(folder / "worktree", base) if base in there else None
    for e in gone:
        if worktree and e.parent in there and _remake(journal, worktree, e, editable):
            there.add(e.commit)
            remade.append(e.number)
    return remade


def _remake(journal: Journal, worktree: Worktree, e: Experiment, editable: tuple[str, ...]) -> bool:
    """Make the commit of an experiment from the journal; whether it is the one that was."""
    assert e.proposal, "the baseline is the user's own commit"
    try:
        sources = apply(worktree.repository.sources(e.parent, editable), e.proposal.edits)
        made = worktree.commit(e.parent, sources, commit_message(replace(e, verdict=None)), e.created)
    except (Refused, UserError):
        return False
    # Once it was judged its message tells the verdict, and which run of MLflow shows it, if one did then.
    told = (commit_message(e, run) for run in named_runs(journal.get, e.number))
    return made == e.commit or any(worktree.reword(made, e.parent, m, e.created) == e.commit for m in told)
