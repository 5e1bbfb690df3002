"""One search: read it as JSON-ready values or pandas frames, steer it, try a change in it.

Commands such as `status`, `log`, `try` and `note`, the tools of `autoresearch mcp`, and notebooks call these
methods. A method that steers returns a sentence that says what was done. Each call reads the journal anew, so
that a search can be followed while it runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.api import Order
from autoresearch.errors import UserError
from autoresearch.report.frames import SearchFrames
from autoresearch.report.summary import Summary, experiment_row, summarize
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.searches import go_on
from autoresearch.types import Experiment

if TYPE_CHECKING:
    from autoresearch.report.page import Report

SHOWN_CHANGES = 5
"""Of so many changed settings the status tells, the last ones; the report tells of all."""


class SearchHandle(SearchFrames):
    """One search: what was tried and what came of it, and a way to steer it.

    Example:
        >>> import autoresearch
        >>> search = autoresearch.open("night1")
        >>> search.status()["verdicts"]["keep"]
        2
        >>> search.experiments.loc[7, "verdict"]
        'keep'
        >>> search.note("try fewer heads").splitlines()[0]
        'Noted for night1.'

    Attributes:
        folder: Where the journal and the report of the search lie.
    """

    def status(self) -> dict[str, Any]:
        """How far it has come: what `status --json` prints."""
        from autoresearch.report.timeline import time_use

        with Journal.of(self.folder) as journal:
            runner, use = journal.runner(), time_use(journal.timeline())
            told = summarize(journal).to_dict()
        return told | {"time": use.to_dict(), "runner": asdict(runner) if runner else None}

    def status_lines(self) -> list[str]:
        """How far it has come, in sentences: what `status` prints."""
        from autoresearch.execute.remote import places_told
        from autoresearch.report.markdown import drift, headline
        from autoresearch.report.sections.stopping import stopping
        from autoresearch.search.devices import read_kinds
        from autoresearch.search.scheduler import WAITS_KEY
        from autoresearch.store.records.notes import read_unbilled
        from autoresearch.text import count, one_line

        with Journal.of(self.folder) as journal:
            summary, runner = summarize(journal), journal.runner()
            waits, unbilled = journal.get(WAITS_KEY), read_unbilled(journal)
            kinds = read_kinds(journal)
        lines = [headline(summary), f"Tried: {summary.tried}."]
        lines += [f"Running: {runner}." if runner else f"Not running. Continue: {go_on(self.folder)}"]
        lines += places_told(self.folder) if runner else []
        lines += map(str, kinds)
        lines += [f"It waits until the machine has room: {waits}."] if runner and waits else []
        lines += [
            f"{one_line(who)}: {count(cost.calls, 'call')} since its last proposal led to none."
            for who, cost in unbilled.items()
            if cost.calls
        ]
        saved = stopping(summary.experiments).sentence(summary.metric)
        lines += filter(None, (drift(summary), saved, Inbox(self.folder).told()))
        return [*lines, *_changes(summary)]

    def log(self, sort: Order = Order.NUMBER) -> list[dict[str, Any]]:
        """Every experiment as a row: what `log --json` prints."""
        summary = self.summary
        return [experiment_row(e, summary.metric) for e in ordered(summary, sort)]

    def show(self, number: int) -> dict[str, Any]:
        """One experiment as a row: what `show N --json` prints.

        Raises:
            UserError: If there is none of that number.
        """
        with Journal.of(self.folder) as journal:
            return experiment_row(journal.experiment(number), journal.info().metric)

    def diff(self, number: int | None = None) -> str:
        """The change of an experiment, or without a number everything that was kept so far."""
        from autoresearch.report.page import cumulative_diff
        from autoresearch.store.git.repository import Repository

        with Journal.of(self.folder) as journal:
            if number is not None:
                return journal.experiment(number).diff
            return cumulative_diff(journal, Repository(Path.cwd()))

    def printed(self, number: int) -> str:
        """The last lines of what the last trial of an experiment printed that failed; empty if none did."""
        from autoresearch.execute.output import excerpt

        with Journal.of(self.folder) as journal:
            trials = journal.experiment(number).trials
        logs = [t.result.log for t in trials if t.result and t.result.reason and t.result.log]
        return excerpt(logs[-1]) if logs else ""

    def report(self) -> Report:
        """Write the report; says where its files lie."""
        from autoresearch.report.page import write_page
        from autoresearch.store.git.repository import Repository

        with Journal.of(self.folder) as journal:
            return write_page(journal, Repository(Path.cwd()))

    def attempt(
        self,
        hypothesis: str,
        patch: str | None = None,
        *,
        wait: bool = True,
        overrides: Sequence[str] = (),
        view: str = "quiet",
    ) -> dict[str, Any]:
        """Make an experiment of a change, and wait for its verdict; runs the search where nobody does.

        Args:
            hypothesis: What is changed, and why.
            patch: A unified diff of the incumbent's editable files; None: what the working tree changes.
            wait: Whether to wait; if not, the change waits until the search is run.
            overrides: Settings for a run of the search, such as "sandbox=none".
            view: How to show that run: "quiet", "plain", "live" or "auto".

        Returns:
            The row of the experiment, as `show` gives it. If the change has no verdict yet: only the number
            of its idea, under the key "idea".

        Raises:
            UserError: If it changes nothing, does not fit the incumbent, or was refused.
        """
        from autoresearch.api.attempt import leave_change, verdict_of

        number = leave_change(self._alive(), hypothesis, patch)
        found = verdict_of(self.folder, number, overrides, view) if wait else None
        return self.show(found.number) if found else {"idea": number}

    def note(self, text: str) -> str:
        """Leave a note to the proposer, which sees it from its next call on.

        Raises:
            UserError: If it says nothing.
        """
        from autoresearch.search.setup.open import unread
        from autoresearch.search.setup.settings import recorded_config

        if not text.strip():
            raise UserError(
                "There is nothing to say.", 'Say it in quotes: autoresearch note "try fewer heads"'
            )
        Inbox(self._alive()).add_note(text)
        unseen = [f"But nobody reads it now. {line}" for line in unread(recorded_config(self.folder), "")]
        return "\n".join([f"Noted for {self.folder.name}.", *unseen])

    def idea(self, text: str, patch: str = "") -> str:
        """Leave an idea in words, or a patch that is tried before any proposer is asked.

        Raises:
            UserError: If it says nothing, or if the patch does not fit the incumbent.
        """
        from autoresearch.api.attempt import incumbent_of, require_fit
        from autoresearch.propose import PROPOSERS
        from autoresearch.search.setup.settings import recorded_config
        from autoresearch.store.git.repository import Repository

        if not text.strip():
            raise UserError("There is no idea.", 'For example: autoresearch idea add "tie the embeddings"')
        if patch:
            with Journal.of(self._alive()) as journal:
                _, incumbent = incumbent_of(journal, Repository(Path.cwd()))
            require_fit(patch, incumbent, "Make it against the branch of the search.")
        said = f"Idea {Inbox(self._alive()).add_idea(text, patch)} waits in {self.folder.name}."
        name = recorded_config(self.folder).proposer["name"]
        if patch or getattr(PROPOSERS.load(name), "reads_ideas", False):
            return said
        return f"{said}\nBut no model reads it there: the proposer is {name}, and only patches are tried."

    def ideas(self) -> list[dict[str, Any]]:
        """Every idea and what became of it: what `idea list --json` prints."""
        with Journal.of(self.folder) as journal:
            tested = {
                e.proposal.idea: f"experiment {e.number}" + (f": {e.verdict.kind}" if e.verdict else "")
                for e in journal.experiments()
                if e.proposal and e.proposal.idea
            }
        entries = Inbox(self.folder).entries()
        return [{**asdict(e), "about": tested.get(e.idea.number) or e.reason} for e in entries]

    def sources(self) -> list[str]:
        """What came of each source that was read for ideas, a line for each."""
        from autoresearch.report.sections.worth import source_lines

        inbox = Inbox(self.folder)
        with Journal.of(self.folder) as journal:
            info, experiments = journal.info(), journal.experiments()
        return source_lines(inbox.entries(), experiments, inbox.readings(), info.metric)

    def drop(self, number: int) -> str:
        """Drop an idea that no proposal tests yet.

        Raises:
            UserError: If there is none of that number, or if it was taken up already.
        """
        Inbox(self._alive()).drop(number)
        return f"Idea {number} is dropped."

    def pause(self) -> str:
        """Ask it to pause at its next step; trials that are running finish.

        Raises:
            UserError: If no process runs it.
        """
        self._wish("pause")
        name = self.folder.name
        return f"{name} pauses at its next step. Go on with: autoresearch resume name={name}"

    def resume(self) -> str:
        """Ask a paused search to go on.

        Raises:
            UserError: If no process runs it.
        """
        self._wish("run")
        return f"{self.folder.name} goes on."

    def stop(self) -> str:
        """Ask it to stop at its next step; `run` with its name continues it. No claim follows by itself.

        Raises:
            UserError: If no process runs it.
        """
        from autoresearch.search.setup.settings import recorded_config
        from autoresearch.tasks import create_task

        self._wish("stop")
        config, name = recorded_config(self.folder), self.folder.name
        lines = [f"{name} stops at its next step."]
        if config.claim and create_task(config).sealed:
            lines.append(
                "No claim follows, because the search may go on: the test split stays sealed. To claim what "
                f"it has found: autoresearch claim name={name}"
            )
        return "\n".join([*lines, f"Go on later with: {go_on(self.folder)}"])

    def _wish(self, value: str) -> None:
        with Journal.of(self._alive()) as journal:
            runner = journal.runner()
        if runner is None:
            name = self.folder.name
            raise UserError(f"No process runs {name}.", f"Go on with it: {go_on(self.folder)}")
        Inbox(self.folder).wish(value)

    def _alive(self) -> Path:
        """The folder of a search that can be steered.

        Raises:
            UserError: If it was opened from a file.
        """
        if self._place is not None:
            raise UserError("An exported file is read only.", "Open it as a search: autoresearch import FILE")
        return self.folder


def ordered(summary: Summary, sort: Order) -> list[Experiment]:
    """The experiments of a search, the best last."""
    none = float("-inf")

    def rank(e: Experiment) -> float:
        if sort is Order.NUMBER:
            return e.number
        if sort is Order.SCORE:
            return none if e.score is None else -summary.metric.loss(e.score)
        return none if e.verdict is None or e.verdict.effect is None else e.verdict.effect

    return sorted(summary.experiments, key=rank)


def _changes(summary: Summary) -> list[str]:
    """What was changed since the search was begun: its brief and its settings."""
    from autoresearch.report.markdown import setting_text
    from autoresearch.text import times

    def when(seconds: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))

    found = [
        f"Since {when(change.time)}: {setting_text(change)}."
        for change in summary.setting_changes[-SHOWN_CHANGES:]
    ]
    if changes := summary.brief_changes:
        last = f"{when(changes[-1].time)} (hash {changes[-1].hash})"
        told = f"The brief was changed {times(len(changes))}, last at {last}."
        found.insert(0, told)
    return found
