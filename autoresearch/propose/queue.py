"""Proposals that exist already, tried in order: patches that people leave, and recorded proposals.

A patch is tried as it is, against the incumbent of the moment, or refused with the reason, which the inbox
keeps. Ideas in words are for language models; `QueueProposer` leaves them alone.

`ReplayProposer` is for tests, and to compare judges or budgets on the same ideas. Its file has a JSON object
a line, as `Proposal.to_dict` writes it; only hypothesis, category and edits are needed. Every line is decided
once in a search, in its turn, however often the search is restarted: it is tried, or refused, which is
recorded. What the search has is recognised by its hypothesis, since its edits may have been merged.

Not covered: where patches come from (`autoresearch.store.inbox`).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, InstanceOf, validate_call

from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.propose.base import Check, Context, Inbox, Proposer, ProposerError, SearchServices, up_to
from autoresearch.types import Category, Idea, Proposal

NO_PATCH = "no patch is waiting; leave one: autoresearch idea add --patch FILE"

POLL_SECONDS = 1.0


class QueueProposer(Proposer):
    """Proposes the patches in an inbox, the oldest first.

    Args:
        inbox: Where they are left; None: the inbox of the search.
        wait: Whether to wait for people: says once that there is none, and then only comes back with a patch.
        services: What the search lends.

    Raises:
        UserError: If there is no inbox.
    """

    name = "queue"
    instant = True

    @validate_call(config=ConfigDict(arbitrary_types_allowed=True))
    def __init__(
        self, inbox: Inbox | None = None, *, wait: bool, services: InstanceOf[SearchServices] | None = None
    ) -> None:
        found = inbox or (services.inbox if services else None)
        if found is None:
            raise UserError("the proposer 'queue' needs a search with an inbox", "use `autoresearch run`")
        self._inbox: Inbox = found
        self._wait = wait
        self._said = False

    @classmethod
    def followed(cls, brief: str) -> str:
        """Nothing."""
        return ""

    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        while True:
            try:
                found = up_to(n, lambda: self._next(context, check))
            except ProposerError:
                if not self._wait or not self._said:
                    self._said = True
                    raise
                time.sleep(POLL_SECONDS)
            else:
                self._said = False
                return found

    def _next(self, context: Context, check: Check) -> Proposal:
        """The first patch that can be tried."""
        for idea in self._inbox.ideas():
            if not idea.patch:
                continue
            try:
                proposal = _proposal(idea, context)
                check(proposal)
            except Refused as error:
                self._inbox.refuse(idea.number, str(error))
                continue
            self._inbox.take(idea.number)
            return proposal
        raise ProposerError(NO_PATCH, retry=True)


def _proposal(idea: Idea, context: Context) -> Proposal:
    return Proposal(
        hypothesis=" ".join(idea.text.split()),
        category=Category.OTHER,
        edits=edits_from_patch(idea.patch, context.sources),
        proposer=QueueProposer.name,
        idea=idea.number,
    )


class ReplayProposer(Proposer):
    """Proposes what a file says.

    Args:
        path: Of the file; JSON lines.

    Raises:
        UserError: If the file cannot be read, or a line is no proposal.
    """

    name = "replay"
    instant = True

    @validate_call(config=ConfigDict(arbitrary_types_allowed=True))
    def __init__(self, *, path: Path, services: InstanceOf[SearchServices] | None = None) -> None:
        try:
            lines = path.expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read the recorded proposals in {path}: {error}", "check proposer.path"
            ) from None
        self._path = path
        self._services = services
        found = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        self._recorded = {number: _recorded(path, number, line) for number, line in found}
        self._decided: list[str] = []

    @classmethod
    def followed(cls, brief: str) -> str:
        """Nothing."""
        return ""

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        return up_to(n, lambda: self._next(context, check))

    def _next(self, context: Context, check: Check) -> Proposal:
        """The first line that was not decided yet: it is tried, or refused once and for all."""
        done = Counter(p.hypothesis for p in context.paid) | Counter(self._decided)
        for number, proposal in self._recorded.items():
            if done[proposal.hypothesis] > 0:
                done[proposal.hypothesis] -= 1
                continue
            self._decided.append(proposal.hypothesis)
            try:
                check(proposal)
            except Refused as error:
                if self._services is not None:
                    self._services.refused(proposal, str(error))
                    self._services.say(f"Refused line {number} of {self._path.name}: {error}")
                continue
            return proposal
        raise ProposerError(f"the {len(self._recorded)} recorded proposals in {self._path.name} are used up")


def _recorded(path: Path, number: int, line: str) -> Proposal:
    try:
        recorded = {"proposer": ReplayProposer.name, **json.loads(line, parse_constant=_no_number)}
        # Ideas, conversations and tunings were those of the search that it was recorded in.
        proposal = Proposal.from_dict({**recorded, "idea": None, "conversation": "", "tuning": None})
        json.dumps(proposal.to_dict(), ensure_ascii=False, allow_nan=False).encode()  # it can be written
        if not proposal.hypothesis.strip():
            raise ValueError("the hypothesis is empty")
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}, line {number} is not a proposal: {error}",
            "each line needs hypothesis, category and edits (a list of path, search, replace)",
        ) from None
    return proposal


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
