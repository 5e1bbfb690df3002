"""Verifies contributions: the ordinary search of a track, whose proposals are what strangers sent.

The search measures, and its judge decides, as for any other proposal; what a contributor claims decides only
whose turn it is. Contributions are merged onto the tip when their turn comes, or go back to their sender.
The store follows the journal: what the journal has decided is written to the log after it, once, however
often the verifier is killed in between. Not covered: whose turn it is (`queue`), what is taken (`intake`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.config import Config
from autoresearch.edit.candidate import carried_edits
from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.execute import is_remote
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.propose.base import Check, Context, Proposer, ProposerError, up_to
from autoresearch.search.loop import Search
from autoresearch.search.scheduler import Stopped
from autoresearch.search.setup.open import open_search
from autoresearch.search.setup.settings import recorded_config
from autoresearch.store.journal import Journal
from autoresearch.store.records.notes import read_records
from autoresearch.swarm.chain.links import CONTRIBUTOR, link_of
from autoresearch.swarm.chain.remeasure import REMEASURED, Remeasured, remeasure, remeasured_line
from autoresearch.swarm.queue import choose
from autoresearch.swarm.store import Received, State, Store
from autoresearch.tasks import create_task
from autoresearch.tasks.base import Trust
from autoresearch.types import Category, Experiment, Proposal
from autoresearch.types import State as Step

NOTHING = "no contribution waits"

RECHECK_PAIRS = 3
"""Pairs of trainings with which an old link is measured again."""

POLL_SECONDS = 1.0
"""Seconds between two looks for contributions."""


def require_safe(config: Config) -> None:
    """Refuse a track whose candidates strangers could use against the verifier.

    Args:
        config: Of the search of the track.

    Raises:
        UserError: If candidates would run without a sandbox, or say their own scores.
    """
    name, backend = config.name, str(config.sandbox["backend"])
    remote = is_remote(config.executor.name)
    if backend == "none" or (remote and backend == "auto"):
        raise UserError(
            f"{name} would run strangers' code without a sandbox that was checked (sandbox={backend}).",
            "Begin the track with sandbox=bwrap or sandbox=landlock.",
        )
    if not remote and create_sandbox(backend).name == "none":
        raise UserError(
            "No sandbox works on this machine, and strangers' code must not run without one.",
            "See what is missing: autoresearch doctor",
            code=3,
        )
    if create_task(config).trust is Trust.PRINTED:
        raise UserError(
            f"Candidates of {name} print their own scores, so a stranger could claim any.",
            "Let a frozen program score what they leave behind: docs/tasks.md, `task.score`.",
        )


class Contributions(Proposer):
    """Proposes what was sent to a track, in the order of the queue.

    Args:
        store: The store.
        track: Name of the track.
        newcomers: See `queue.choose`.
    """

    name = "contributions"
    instant = True

    def __init__(self, store: Store, track: str, newcomers: float) -> None:
        self._store, self._track, self._newcomers = store, track, newcomers
        self._search: Search | None = None
        self._published: Search | None = None

    def serve(self, search: Search) -> None:
        """Propose to this search from now on, and bring the store up to date with its journal."""
        self._search = search
        self.settle()

    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        self.settle()
        return up_to(n, lambda: self._next(context, check))

    def _next(self, context: Context, check: Check) -> Proposal:
        """The next one that can be tried; others are closed with the reason."""
        while True:
            turns = self._store.turns(self._track)
            chosen = choose(self._store.waiting(self._track), turns, self._newcomers)
            if chosen is None:
                raise ProposerError(NOTHING)
            received = self._store.numbered(chosen.number)
            try:
                proposal = self._proposal(received, context.sources)
            except Refused as error:
                reason = f"{error}. Make the change anew, on top of the tip."
                self._store.close_without_run(chosen.number, State.RETURNED, reason)
                continue
            try:
                check(proposal)
            except Refused as error:
                self._store.close_without_run(chosen.number, State.REFUSED, str(error))
                continue
            self._store.take(chosen.number, turns.record(chosen.who).known)
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

    # The store follows the journal

    def settle(self) -> None:
        """Write what the journal has decided to the store and its log; what was lost waits again."""
        assert self._search is not None, "a search is served"
        decided = self._settle(self._search.journal)
        if decided or self._search is not self._published:
            self._store.publish(self._track, self._search.repository)
            self._published = self._search

    def _settle(self, journal: Journal) -> bool:
        """Whether anything was decided."""
        decided = False
        tested: dict[int, Experiment] = {}
        for e in journal.experiments():
            if (number := contribution_of(e.proposal)) is not None:
                tested[number] = e
        drafted = {contribution_of(draft.proposal) for draft in journal.drafts()}
        for received in self._store.contributions(self._track):
            found = tested.get(received.number)
            if found is None:
                if received.state is State.TAKEN and received.number not in drafted:
                    self._store.reopen(self._track, received.number)
            elif found.verdict is None or found.state is not Step.RECORDED:
                continue
            elif received.experiment != found.number:
                self._decide(received, found)
                decided = True
            elif received.state is State.KEPT and not found.kept:
                self._store.take_back(received.number, found.verdict.reason)
                decided = True
        return decided

    def _decide(self, received: Received, e: Experiment) -> None:
        assert e.verdict is not None and self._search is not None
        withdrawn = not e.kept and e.verdict.trials == 0 and e.verdict.reason.startswith("withdrawn")
        state = State.KEPT if e.kept else State.RETURNED if withdrawn else State.DISCARDED
        told: dict[str, Any] = {
            "verdict": e.verdict.kind,
            "reason": e.verdict.reason,
            "experiment": e.number,
            "effect": e.verdict.effect,
            "interval": e.verdict.interval,
        }
        if e.kept:
            told["link"] = link_of(self._search, e).to_dict()
        self._store.decide(received.number, state, len(e.own), e.commit if e.kept else "", told)


def contribution_of(proposal: Proposal | None) -> int | None:
    """The number of the contribution that a proposal is; None for another proposal."""
    if proposal is None or not proposal.proposer.startswith(CONTRIBUTOR):
        return None
    return proposal.idea


def verify(folder: Path, store: Store, view: str = "quiet") -> bool:
    """Verify all that waits in a track, and end.

    Args:
        folder: Of the search of the track.
        store: The store of the server.
        view: How to show it.

    Returns:
        Whether it ended because nothing waits, not because a person stopped it.

    Raises:
        UserError: If the machine fails, or another process verifies the track.
    """
    config = recorded_config(folder)
    require_safe(config)
    proposer = Contributions(store, folder.name, config.serve.newcomers)
    overrides = [f"name={folder.name}", f"runs={folder.parent}"]
    with open_search(overrides, view, proposer=proposer) as search:
        proposer.serve(search)
        try:
            by_itself = search.run()
        finally:
            proposer.settle()
        if by_itself and check_again(search, store, config.serve.recheck):
            store.publish(folder.name, search.repository)
    return by_itself


def check_again(search: Search, store: Store, share: float) -> bool:
    """Measure a link of the chain again, chosen at random, if its turn has come; flag it if it fails.

    Args:
        search: Of the track.
        store: The store of the server.
        share: Of the verdicts, after how many one link is measured again.

    Returns:
        Whether a link was flagged.
    """
    track = search.config.name
    done = len(read_records(search.journal, REMEASURED, Remeasured))
    decided = sum(one.runs > 0 for one in store.contributions(track))
    links = [e for e in search.journal.kept() if contribution_of(e.proposal) is not None]
    if not links or done >= decided * share:
        return False
    try:
        [found] = remeasure(search, [link_of(search, secrets.choice(links))], RECHECK_PAIRS)
    except Stopped:
        return False
    said = remeasured_line(found)
    search.view.message(f"Checked again: {said}", warning=found.holds is False)
    if found.holds is not False:
        return False
    store.flag(
        track, {"commit": found.commit, "reason": said, "effect": found.effect, "signed": found.signed}
    )
    return True


def verify_always(folder: Path, store: Store, view: str, stopped: Callable[[], bool]) -> None:
    """Verify whatever comes in, until it is stopped.

    Args:
        folder: Of the search of the track.
        store: The store of the server.
        view: How to show it.
        stopped: Whether to end.
    """
    verify(folder, store, view)  # settles what an earlier verifier has left
    while not stopped():
        if not store.waiting(folder.name):
            time.sleep(POLL_SECONDS)
        elif not verify(folder, store, view):
            return
