"""Takes back kept changes that a later run showed to be invalid: one proof of cheating ends the matter.

The branch steps back to what was kept before the invalid change, and so does the judge. What was kept after
it is not kept any more, and is proposed again: its gains were measured on top of a cheat. What else its
author has had kept is run again. All of this is one transaction of the journal (`revoke`); git follows
(`settle`), at the latest when the search goes on after a kill.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from autoresearch.clock import now
from autoresearch.search.scores import ScoreJudge
from autoresearch.search.state import SearchState
from autoresearch.store.git.commits import commit_message, move_branch
from autoresearch.store.records.claims import read_claims
from autoresearch.store.records.notes import RECHECKS, REVOKED, Revoked, read_rechecks, read_revoked
from autoresearch.types import (
    Arm,
    Cost,
    Experiment,
    Measurement,
    State,
    Trial,
    Verdict,
    VerdictKind,
    in_order,
)


def revoke(
    state: SearchState,
    number: int,
    reason: str,
    ended: tuple[Trial, Measurement] | None = None,
    needless: Iterable[int] = (),
) -> None:
    """Take back a kept change and all that were kept after it, in the journal; `settle` must follow.

    Candidates in flight were made for what is void now, so they are proposed again, too.

    Args:
        state: Of the search.
        number: The experiment whose change is invalid.
        reason: What showed it.
        ended: The trial that showed it, if it is in the journal, and its result.
        needless: Trials under way; the judge forgets all that it has asked for.
    """
    journal, experiments = state.journal, in_order(state.journal.experiments())
    since = state.journal.experiment(number).order
    gone = [e for e in experiments if e.kept and e.order >= since]
    invalid, *above = gone
    under_way = [e for e in state.open if e.verdict is None]
    commits, also = tuple(e.commit for e in gone), tuple(e.number for e in above)
    # What was found invalid on top of it has perhaps been blamed for it, and deserves another trial.
    blamed = [e for e in experiments if _is_invalid(e) and e.parent in commits]
    before = [e for e in experiments if e.kept and e.order < since]
    judge = _stepped_back(state, len(gone), before)
    void = Verdict(VerdictKind.INVALID, reason=f"it was kept, and a later run showed: {reason}")
    redo = Verdict(
        VerdictKind.DISCARD,
        reason=f"it was measured on top of experiment {number}, which is invalid; it is proposed again",
    )
    known = [*read_revoked(journal), Revoked(number, reason, now(), commits, also)]
    journal.revoke(
        {number: void, **{e.number: redo for e in (*above, *under_way)}},
        judge.to_json(),
        {
            REVOKED: json.dumps([asdict(r) for r in known]),
            RECHECKS: json.dumps(_others(state, invalid, before)),
        },
        [(replace(e.proposal, cost=Cost()), e.parent) for e in (*above, *under_way, *blamed) if e.proposal],
        ended,
        needless,
    )


def veto(state: SearchState, number: int, verdict: Verdict, needless: Iterable[int] = ()) -> None:
    """Replace the verdict of a change that the judge has just kept, and that is not recorded yet.

    Args:
        state: Of the search.
        number: The experiment.
        verdict: Its verdict from now on.
        needless: Trials under way; the judge forgets all that it has asked for.
    """
    judge = _stepped_back(state, 1, list(state.kept)).to_json()
    state.journal.revoke({number: verdict}, judge, {}, [], needless=needless)


def suspect(state: SearchState, experiment: Experiment) -> None:
    """Have the other kept changes of an author run again, one of whose candidates was found to be invalid."""
    kept = [e for e in state.journal.experiments() if e.kept and e.number != experiment.number]
    state.journal.set(RECHECKS, json.dumps(_others(state, experiment, kept)))


def revoke_claimed(state: SearchState) -> None:
    """Take back what a claim has found to be invalid, if that was not done yet; `settle` must follow."""
    for record in read_claims(state.journal):
        claimed = state.journal.experiment(record.experiment)
        if record.caught and claimed.kept and claimed.commit == record.tip:
            revoke(state, claimed.number, record.void)


def settle(state: SearchState) -> str:
    """Make git agree with revoked verdicts; doing it twice changes nothing. Says where the branch is.

    Raises:
        UserError: If somebody has put other commits on the branch.
    """
    journal, repository = state.journal, state.repository
    said, revoked = "", {number for r in read_revoked(journal) for number in (r.number, *r.also)}
    for e in journal.experiments():
        if e.state is not State.JUDGED or e.number not in revoked:
            continue
        said = said or move_branch(journal, repository)  # before its commit gets another name
        message = commit_message(e, state.task.metric, state.journal.info().trust)
        final = repository.reword(e.commit, e.parent, message, e.created)
        journal.recorded(e.number, final)
        repository.update_refs({state.ref(e.number): final})
    return said


def stored_judge(state: SearchState) -> ScoreJudge:
    """The judge as the journal has it."""
    return ScoreJudge.from_json(state.journal.judge_state() or "", state.task.metric)


def _stepped_back(state: SearchState, keeps: int, before: list[Experiment]) -> ScoreJudge:
    """The judge without its last keeps; `before`: what was kept before these, in order."""
    judge, experiments = stored_judge(state), state.journal.experiments()
    judge.step_back(keeps, _scores(experiments, before[-1] if before else experiments[0]))
    return judge


def _is_invalid(experiment: Experiment) -> bool:
    return experiment.verdict is not None and experiment.verdict.kind is VerdictKind.INVALID


def _others(state: SearchState, invalid: Experiment, kept: list[Experiment]) -> list[int]:
    """Experiments to be run again: those known already, and what was kept of the same author."""
    author = invalid.proposal.proposer if invalid.proposal else ""
    known = set(read_rechecks(state.journal))
    return sorted(known | {e.number for e in kept if e.proposal and e.proposal.proposer == author})


def _scores(experiments: Sequence[Experiment], incumbent: Experiment) -> dict[int, float]:
    """All scores of a kept commit by seed, the screening one only if there is no other."""
    own = {t.seed: t.score for t in incumbent.own if t.score is not None}
    fair = {t.seed for t in incumbent.trials if t.arm is not Arm.SCREEN}
    own = {seed: score for seed, score in own.items() if seed in fair} or own
    again = (t for e in experiments for t in e.trials if t.arm is Arm.INCUMBENT)
    return own | {t.seed: t.score for t in again if t.commit == incumbent.commit and t.score is not None}
