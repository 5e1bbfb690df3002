"""Runs the verifier of a track: the ordinary search, fed by what was contributed, again and again.

A contribution that ends the process again and again is set aside, so that it does not hold up the others.
Now and then an old link of the chain is measured again. Not covered: what is proposed (`proposer`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from autoresearch.config import Config
from autoresearch.config import Serve as Limits
from autoresearch.errors import UserError
from autoresearch.execute import is_remote
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.propose import PROPOSERS
from autoresearch.propose.base import Proposer
from autoresearch.search.checks.revocation import stored_judge, veto
from autoresearch.search.loop import Search
from autoresearch.search.scheduler import Stopped
from autoresearch.search.setup.open import open_search, proposer_of
from autoresearch.search.setup.settings import recorded_config
from autoresearch.search.state import SearchState
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.lock import lock
from autoresearch.store.records.notes import read_records
from autoresearch.swarm.chain.links import link_of
from autoresearch.swarm.chain.remeasure import REMEASURED, Remeasured, remeasure, remeasured_line
from autoresearch.swarm.store import State, Store
from autoresearch.swarm.verify.follower import contribution_of
from autoresearch.swarm.verify.proposer import MOST_TRIES, Contributions
from autoresearch.tasks import create_task
from autoresearch.tasks.base import Trust
from autoresearch.types import Experiment, Verdict, VerdictKind
from autoresearch.types import State as Step

RECHECK_PAIRS = 3
"""Pairs of trainings with which an old link is measured again."""

POLL_SECONDS = 1.0
"""Seconds between two looks for contributions."""

RECHECK = "an old link is measured again"
STOPPED = "the verifier is stopped"


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


def verify(
    folder: Path,
    store: Store,
    view: str = "quiet",
    proposer: Contributions | None = None,
    limits: Limits | None = None,
) -> bool:
    """Verify all that waits in a track, and end.

    Args:
        folder: Of the search of the track.
        store: The store of the server.
        view: How to show it.
        proposer: Proposes what is verified; by default what was contributed, and nothing else.
        limits: Of the server, if they are others than those that were recorded with the search.

    Returns:
        Whether it ended because nothing waits, not because a person stopped it.

    Raises:
        UserError: If the machine fails, or another process verifies the track.
    """
    config = recorded_config(folder)
    require_safe(config)
    limits = limits or config.serve
    proposer = proposer or Contributions(store, folder.name, limits.newcomers)
    set_aside(folder, store)
    with open_search([f"name={folder.name}", f"runs={folder.parent}"], view, proposer=proposer) as search:
        proposer.serve(search)
        try:
            by_itself = search.run()
        except (KeyboardInterrupt, UserError):  # no fault of what is verified, unless it cannot be told
            if not proposer.unclear:
                store.went_well(folder.name)
            raise
        finally:
            proposer.settle()
        store.went_well(folder.name)
        try:
            if by_itself and check_again(search, store, limits.recheck):
                store.publish(folder.name, search.repository)
        except Stopped:
            return False
    return by_itself


def set_aside(folder: Path, store: Store) -> None:
    """Count that the verifier begins again with what it was at when it ended; give up what ends it each time.

    Args:
        folder: Of the search of the track.
        store: The store of the server.
    """
    taken = [one for one in store.contributions(folder.name) if one.state is State.TAKEN]
    failing = {one.number for one in taken if store.begin(one.number) > MOST_TRIES}
    if not failing:
        return
    reason = f"set aside: the verifier ended {MOST_TRIES} times while it was at this"
    with lock(folder), Journal.of(folder) as journal:
        config, task = recorded_config(folder), create_task(recorded_config(folder))
        state = SearchState(config, journal, Repository(Path.cwd()), task)
        for draft in journal.drafts():
            if (number := contribution_of(draft.proposal)) in failing:
                assert number is not None
                store.close_without_run(number, State.REFUSED, reason)
                journal.drop(draft, reason)
        for e in journal.open():
            if contribution_of(e.proposal) in failing and e.state is not Step.PROPOSED:
                _give_up(state, e, Verdict(VerdictKind.CRASH, reason=reason, trials=len(e.own)))


def _give_up(state: SearchState, e: Experiment, verdict: Verdict) -> None:
    """End an experiment; the search records it when it goes on, and the store follows."""
    if e.verdict is None:
        judge = stored_judge(state)
        judge.withdraw(e.number)
        state.journal.revoke({e.number: verdict}, judge.to_json(), {}, ())
    elif e.kept:
        veto(state, e.number, verdict)


def check_again(search: Search, store: Store, share: float) -> bool:
    """Measure a link of the chain again, chosen at random, if its turn has come; flag it if it fails.

    Args:
        search: Of the track.
        store: The store of the server.
        share: Of the verdicts, after how many one link is measured again.

    Returns:
        Whether a link was flagged.

    Raises:
        Stopped: If a person stops it.
    """
    track, links = search.config.name, _links(search.journal)
    if not _is_due(search.journal, store, track, share):
        return False
    [found] = remeasure(search, [link_of(search, secrets.choice(links))], RECHECK_PAIRS)
    said = remeasured_line(found)
    search.view.message(f"Checked again: {said}", warning=found.holds is False)
    if found.holds is not False:
        return False
    store.flag(
        track, {"commit": found.commit, "reason": said, "effect": found.effect, "signed": found.signed}
    )
    return True


def _links(journal: Journal) -> list[Experiment]:
    """What contributors have found."""
    return [e for e in journal.kept() if contribution_of(e.proposal) is not None]


def _is_due(journal: Journal, store: Store, track: str, share: float) -> bool:
    """Whether it is time to measure an old link again."""
    done = len(read_records(journal, REMEASURED, Remeasured))
    decided = sum(one.runs > 0 for one in store.contributions(track))
    return done < decided * share and bool(_links(journal))


def own_proposer(
    folder: Path, config: Config, search: bool | None, say: Callable[[str], None]
) -> Proposer | None:
    """What the verifier tries by itself while nobody known waits; None if it tries nothing.

    Args:
        folder: Of the search of the track.
        config: Of the search.
        search: Whether to; None: if its proposer answers by itself, so that it costs no money.
        say: Tells a person something.
    """
    name = str(config.proposer["name"])
    free = bool(PROPOSERS.load(name).instant)
    if name == "queue" or not (free if search is None else search):  # a queue waits for people
        return None
    return proposer_of(config, Repository(Path.cwd()), folder, say)


def verify_always(
    folder: Path, store: Store, view: str, stopped: Callable[[], bool], limits: Limits | None = None
) -> None:
    """Verify whatever comes in, until it is stopped.

    Args:
        folder: Of the search of the track.
        store: The store of the server.
        view: How to show it.
        stopped: Whether to end.
        limits: Of the server, if they are others than those that were recorded with the search.
    """
    config = recorded_config(folder)
    limits = limits or config.serve
    recheck = limits.recheck

    def pauses(journal: Journal) -> str:
        return STOPPED if stopped() else RECHECK if _is_due(journal, store, folder.name, recheck) else ""

    own = own_proposer(folder, config, limits.search, store.say)
    proposer = Contributions(store, folder.name, limits.newcomers, own, pauses)
    while not stopped():  # the first time it settles what an earlier verifier has left
        if not verify(folder, store, view, proposer, limits):
            return
        while not (stopped() or store.waiting(folder.name) or proposer.searches):
            time.sleep(POLL_SECONDS)
