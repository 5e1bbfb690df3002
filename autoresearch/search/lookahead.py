"""Proposals made ahead: while one experiment is trained, the next is proposed, in a thread of its own.

Owns the waiting for a proposer that is out of reach: it never ends a search. Invariants: one question at a
time; each attempt is a question of its own, so that the proposer is told what is known then; an answer is in
the journal, as a draft, before anything else is done with it, because it may have been paid for; nobody waits
for this thread when the search ends. Also keeps the journal's note of what was paid for no proposal.

Not covered: whether a draft still fits when its turn comes (`admission`).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from autoresearch.errors import Refused
from autoresearch.execute.base import Message
from autoresearch.propose.base import Check, Context, Proposer, ProposerError
from autoresearch.search.admission import Admission
from autoresearch.search.observers import Inbox
from autoresearch.search.state import SearchState
from autoresearch.store.notes import write_unbilled
from autoresearch.types import Proposal

RETRY_SECONDS = (5, 15, 60, 300)
"""Seconds to wait before asking a proposer again that is out of reach; the last one repeats."""

MAX_REFUSALS = 20
"""More unusable proposals in a row than this mean that there is nothing left to try."""


@dataclass(frozen=True)
class Answered:
    """A question to the proposer is done with: there is a draft, or nothing, or an error.

    Attributes:
        error: What ended it for good: a `ProposerError`, or a defect. None: asking again makes sense.
    """

    error: BaseException | None = None


class Lookahead:
    """Asks a proposer, and writes what it answers into the journal."""

    def __init__(
        self,
        proposer: Proposer,
        state: SearchState,
        admission: Admission,
        inbox: Inbox,
        events: SimpleQueue[Any],
        deadline: float,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            proposer: Whom to ask.
            state: What the proposer may know.
            admission: What proposals must pass.
            inbox: Where people leave notes.
            events: Is given the messages, and an `Answered` for each question.
            deadline: Unix time after which nothing is asked ahead.
        """
        self._config = state.config
        self._journal = state.journal
        self._proposer = proposer
        self._state = state
        self._admission = admission
        self._inbox = inbox
        self._events = events
        self._deadline = deadline
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._closed = threading.Event()
        self._failures = self._refusals = 0
        self._note_unbilled()

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._thread is not None

    def ask_ahead(self, places: int) -> None:
        """Ask for a proposal ahead of its turn, if one is wanted: at least one for each idle place.

        Args:
            places: Where trials can run.
        """
        drafts, config = len(self._journal.drafts()), self._config
        wanted = max(config.lookahead, places - 1) if config.lookahead else 0
        if self._proposer.instant and places == 1:
            wanted = 0  # it would know less, and nothing would be gained
        in_time = self._state.tried + drafts < config.experiments and time.time() < self._deadline
        if drafts < wanted and in_time and not self.busy:
            self.ask()

    def ask(self) -> None:
        """Begin to ask for a draft that builds on the incumbent of now.

        Nothing is asked while an error has not been raised by `collect`.
        """
        assert not self.busy, "one question at a time"
        if self._error is not None:
            return
        parent = self._state.incumbent.commit
        context = self._state.context(self._inbox.notes())
        waiting = self._admission.waiting(parent)

        def check(proposal: Proposal) -> None:
            # A point in a search space is tried at once; people's patches are programs like any other.
            tryout = not self._proposer.instant or not proposal.params
            self._admission.accept(proposal, parent, tryout=tryout, waiting=waiting)

        self._thread = threading.Thread(
            target=self._work, args=(context, check, parent), name="proposer", daemon=True
        )
        self._thread.start()

    def answered(self, event: Answered) -> None:
        """Take note of the end of a question."""
        if self._thread is not None:
            self._thread.join()
        self._thread, self._error = None, event.error

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
        self._closed.set()

    # In the thread of a question

    def _work(self, context: Context, check: Check, parent: str) -> None:
        error: BaseException | None = None
        try:
            self._ask(context, check, parent)
        except BaseException as failure:
            error = failure
        self._events.put(Answered(error))

    def _ask(self, context: Context, check: Check, parent: str) -> None:
        """Ask once; after a failure that may pass, wait before the search asks again."""
        started = time.time()
        try:
            try:
                proposal = self._proposer.ask(context, check)[0]
            finally:
                self._note_unbilled()
            check(proposal)
        except ProposerError as error:
            if not error.retry:
                raise
            pause = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
            self._failures += 1
            self._events.put(Message(f"{error}; asking again in {pause} s.", warning=True))
            self._closed.wait(pause)
        except Refused as error:
            self._refusals += 1
            said = f"Refused a proposal of {self._proposer.name}: {error}"
            self._events.put(Message(said, warning=True))
            if self._refusals > MAX_REFUSALS:
                message = f"{self._refusals} proposals in a row were refused, the last because {error}"
                raise ProposerError(message) from None
        else:
            self._failures = self._refusals = 0
            self._journal.draft(proposal, parent, started)

    def _note_unbilled(self) -> None:
        """Write down what was paid to whom since their last proposals."""
        write_unbilled(self._journal, self._proposer.unbilled)
