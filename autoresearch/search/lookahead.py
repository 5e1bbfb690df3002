"""Proposals made ahead: while one experiment is trained, the next is thought of, in a thread of its own.

Owns the waiting for a proposer: an outage is waited out here, with a reason that is shown, for as long as it
takes; it never ends a search. Invariants: one question at a time; each attempt is a question of its own, so
that what is told is what is known then; what comes back is in the journal, as a draft, before anything else
is done with it, because it may have been paid for; nobody waits for this thread when the search ends. Also
owns the journal's note of what was paid in vain. Not covered: whether a draft still fits when its turn comes
(`gate`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from autoresearch.errors import Refused
from autoresearch.execute.local import Answered, Events, Said
from autoresearch.propose.base import Check, Context, Proposer, ProposerError
from autoresearch.store.journal import Journal
from autoresearch.store.notes import write_unbilled

PATIENCE = (5, 15, 60, 300)
"""Seconds to wait before asking a proposer again that is out of reach; the last one repeats."""

REFUSALS = 20
"""So many unusable proposals in a row mean that there is nothing left to try."""


class Ahead:
    """Asks a proposer, and writes what it answers into the journal."""

    def __init__(self, proposer: Proposer, journal: Journal, events: Events) -> None:
        """Prepare; nothing is asked yet.

        Args:
            proposer: Whom to ask.
            journal: Where drafts go.
            events: Where to tell what happens.
        """
        self._proposer = proposer
        self._journal = journal
        self._events = events
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._failures = self._refusals = 0
        self._settle()

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited; there will be an `Answered` event."""
        return self._thread is not None

    def ask(self, context: Callable[[], Context], check: Check, parent: str) -> None:
        """Begin to ask for a draft; there is none if that fails in a way that may pass: then ask again.

        Nothing is asked while the failure of the last question has not been collected.

        Args:
            context: What the proposer may know; called from another thread.
            check: What it may call to test a proposal; called from another thread.
            parent: The incumbent it is asked about.
        """
        assert not self.busy, "one question at a time"
        if self._error is not None:
            return
        self._thread = threading.Thread(
            target=self._work, args=(context, check, parent), name="proposer", daemon=True
        )
        self._thread.start()

    def answered(self) -> None:
        """Take note of an `Answered`; a failure is told by `collect`."""
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def collect(self) -> None:
        """Raise what the last question failed by, once.

        Raises:
            ProposerError: If no proposal can be had.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait for nothing any more. A question in flight is left to itself: it may take minutes."""
        self._ended.set()

    def _work(self, context: Callable[[], Context], check: Check, parent: str) -> None:
        try:
            self._ask(context, check, parent)
        except BaseException as error:
            self._error = error
        self._events.put(Answered())

    def _ask(self, context: Callable[[], Context], check: Check, parent: str) -> None:
        """Ask once; after a failure that may pass, wait before the search asks again."""
        started = time.time()
        try:
            try:
                proposal = self._proposer.ask(context(), check)[0]
            finally:
                self._settle()
            check(proposal)
        except ProposerError as error:
            if not error.retry:
                raise
            pause = PATIENCE[min(self._failures, len(PATIENCE) - 1)]
            self._failures += 1
            self._events.put(Said(f"{error}; asking again in {pause} s.", warning=True))
            self._ended.wait(pause)
        except Refused as error:
            self._refusals += 1
            said = f"Refused a proposal of {self._proposer.name}: {error}"
            self._events.put(Said(said, warning=True))
            if self._refusals > REFUSALS:
                message = f"{self._refusals} proposals in a row were refused, the last because {error}"
                raise ProposerError(message) from None
        else:
            self._failures = self._refusals = 0
            self._journal.draft(proposal, parent, started)

    def _settle(self) -> None:
        """Write down what was paid to whom since their last proposals."""
        write_unbilled(self._journal, self._proposer.unbilled)
