"""Patches from people: whoever runs the search leaves them in its inbox, and they are tried in order.

Invariant: a patch is tried as it is, against the incumbent of the moment, or refused with the reason, which
the inbox keeps. Ideas in words are for language models; this leaves them alone.

Not covered: where patches come from (`autoresearch.store.inbox`).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Protocol, runtime_checkable

from pydantic import ConfigDict, validate_call

from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused
from autoresearch.propose.base import BaseProposer, Check, Context, ProposerError
from autoresearch.types import Category, Idea, Proposal

NONE = "no patch is waiting; leave one: autoresearch idea add --patch FILE"

POLL_SECONDS = 1.0


@runtime_checkable
class Inbox(Protocol):
    """Where people leave ideas; see `autoresearch.store.inbox`."""

    def ideas(self) -> tuple[Idea, ...]:
        """The ideas that are open, oldest first."""

    def reopen(self, tested: Collection[int]) -> None:
        """Open again what was taken, and is not among these."""

    def take(self, number: int) -> None:
        """A proposal tests this idea."""

    def refuse(self, number: int, reason: str) -> None:
        """This idea cannot be tested."""


class QueueProposer(BaseProposer):
    """Proposes the patches in an inbox, the oldest first.

    Args:
        inbox: Where they are left.
        wait: Whether to wait for people: says once that there is none, and then only comes back with a patch.
    """

    name = "queue"
    instant = True

    @validate_call(config=ConfigDict(arbitrary_types_allowed=True))
    def __init__(self, *, inbox: Inbox, wait: bool) -> None:
        self._inbox = inbox
        self._wait = wait
        self._said = False

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        while True:
            proposal = self._next(context, check)
            if proposal is not None:
                self._said = False
                return [proposal]
            if not self._wait or not self._said:
                self._said = True
                raise ProposerError(NONE, retry=True)
            time.sleep(POLL_SECONDS)

    def _next(self, context: Context, check: Check) -> Proposal | None:
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
        return None


def _proposal(idea: Idea, context: Context) -> Proposal:
    return Proposal(
        hypothesis=" ".join(idea.text.split()),
        category=Category.OTHER,
        edits=edits_from_patch(idea.patch, context.sources),
        proposer="queue",
        idea=idea.number,
    )
