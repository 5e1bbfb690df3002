"""Proposes what was sent to a track to its ordinary search, and what the verifier's own proposer suggests.

The search measures, and its judge decides, as for any other proposal; what a contributor claims decides only
whose turn it is. Contributions are merged onto the tip when their turn comes, or go back to their sender.
What ends the verifier again and again while it is made ready is set aside. Not covered: whose turn it is
(`queue`), what is taken (`intake`), and what the store is told of verdicts (`follower`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import Any

from autoresearch.edit.candidate import carried_edits
from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.propose.base import Check, Context, Proposer, ProposerError, asked, up_to
from autoresearch.search.loop import Search
from autoresearch.store.journal import Journal
from autoresearch.swarm.chain.links import CONTRIBUTOR
from autoresearch.swarm.queue import WINDOW, Spent, Turns, choose
from autoresearch.swarm.store import Received, State, Store
from autoresearch.swarm.verify.follower import Follower, contribution_of
from autoresearch.types import Category, Experiment, Proposal

NOTHING = "no contribution waits"

MOST_TRIES = 3
"""Times that the verifier begins with a contribution, if it ends without a verdict each time."""

READY_SECONDS = 1800.0
"""Longest time in which a contribution is merged, checked and tried out; then the verifier ends itself."""

HUNG = 70
"""Exit code of a verifier that ended itself."""


class Contributions(Proposer):
    """Proposes what was sent to a track, in the order of the queue, and what another proposer suggests.

    Args:
        store: The store.
        track: Name of the track.
        newcomers: See `queue.choose`.
        own: Proposes what the verifier tries by itself while nobody known waits; None: nothing.
        pauses: Says why nothing more is to be proposed now; empty if something is.
    """

    name = "contributions"

    def __init__(
        self,
        store: Store,
        track: str,
        newcomers: float,
        own: Proposer | None = None,
        pauses: Callable[[Journal], str] = lambda journal: "",
    ) -> None:
        self._store, self._track, self._newcomers = store, track, newcomers
        self._own, self._pauses = own, pauses
        self.instant = own is None or own.instant
        self.reads_ideas = own is not None and own.reads_ideas
        self.unclear = self._own_ended = False
        self._search: Search | None = None

    @property
    def searches(self) -> bool:
        """Whether it has proposals, as far as is known, when nothing waits."""
        return self._own is not None and not self._own_ended

    @property
    def unbilled(self) -> Mapping[str, Any]:
        """See `autoresearch.propose.base.Proposer`."""
        return self._own.unbilled if self._own else {}

    def tell(self, experiment: Experiment) -> None:
        """See `autoresearch.propose.base.Proposer`."""
        if self._own is not None:
            self._own.tell(experiment)

    def serve(self, search: Search) -> None:
        """Propose to this search from now on, and bring the store up to date with its journal."""
        self._search, self.unclear = search, False
        self._follower = Follower(self._store, search)
        self.settle()

    def settle(self) -> None:
        """Write what the journal has decided to the store and its log; what was lost waits again."""
        self._follower.settle()

    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        self.settle()
        assert self._search is not None, "a search is served"
        if reason := self._pauses(self._search.journal):
            raise ProposerError(reason)
        return up_to(n, lambda: self._next(context, check))

    def _next(self, context: Context, check: Check) -> Proposal:
        """The next one that can be tried; others are closed with the reason."""
        while True:
            turns = self._turns()
            waiting = self._store.waiting(self._track)
            chosen = choose(waiting, turns, self._newcomers, self.searches)
            if chosen is None and self.searches:
                assert self._own is not None
                try:
                    return asked(self._own, context, check)[0]
                except (ProposerError, Refused) as error:
                    if not waiting and isinstance(error, ProposerError) and error.retry:
                        raise  # it is asked again
                    self._own_ended = True
                    continue
            if chosen is None:
                raise ProposerError(NOTHING)
            proposal = self._ready(chosen.number, context, check)
            if proposal is not None:
                self._store.take(chosen.number, turns.record(chosen.who).known)
                self._own_ended = False  # a new tip may have given it new ideas
                return proposal

    def _turns(self) -> Turns:
        """What was done lately; the verifier's own runs count as those of somebody known."""
        assert self._search is not None, "a search is served"
        decided = [e for e in self._search.journal.decided()[-WINDOW:] if e.proposal is not None]
        own = {
            e.number: Spent("", "", known=True, runs=len(e.own))
            for e in decided
            if contribution_of(e.proposal) is None and e.own
        }
        return self._store.turns(self._track, own)

    def _ready(self, number: int, context: Context, check: Check) -> Proposal | None:
        """A contribution as a proposal that the search accepts; None if it was closed instead."""
        if (tries := self._store.begin(number)) > MOST_TRIES:
            reason = f"set aside: the verifier ended {tries - 1} times before it could measure this"
            self._store.close_without_run(number, State.REFUSED, reason)
            return None
        try:
            return self._accepted(self._store.numbered(number), context, check)
        except UserError:
            self.unclear = True  # the machine fails, or it fails because of what was sent
            raise

    def _accepted(self, received: Received, context: Context, check: Check) -> Proposal | None:
        try:
            with _limited():
                proposal = self._proposal(received, context.sources)
        except Refused as error:
            reason = f"{error}. Make the change anew, on top of the tip."
            self._store.close_without_run(received.number, State.RETURNED, reason)
            return None
        try:
            with _limited():
                check(proposal)
        except Refused as error:
            self._store.close_without_run(received.number, State.REFUSED, str(error))
            return None
        return proposal

    def _proposal(self, received: Received, tip: Mapping[str, str]) -> Proposal:
        """What was sent, merged onto the tip."""
        assert self._search is not None, "a search is served"
        sent, repository = self._store.signed(received.number).contribution, self._search.repository
        base = repository.sources(sent.parent, self._search.task.editable)
        edits = carried_edits(tip, base, edits_from_patch(sent.patch, base), repository.merge)
        return Proposal(
            hypothesis=sent.title,
            category=Category.OTHER,
            edits=edits,
            proposer=f"{CONTRIBUTOR}{sent.author}",
            mechanism=sent.why,
            idea=received.number,
        )


@contextmanager
def _limited() -> Iterator[None]:
    """End this process if the block takes too long: a thread that hangs cannot be ended."""
    timer = Timer(READY_SECONDS, os._exit, (HUNG,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
