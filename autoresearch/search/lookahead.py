"""Asks for the next proposals while experiments train, each question in a thread of its own.

This module also waits for a proposer that cannot be reached; that never ends a search. Invariants: it asks
no more questions at a time than the proposer answers (`Proposer.questions`), and tells each how many others
are under way; each attempt is a new question, so that the proposer gets the latest context. It writes an
answer to the journal, as a draft, before any other step, because the answer may have cost money. The search
does not wait for these threads when it ends. The module also records costs that led to no proposal.

Not covered: whether a draft still fits when its turn comes (`admission`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

from autoresearch.clock import now
from autoresearch.errors import Refused
from autoresearch.execute.base import Message
from autoresearch.propose.base import Check, Context, Defect, Proposer, ProposerError, asked
from autoresearch.search.checks.admission import Admission
from autoresearch.search.observers import Inbox
from autoresearch.search.state import SearchState
from autoresearch.store.records.notes import write_unbilled
from autoresearch.types import Proposal

RETRY_SECONDS = (5, 15, 60, 300)
"""Seconds before a proposer that cannot be reached is asked again; the last value repeats."""

ANSWER = 3
"""Proposals that one answer is asked for where several questions can be under way."""

MAX_DEFECTS = 5
"""After more unexpected failures of a proposer in a row than this, it is not asked again."""

MAX_REFUSALS = 20
"""After more unusable proposals in a row than this, nothing is left to try."""


@dataclass(frozen=True)
class Answered:
    """A question to the proposer has ended, with a draft, with nothing, or with an error.

    Attributes:
        error: The final error, a `ProposerError` or a defect; None: another question may succeed.
        question: Its number.
    """

    error: BaseException | None = None
    question: int = 0


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
            proposer: The proposer to ask.
            state: State of the search, which gives the context.
            admission: Checks the proposals.
            inbox: The inbox with people's notes.
            events: Gets the messages, and an `Answered` for each question.
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
        self._lock = threading.Lock()
        self._asked = self._failed = 0
        self._under_way: dict[int, tuple[threading.Thread, int]] = {}
        self._error: BaseException | None = None
        self._closed = threading.Event()
        self._failures = self._refusals = self._defects = 0
        self._note_unbilled()

    @property
    def busy(self) -> bool:
        """Whether a question is under way."""
        return bool(self._under_way)

    @property
    def questions(self) -> int:
        """How many questions were asked."""
        return self._asked

    def ask_ahead(self, places: int) -> None:
        """Ask for a proposal ahead of its turn, if one is wanted: at least one for each idle place.

        Args:
            places: Number of places where trials can run.
        """
        drafts, config = len(self._journal.drafts()), self._config
        wanted = max(config.lookahead, places - 1) if config.lookahead else 0
        if self._proposer.instant:
            wanted = 0  # asked now, it would know less, and no time would be saved
        in_time = self._state.tried + drafts < config.experiments and now() < self._deadline
        if not in_time or (self.busy and self._proposer.questions < 2):
            return
        wanted = min(wanted, config.experiments - self._state.tried) - drafts
        most = wanted if self._proposer.questions < 2 else ANSWER
        while (missing := wanted - sum(n for _, n in self._under_way.values())) > 0 and self._error is None:
            if len(self._under_way) >= self._proposer.questions:
                break
            self.ask(min(missing, most))

    def ask(self, n: int = 1) -> None:
        """Start to ask for a draft that builds on the incumbent of now, or for several variants of one.

        It asks nothing before `collect` has raised an earlier error.
        """
        assert len(self._under_way) < self._proposer.questions, "no more questions at a time than it answers"
        if self._error is not None:
            return
        parent = self._state.incumbent.commit
        edited = self._inbox.edited_brief()
        context = self._state.context(self._inbox.notes(), self._deadline, edited=edited)
        context = replace(context, beside=len(self._under_way))
        waiting = self._admission.waiting(parent)

        def check(proposal: Proposal) -> None:
            # A point in a search space is tried at once; people's patches are programs like any other.
            tryout = not self._proposer.instant or not proposal.params
            self._admission.accept(proposal, parent, tryout=tryout, waiting=waiting)

        self._asked += 1
        thread = threading.Thread(
            target=self._work, args=(self._asked, context, check, parent, n), name="proposer", daemon=True
        )
        self._under_way[self._asked] = thread, n
        thread.start()

    def answered(self, event: Answered) -> None:
        """Record the end of a question."""
        thread, _ = self._under_way.pop(event.question)
        thread.join()
        self._error = event.error or self._error

    def collect(self) -> None:
        """Raise the error of the last question, once.

        Raises:
            ProposerError: If the proposer has no proposal.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Stop. A question under way is not waited for, since it may take minutes."""
        self._closed.set()

    # In the thread of a question

    def _work(self, question: int, context: Context, check: Check, parent: str, n: int) -> None:
        error: BaseException | None = None
        try:
            self._ask(question, context, check, parent, n)
        except BaseException as failure:
            error = failure
        self._events.put(Answered(error, question))

    def _ask(self, question: int, context: Context, check: Check, parent: str, n: int) -> None:
        """Ask once; after a failure that may pass, wait before the search asks again."""
        started = now()
        try:
            try:
                proposals = asked(self._proposer, context, check, 1 if self._proposer.instant else n)[:n]
            finally:
                self._note_unbilled()
            check(proposals[0])  # the drafts after it are checked when their turn comes
        except ProposerError as error:
            again = self._again(question)
            self._defects = self._defects + again if isinstance(error, Defect) else 0
            if not error.retry:
                raise
            if self._defects > MAX_DEFECTS:
                why = f"{error}, {self._defects} times in a row"
                raise ProposerError(why, exhausted=False) from None
            pause = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
            self._failures += again
            if again:
                self._events.put(Message(f"{error}; asking again in {pause} s.", warning=True))
            self._closed.wait(pause)
        except Refused as error:
            self._refusals += self._again(question)
            said = f"Refused a proposal of {self._proposer.name}: {error}"
            self._events.put(Message(said, warning=True))
            if self._refusals > MAX_REFUSALS:
                message = f"{self._refusals} proposals in a row were refused, the last because {error}"
                raise ProposerError(message) from None
        else:
            self._failures = self._refusals = self._defects = 0
            for proposal in proposals:
                self._journal.draft(proposal, parent, started)

    def _again(self, question: int) -> bool:
        """Whether a failure counts: those of questions that were under way together count once."""
        with self._lock:
            again, self._failed = question > self._failed, max(self._failed, self._asked)
        return again

    def _note_unbilled(self) -> None:
        """Record what proposers and models have cost since their last proposals."""
        with self._lock:
            try:
                unbilled = self._proposer.unbilled
            except Exception:  # a cost that cannot be told must not end the search
                return
            own = {self._proposer.name, str(self._config.proposer.get("fallback"))}
            own |= {who.partition(":")[0] for who in unbilled}
            write_unbilled(self._journal, unbilled, own)
