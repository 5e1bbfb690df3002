"""Who is asked when: patches from people first, then the chosen proposer, then whoever stands in for it.

Invariants: ideas are read when a proposal is asked for, not before; the stand-in proposes only when the
chosen proposer cannot, and why is said. Where there is a stand-in, whoever is out of reach is left alone for
a while, so that no experiment waits for an outage twice; else the chosen one is asked anew for each
experiment. A proposal names who made it, so the record shows who did what. An idea that a proposal tests is
taken off the list of open ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from autoresearch.propose.base import BaseProposer, Check, Context, Proposer, ProposerError
from autoresearch.propose.queue import Inbox, QueueProposer
from autoresearch.types import Cost, Idea, Proposal

REST_SECONDS = 300.0
"""How long a proposer is not asked after a failure that may pass."""


class Line(BaseProposer):
    """Several proposers as one.

    Args:
        first: The chosen proposer.
        fallback: Who stands in for it; None: nobody.
        inbox: Where people's ideas wait; None: there are none.
        say: Tells a person something.
    """

    def __init__(
        self,
        first: Proposer,
        fallback: Proposer | None,
        inbox: Inbox | None,
        say: Callable[[str], None],
    ) -> None:
        self.name = first.name
        self.instant = first.instant
        self._first = first
        self._fallback = fallback
        self._inbox = inbox
        self._patches = (
            QueueProposer(inbox=inbox, wait=False) if inbox and first.name != QueueProposer.name else None
        )
        self._say = say
        self._said = ""
        self._rests_until = 0.0
        self._cannot = ProposerError("")

    @property
    def unbilled(self) -> Mapping[str, Cost]:
        """What calls cost that have led to no proposal so far, by who was asked."""
        found: dict[str, Cost] = {}
        for proposer in (self._fallback, self._first):
            found.update(proposer.unbilled if proposer else {})
        return found

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        if self._inbox is not None:
            context = replace(context, ideas=self._open(context))
        if self._patches is not None and any(idea.patch for idea in context.ideas):
            try:
                return list(self._patches.ask(context, check))
            except ProposerError:
                context = replace(context, ideas=self._inbox.ideas() if self._inbox else ())
        proposal = self._ask(context, check)
        if proposal.idea is not None and self._inbox is not None:
            self._inbox.take(proposal.idea)
        return [proposal]

    def _ask(self, context: Context, check: Check) -> Proposal:
        """A proposal of the chosen proposer, or of its stand-in."""
        if time.monotonic() < self._rests_until:
            return self._stand_in(context, check, self._cannot)
        try:
            proposal = self._first.ask(context, check)[0]
        except ProposerError as error:
            if self._fallback is None:
                raise
            if error.retry:  # each attempt may take minutes, in which nothing is trained
                self._rests_until, self._cannot = time.monotonic() + REST_SECONDS, error
            return self._stand_in(context, check, error)
        self._said = ""
        return proposal

    def _open(self, context: Context) -> tuple[Idea, ...]:
        """Ideas that nothing tests; a proposal that was given up since it was made gives its idea back."""
        if self._inbox is None:
            return ()
        self._inbox.reopen({p.idea for p in context.proposals if p.idea is not None})
        return self._inbox.ideas()

    def _stand_in(self, context: Context, check: Check, error: ProposerError) -> Proposal:
        assert self._fallback is not None
        if str(error) != self._said:
            self._said = str(error)
            self._say(f"{self.name} cannot propose ({error}); {self._fallback.name} does meanwhile.")
        try:
            return self._fallback.ask(context, check)[0]
        except ProposerError as other:
            raise ProposerError(
                f"{error}; and {self._fallback.name}: {other}", retry=error.retry or other.retry
            ) from None
