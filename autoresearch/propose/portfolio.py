"""Asks several proposers in order: people's patches, tunings that have begun, the chosen one, its stand-in.

Invariants: ideas are read only when the search asks for a proposal. The stand-in proposes only while the
chosen proposer cannot, or fails unexpectedly, and a message says why. If there is a stand-in, a proposer that
cannot be reached is not asked again for a while, so that no experiment waits for an outage twice; without a
stand-in it is asked for each experiment. A proposal names its author. An idea that a proposal tests is no
longer open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from autoresearch.propose.base import Check, Context, Inbox, Proposer, ProposerError, asked
from autoresearch.propose.queue import QueueProposer
from autoresearch.propose.tune.request import next_points
from autoresearch.types import Cost, Experiment, Idea, Proposal

PAUSE_SECONDS = 300.0
"""Seconds in which a proposer is not asked after a failure that may pass."""


class Portfolio(Proposer):
    """Several proposers as one.

    Args:
        first: The chosen proposer.
        fallback: Its stand-in; None: none.
        inbox: The inbox with people's ideas; None: there is no inbox.
        say: Tells a person something.
        refused: Records that a point of a tuning was refused for good, and why.
    """

    def __init__(
        self,
        first: Proposer,
        fallback: Proposer | None = None,
        inbox: Inbox | None = None,
        say: Callable[[str], None] = print,
        refused: Callable[[Proposal, str], None] = lambda proposal, reason: None,
    ) -> None:
        self.name = first.name
        self.instant = first.instant
        self.questions = first.questions
        self._turns = threading.BoundedSemaphore(fallback.questions if fallback else 1)
        self._first = first
        self._fallback = fallback
        self._inbox = inbox
        self._patches = (
            QueueProposer(inbox, wait=False) if inbox and first.name != QueueProposer.name else None
        )
        self._say = say
        self._refused = refused
        self._said = ""
        self._paused_until = 0.0
        self._reason = ProposerError("")

    @property
    def unbilled(self) -> Mapping[str, Cost]:
        """Cost of calls that led to no proposal so far, by proposer and model."""
        return {**(self._fallback.unbilled if self._fallback else {}), **self._first.unbilled}

    def tell(self, experiment: Experiment) -> None:
        """Pass the verdict on to all proposers."""
        for proposer in filter(None, (self._first, self._fallback)):
            proposer.tell(experiment)

    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        if context.beside:  # the question before this one has the next points, patches and ideas in hand
            return self._ask(context, check, n)
        context = replace(context, ideas=self._open_ideas(context))
        if self._patches is not None and any(idea.patch for idea in context.ideas):
            try:
                return self._patches.ask(context, check, n)
            except ProposerError:
                context = replace(context, ideas=self._inbox.ideas() if self._inbox else ())
        if points := self._points(context, check, n, wait=True):
            return points
        try:
            proposals = self._ask(context, check, n)
        except ProposerError:
            if points := self._points(context, check, n, wait=False):
                return points
            raise
        for proposal in proposals:
            if proposal.idea is not None and self._inbox is not None:
                self._inbox.take(proposal.idea)
        return proposals

    def _points(self, context: Context, check: Check, n: int, wait: bool) -> list[Proposal]:
        """The next points of a tuning; none while only people's patches are tried."""
        if self._first.name == QueueProposer.name:
            return []
        return next_points(context, check, n, wait, self._refused)

    def _ask(self, context: Context, check: Check, n: int) -> Sequence[Proposal]:
        """Proposals of the chosen proposer, or of its stand-in."""
        if time.monotonic() < self._paused_until:
            return self._stand_in(context, check, n, self._reason)
        try:
            proposals = asked(self._first, context, check, n)
        except ProposerError as error:
            if self._fallback is None:
                raise
            if error.retry:  # each attempt may take minutes without any trial
                self._paused_until, self._reason = time.monotonic() + PAUSE_SECONDS, error
            return self._stand_in(context, check, n, error)
        self._said = ""
        return proposals

    def _open_ideas(self, context: Context) -> tuple[Idea, ...]:
        """Open ideas; the idea of a proposal that was given up is open again."""
        if self._inbox is None:
            return context.ideas
        self._inbox.reopen({p.idea for p in context.proposals if p.idea is not None})
        return self._inbox.ideas()

    def _stand_in(self, context: Context, check: Check, n: int, error: ProposerError) -> Sequence[Proposal]:
        assert self._fallback is not None
        if str(error) != self._said:
            self._said = str(error)
            self._say(f"{self.name} cannot propose ({error}); {self._fallback.name} does meanwhile.")
        try:
            with self._turns:
                return asked(self._fallback, context, check, n)
        except ProposerError as other:
            raise ProposerError(
                f"{error}; and {self._fallback.name}: {other}",
                retry=error.retry or other.retry,
                exhausted=error.exhausted and other.exhausted,
            ) from None
