"""The store follows the journal: what the verifier's search has decided is written to the store and its log.

This is done after it, once, however often the verifier is killed in between. What the verifier finds by
itself becomes a contribution of the server, so that the chain holds it like any other.
"""

from __future__ import annotations

from typing import Any

from autoresearch.clock import now
from autoresearch.edit.candidate import diff
from autoresearch.search.loop import Search
from autoresearch.store.journal import Journal
from autoresearch.swarm.chain.links import CONTRIBUTOR, link_of
from autoresearch.swarm.contribution import Evidence, Signed, sign, tree_digest
from autoresearch.swarm.store import Received, State, Store
from autoresearch.text import clean, one_line
from autoresearch.types import Experiment, Proposal
from autoresearch.types import State as Step


class Follower:
    """Brings the store up to date with a search.

    Args:
        store: The store.
        search: The search of the track.
    """

    def __init__(self, store: Store, search: Search) -> None:
        self._store, self._search, self._track = store, search, search.config.name
        self._published = False

    def settle(self) -> None:
        """Write what the journal has decided to the store and its log; what was lost waits again."""
        decided = self._decided(self._search.journal)
        if decided or not self._published:
            self._store.publish(self._track, self._search.repository)
            self._published = True

    def _decided(self, journal: Journal) -> bool:
        """Whether anything was decided."""
        decided = self._keep_own(journal)
        by_number = {e.number: e for e in journal.experiments()}
        tested: dict[int | None, Experiment] = {contribution_of(e.proposal): e for e in by_number.values()}
        drafted = {contribution_of(draft.proposal) for draft in journal.drafts()}
        for received in self._store.contributions(self._track):
            found = tested.get(received.number) or by_number.get(received.experiment or -1)
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

    def _keep_own(self, journal: Journal) -> bool:
        """Make contributions of what the verifier found by itself, signed by the server; whether any is new.

        If somebody sent the same files meanwhile, it is theirs: who signed first has found it.
        """
        known = {one.experiment for one in self._store.contributions(self._track) if one.state is State.KEPT}
        kept = list(journal.kept())
        start = self._store.start(self._track)
        before = [at for at, e in enumerate(kept) if e.commit == start]
        new = [
            e
            for e in kept[max(before, default=-1) + 1 :]
            if contribution_of(e.proposal) is None and e.number not in known
        ]
        for e in new:
            self._decide(self._store.receive_own(self._signed(e)), e)
        return bool(new)

    def _signed(self, e: Experiment) -> Signed:
        """What the verifier found, as a contribution of the server."""
        assert e.proposal is not None and e.verdict is not None
        read, editable = self._search.repository.sources, self._search.task.editable
        before, after = read(e.parent, editable), read(e.commit, editable)
        return sign(
            self._store.identity,
            track=self._track,
            parent=e.parent,
            patch=diff(before, after),
            tree=tree_digest(after),
            title=one_line(clean(e.proposal.hypothesis), 160),
            why=clean(e.proposal.mechanism)[:4000],
            evidence=Evidence(tuple(e.verdict.pairs[:64])),
            author=self._store.own_name,
            time=now(),
        )

    def _decide(self, received: Received, e: Experiment) -> None:
        assert e.verdict is not None
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
