"""The kept changes of a search as commits on top of each other, any of them left out; and branches of those.

A change that later ones build on cannot be left out alone. Branches are made as git objects and refs: what is
checked out, the index and HEAD stay as they are, and no branch of somebody else is moved. Not covered:
whether what is left is any good (`audit`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from autoresearch.edit.candidate import carry
from autoresearch.errors import Refused, UserError
from autoresearch.search.state import SearchState
from autoresearch.store.git.commits import commit_message
from autoresearch.store.git.repository import Repository
from autoresearch.types import Experiment

MOST_BRANCHES = 100
"""So many names are tried for a branch."""


@dataclass(frozen=True)
class Stack:
    """The kept changes of a search, to be built in any selection."""

    state: SearchState
    keeps: tuple[Experiment, ...]

    def commits(self, present: Sequence[bool]) -> list[str]:
        """Commit the chosen changes, one on the other.

        Returns:
            The commit that the search began with, and one for each change; the last one has all of them.

        Raises:
            Refused: If one of them cannot be made without those that are left out.
        """
        state, info = self.state, self.state.journal.info()
        made = [info.base_commit]
        for keep, chosen in zip(self.keeps, present, strict=True):
            if not chosen:
                continue
            assert keep.proposal is not None
            ours = state.sources(made[-1])
            base, theirs = state.sources(keep.parent), state.sources(keep.commit)
            try:
                sources = carry(ours, base, theirs, keep.proposal.edits, state.repository.merge)
            except Refused as error:
                raise Refused(f"experiment {keep.number} builds on what is left out ({error})") from None
            message = commit_message(keep, state.task.metric, info.trust)
            made.append(state.repository.commit(made[-1], sources, message, keep.created))
        return made

    def separable(self) -> tuple[bool, ...]:
        """Which of the changes can be left out alone."""
        return tuple(self.buildable([j != i for j in range(len(self.keeps))]) for i in range(len(self.keeps)))

    def buildable(self, present: Sequence[bool]) -> bool:
        """Whether a selection can be made."""
        try:
            self.commits(present)
        except Refused:
            return False
        return True


@dataclass(frozen=True)
class Made:
    """A branch with one commit for each change.

    Attributes:
        branch: Its name.
        commits: Of the changes, in order.
        whole: Whether nothing is left out, so that it is the tip of the search.
    """

    branch: str
    commits: tuple[str, ...]
    whole: bool


def make_branch(state: SearchState, without: Collection[int] = (), name: str = "") -> Made:
    """Make a branch of the kept changes to be reviewed: one commit each, on what the search began with.

    Args:
        state: Of the search.
        without: Numbers of kept experiments that are left out.
        name: Of the branch; empty: that of the search with `-review`.

    Raises:
        UserError: If nothing was kept, a number is none of a kept change, or the branch cannot be made.
    """
    stack, repository = Stack(state, state.kept), state.repository
    numbers = [e.number for e in stack.keeps]
    if not numbers:
        raise UserError("Nothing was kept, so there is nothing to review.", "See: autoresearch log")
    if wrong := sorted(set(without) - set(numbers)):
        kept = ", ".join(map(str, numbers))
        raise UserError(f"Experiment {wrong[0]} was not kept.", f"Those that were: {kept}.")
    try:
        commits = stack.commits([number not in without for number in numbers])
    except Refused as error:
        left_out = " and ".join(map(str, sorted(without)))
        raise UserError(f"{left_out} cannot be left out: {error}.", "Leave both out, or keep both.") from None
    if name and not repository.valid_ref(f"refs/heads/{name}"):
        raise UserError(f"Git can have no branch {name}.", "Choose another: --as my-review")
    if name and repository.resolve(f"refs/heads/{name}") not in (None, commits[-1]):
        raise UserError(f"There is a branch {name} already.", "Choose another: --as NAME")
    branch = name or f"{state.journal.info().branch}-review"
    return Made(point_branch(repository, branch, commits[-1]), tuple(commits[1:]), not without)


def point_branch(repository: Repository, name: str, commit: str) -> str:
    """Point a branch of this name at a commit, or one with a number behind it if somebody has that name.

    Returns:
        The name of the branch.

    Raises:
        UserError: If all such names are taken.
    """
    for branch in (name, *(f"{name}-{number}" for number in range(2, MOST_BRANCHES))):
        ref = f"refs/heads/{branch}"
        if (there := repository.resolve(ref)) in (None, commit):
            repository.update_refs({ref: commit}, expected={ref: there})
            return branch
    raise UserError(f"There are {MOST_BRANCHES} branches called {name}-N.", "Delete those you do not need.")
