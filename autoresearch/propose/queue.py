"""Patches from people: whoever runs the search leaves them in its inbox, and they are tried in order.

Invariant: a patch is tried as it is, against the incumbent of the moment, or refused with the reason, which
the inbox keeps. Ideas in words are for language models; this proposer leaves them alone.

Not covered: where patches come from (`autoresearch.store.inbox`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import ConfigDict, InstanceOf, validate_call

from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.propose.base import (
    BaseProposer,
    Check,
    Context,
    Inbox,
    ProposerError,
    SearchServices,
    up_to,
)
from autoresearch.types import Category, Idea, Proposal

NO_PATCH = "no patch is waiting; leave one: autoresearch idea add --patch FILE"

POLL_SECONDS = 1.0


class QueueProposer(BaseProposer):
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
        self,
        inbox: Inbox | None = None,
        *,
        wait: bool,
        services: InstanceOf[SearchServices] | None = None,
    ) -> None:
        found = inbox or (services.inbox if services else None)
        if found is None:
            raise UserError("the proposer 'queue' needs a search with an inbox", "use `autoresearch run`")
        self._inbox: Inbox = found
        self._wait = wait
        self._said = False

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
