"""The scheduler: starts trials on free places, and waits for events.

It alone knows which trials are open and which places are free. It blocks in one place (`_listen`), on one
queue of events: those of the executor, and the answers of the proposer. It also waits there during a pause
that a person asked for. Invariant: a trial is in the journal before it starts.

Not covered: the rules that hold for every trial (`trials`), which trials to run, and what the results mean.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.execute.base import Executor, Finished, Message, Place, Progressed, Started, TrialSpec
from autoresearch.judge import TrialRequest
from autoresearch.search.lookahead import Answered
from autoresearch.search.observers import Inbox, View
from autoresearch.search.state import SearchState
from autoresearch.search.steps import Ended
from autoresearch.search.trials import TrialRules
from autoresearch.types import WAITING, Progress, Split, Trial

POLL_SECONDS = 1.0
"""Longest wait in seconds, before the inbox and the clock are checked again."""

PAUSE_SECONDS = 0.5
"""Seconds between two checks of the inbox during a pause."""

WAITS_KEY = "waits"
"""The journal's note of why trials wait; empty if none does."""

CLOSE_SECONDS = 5.0
"""Seconds that `close` waits for the trials of the search to end."""

STOPPED = "Stopped. Rerun the same command to continue."


class Stopped(Exception):
    """Ends the search at the next boundary of a step; the message says why.

    Attributes:
        by_itself: Whether the search ended by itself, not because a person asked for it.
    """

    def __init__(self, why: str = STOPPED, by_itself: bool = False) -> None:
        super().__init__(why)
        self.by_itself = by_itself


@dataclass
class _Open:
    """A trial that was submitted and has not ended.

    Attributes:
        wanted: Whether its result is needed.
        waits: Whether it waits for the machine.
    """

    trial: Trial
    place: str
    wanted: bool = True
    waits: bool = False


class Scheduler:
    """Runs the trials of one search; several searches may share the executor.

    Attributes:
        events: The queue of events of the executor and the proposer.
    """

    def __init__(
        self, state: SearchState, rules: TrialRules, executor: Executor, view: View, inbox: Inbox
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            state: Of the search.
            rules: Rules for every trial.
            executor: Runs the trials.
            view: Shows trials and messages.
            inbox: Messages of people.
        """
        self.events: SimpleQueue[Any] = SimpleQueue()
        self._name = state.config.name
        self._devices = state.devices
        self._journal = state.journal
        self._rules = rules
        self._executor = executor
        self._view = view
        self._inbox = inbox
        self._open: dict[int, _Open] = {}
        self._unread: deque[Ended | Answered] = deque()
        self._unrecorded = 0

    # What may start

    @property
    def room(self) -> bool:
        """Whether another trial can start now that no judge has asked for."""
        return self.room_on(None)

    def room_on(self, device: str | None) -> bool:
        """Whether a trial can start on a device; None: on that of trials that no judge has asked for."""
        return self._free_place(self.own_device if device is None else device) is not None

    @property
    def free_devices(self) -> list[str]:
        """The devices that have a free place."""
        return list(dict.fromkeys(place.device for place in self._free_places()))

    @property
    def own_device(self) -> str:
        """Where trials run that no judge has asked for: the first kind, if there is a place."""
        kinds, count = self._devices, Counter(place.device for place in self._executor.places)
        if not kinds.first:
            return max(count, key=count.__getitem__, default="")
        shared = [d for d in (*self.free_devices, *count) if kinds.is_known(d) and not kinds.name(d)]
        return next(iter([*shared, *sorted(filter(kinds.is_known, count)), *sorted(count)]), "")

    @property
    def places(self) -> int:
        """How many trials can run at the same time, once every place is ready."""
        return max(len(self._executor.places), getattr(self._executor, "capacity", 0))

    @property
    def busy(self) -> bool:
        """Whether trials with wanted results are under way."""
        return any(open.wanted for open in self._open.values()) or bool(self._unread)

    def checkpoint(self) -> None:
        """Mark a boundary between two steps; waits here during a pause.

        Raises:
            Stopped: If a person asked for the end of the search.
        """
        paused = False
        while (wish := self._inbox.wished) == "pause":
            if not paused:
                self._view.message(f"Paused. Go on with: autoresearch resume name={self._name}", warning=True)
                paused = True
            self._listen(PAUSE_SECONDS)
        if wish == "stop":
            raise Stopped
        if paused:
            self._view.message("Going on.")

    def may_start(self) -> bool:
        """Whether trials may start. After a request to pause or stop, running trials end first.

        Raises:
            Stopped: If a person asked for the end of the search, and no trial with a wanted result runs.
        """
        if self.busy:
            return self._inbox.wished == "run"
        self.checkpoint()
        return True

    # Trials

    def start(self, experiment: int, request: TrialRequest, commit: str, **fields: Any) -> Trial:
        """Record a trial in the journal, then start it. A place must be free.

        Args:
            experiment: Number of its experiment.
            request: Its purpose and its seed.
            commit: The commit to measure.
            **fields: Fields of its `TrialSpec` that differ from those of other such trials.
        """
        device = self.own_device
        self._devices.begin(device)
        if experiment:
            known = filter(self._devices.is_known, self.free_devices)
            device = next((d for d in known if self._devices.name(d) == request.device), device)
        place = self._free_place(device) or ""
        trial = self._journal.start_trial(experiment, request.arm, request.seed, commit, place)
        spec = self._rules.spec(trial, thorough=request.thorough, device=device)
        return self._submit(trial, replace(spec, **fields), device)

    def start_unrecorded(
        self, trial: Trial, splits: Sequence[Split], items: str, device: str | None = None, **fields: Any
    ) -> Trial:
        """Start a trial that is recorded elsewhere and not judged. A place must be free.

        Args:
            trial: The trial.
            splits: The splits to score on; the first gives the score.
            items: Folder for the losses of single items, below that of the search.
            device: The kind of device; None: that of all trials that no judge has asked for.
            **fields: Further fields of its `TrialSpec`.
        """
        self._unrecorded -= 1
        device = self.own_device if device is None else device
        spec = self._rules.unrecorded(trial, self._unrecorded, splits, items, device)
        return self._submit(trial, replace(spec, **fields), device)

    def cancel(self, trials: Iterable[Trial]) -> None:
        """Stop trials whose results are no longer needed. Their places are free once they have ended."""
        needless = {id(trial) for trial in trials}
        numbers = [n for n, open in self._open.items() if open.wanted and id(open.trial) in needless]
        for number in numbers:
            self._open[number].wanted = False
            self._view.trial(replace(self._open[number].trial, finished=now()))
        self._unread = deque(
            e for e in self._unread if not (isinstance(e, Ended) and id(e.trial) in needless)
        )
        self._executor.cancel(self._name, numbers)

    # What happens

    def next(self, seconds: float = POLL_SECONDS) -> Ended | Answered | None:
        """The next event that the search must handle; None if none comes within so many seconds.

        Raises:
            Stopped: If a person asked for the end, and every trial only waits for the machine: that may last.
        """
        running = [open for open in self._open.values() if open.wanted]
        if running and all(open.waits for open in running) and self._inbox.wished == "stop":
            raise Stopped
        deadline = time.monotonic() + seconds
        while not self._unread:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._listen(left)
        return self._unread.popleft()

    def run_all(self, starts: Iterator[Trial]) -> Iterator[Ended]:
        """Run trials at the same time.

        Args:
            starts: Each of its steps starts one trial; taken when a place is free.

        Yields:
            Each trial with its result, in the order in which they end.

        Raises:
            Stopped: If a person stops the search; the trials under way have been yielded by then.
        """
        more = True
        while more or self.busy:
            while more and self.room and self.may_start():
                more = next(starts, None) is not None
            if (more or self.busy) and isinstance(event := self.next(), Ended):
                yield event

    def close(self) -> None:
        """Stop the trials of this search, and wait a few seconds for their ends.

        Nothing is lost: the next run of the search repeats a trial without a result.
        """
        self.cancel([open.trial for open in self._open.values()])
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._open and (left := deadline - time.monotonic()) > 0:
            self._listen(left)
        self._unread.clear()

    def _listen(self, seconds: float) -> None:
        """Wait for one event, and record it. The search blocks nowhere else."""
        try:
            event = self.events.get(timeout=seconds)
        except Empty:
            return
        match event:
            case Started():
                if (open := self._open.get(event.spec.trial)) is not None:
                    open.place = event.place  # another one, if the place that it was given to is gone
            case Progressed():
                if (open := self._open.get(event.spec.trial)) is not None:
                    self._note_waiting(open, event.progress)
                    self._view.progress(open.trial, event.progress)
            case Message():
                self._view.message(event.text, warning=event.warning)
            case Finished():
                self._finished(event)
            case _:
                self._unread.append(event)

    def _note_waiting(self, open: _Open, progress: Progress) -> None:
        """Keep in the journal, for `status`, that trials wait for the machine, and why."""
        waits = progress.phase == WAITING
        if waits != open.waits:
            open.waits = waits
            self._journal.set(WAITS_KEY, progress.note if any(o.waits for o in self._open.values()) else "")

    def _finished(self, event: Finished) -> None:
        """Handle the end of a trial: its place is free.

        Raises:
            BaseException: The failure of the machine.
        """
        open = self._open.pop(event.spec.trial, None)
        if open is None or not open.wanted:
            return
        if isinstance(event.result, BaseException):
            raise event.result
        if event.result is None:
            raise UserError(
                "A trial was stopped from outside the search.", "The same command goes on.", code=3
            )
        self._unread.append(Ended(open.trial, self._rules.checked(open.trial, event.result)))

    def _submit(self, trial: Trial, spec: TrialSpec, device: str) -> Trial:
        place = self._free_place(device)
        assert place is not None, "there is room"
        self._open[spec.trial] = _Open(trial, place)
        self._executor.submit(spec, place, self.events)
        self._view.trial(trial)
        return trial

    def _free_place(self, device: str) -> str | None:
        return next((place.name for place in self._free_places() if place.device == device), None)

    def _free_places(self) -> list[Place]:
        busy = {open.place for open in self._open.values()}
        return [place for place in self._executor.places if place.name not in busy]
