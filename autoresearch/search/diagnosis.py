"""Trains the incumbent once with edits that only print, because a proposer wants to know something of it.

Nothing is judged: there is no verdict, and the score is not recorded. What the program printed is recorded,
and goes into the prompt as data, cut and quoted like everything that a candidate prints. It runs in the same
jail as every trial, and is scored on the validation split alone, so that it is shown nothing that a candidate
is not. A search allows few of them (`diagnoses`). The draft waits in the journal until the training has
ended, so a killed search runs it again.

Not covered: how it is asked for (`propose.llm.answer`), and how many are left (`state`, `admission`).
"""

from __future__ import annotations

from dataclasses import replace

from autoresearch.errors import Refused
from autoresearch.propose.llm.history import printed
from autoresearch.search.checks.admission import Admission
from autoresearch.search.observers import View
from autoresearch.search.scheduler import Scheduler
from autoresearch.search.state import SearchState
from autoresearch.search.steps import Steps
from autoresearch.store.records.notes import DIAGNOSES, note_text, read_diagnoses
from autoresearch.text import one_line
from autoresearch.types import Arm, Diagnosis, Draft, Split, Trial

KEPT = 8000
"""Characters that are recorded of what it printed."""

DONE = "a diagnosis: the script was trained with it once; the next prompts quote what it printed"


def diagnose(
    state: SearchState, admission: Admission, scheduler: Scheduler, view: View, draft: Draft
) -> Steps[None]:
    """Carry out a draft that only prints; afterwards it waits no longer.

    Args:
        state: Of the search.
        admission: Merges the edits onto the incumbent of now.
        scheduler: Starts the training.
        view: Shows what happens.
        draft: The draft.
    """
    journal, tip = state.journal, state.incumbent
    question = one_line(draft.proposal.hypothesis, 500)
    try:
        edits = admission.rebase(draft, tip.commit).edits
        candidate = state.candidate(tip.commit, edits)
        state.task.validate(state.sources(tip.commit), candidate.sources)
    except Refused as error:
        journal.drop(draft, str(error))
        return
    view.message(f"Diagnosis for {draft.proposal.proposer}: {question}")
    seed = next(t.seed for t in tip.own if t.score is not None)
    latest = journal.experiments()[-1].number

    def start() -> Trial:
        trial = journal.start_trial(latest, Arm.DIAGNOSE, seed, tip.commit)
        return scheduler.start_unrecorded(trial, (Split.VALIDATION,), "", files=candidate.changed)

    ended = yield start
    result = replace(ended.result, score=None, metrics={}, items={})
    said = printed(result.log, KEPT)
    found = Diagnosis(tip.number, question, said, result.outcome, one_line(result.reason, 500))
    records = note_text((*read_diagnoses(journal), found))
    view.trial(journal.diagnosed(draft, ended.trial, result, {DIAGNOSES: records}, DONE))
