"""Searches on several places: what must hold of them at their end, and a judge that judges them again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path

from autoresearch.judge import TrialRequest
from autoresearch.search.loop import Search
from autoresearch.search.scores import ScoreJudge
from autoresearch.store.files import document_losses, losses_folder
from autoresearch.store.records.notes import read_revoked, read_slices
from autoresearch.types import Arm, Experiment, Trial, Verdict
from tests.support.stub import PATH, git, measurers


def paced(search: Search, wait: Callable[[str], None]) -> Search:
    """Let each training wait for something; `wait` is given the script."""
    for stub in measurers(search):
        measure = stub.measure

        def slow(tree: Path, *rest: object, measure: Callable[..., object] = measure) -> object:
            wait((tree / PATH).read_text())
            return measure(tree, *rest)

        stub.measure = slow  # type: ignore[method-assign, assignment]
    return search


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def judged(search: Search, number: int) -> Callable[[], bool]:
    """Whether an experiment is recorded."""
    return lambda: any(e.number == number and e.state == "recorded" for e in search.journal.experiments())


def sound(search: Search) -> None:
    """What holds at the end of every search: nothing is lost, nothing is counted twice, git agrees."""
    root, name, experiments = search.repository.root, search.config.name, search.journal.experiments()
    assert all(e.state == "recorded" and e.verdict for e in experiments[1:])
    assert sorted(e.decided or 0 for e in experiments[1:]) == list(range(1, len(experiments)))
    trials = [t for e in experiments for t in e.trials]
    assert all(t.finished for t in trials)
    answered = [(t.commit, t.arm, t.seed) for t in trials if t.result]
    state = json.loads(search.journal.judge_state() or "")["state"]
    # Whatever was in flight when the machine seemed to have changed is screened again.
    assert len(set(answered)) == len(answered) or state["incumbent"]["drifts"]
    assert state["active"] == state["_requests"]["open"] == []
    assert state["_requests"]["late"] == [] or read_revoked(search.journal)
    assert len(state["keeps"]) == len(search.state.kept)
    screened = {e.number for e in experiments[1:] for t in e.trials if t.arm is Arm.SCREEN and t.result}
    assert state["candidates"] <= len(screened)
    tip = git(root, "rev-parse", f"autoresearch/{name}")
    assert tip == search.state.incumbent.commit
    line = git(root, "rev-list", "--reverse", f"main..autoresearch/{name}").split()
    assert line == [e.commit for e in search.state.kept]
    shape = "--format=%(refname:lstrip=3) %(objectname) %(tree)"
    told = git(root, "for-each-ref", shape, f"refs/autoresearch/{name}").splitlines()
    refs = [words.split() for words in told]
    own = [(int(ref), commit) for ref, commit, _ in refs if "-" not in ref]
    assert own == [(e.number, e.commit) for e in experiments[1:]]
    trees = (f"{commit}^{{tree}}" for commit in ["main", *{t.commit for t in trials}])
    start, *measured = git(root, "rev-parse", *trees).split()
    assert {*measured} <= {start, *(tree for *_, tree in refs)}
    assert list(search.folder.glob("trials/*")) == [] and git(root, "status", "--porcelain") == ""


def replay(search: Search, places: int, kinds: Collection[str] = ()) -> dict[int, Verdict]:
    """The verdicts of a judge that is asked and told what the journal says, in the order in which it was.

    Args:
        search: What is replayed.
        places: How many it had.
        kinds: Kinds of devices whose scores do not compare with those of the first.
    """
    devices = {place.name: place.device for place in search.executor.places if place.device in kinds}
    journal, metric = search.journal, search.task.metric
    experiments = journal.experiments()
    starts = [t for t in experiments[0].trials if t.arm is Arm.BASELINE]
    everything = [t for e in experiments for t in e.trials]
    losses = {t.id: document_losses(losses_folder(search.folder, t.id)) for t in everything}
    scores = {t.seed: t.score for t in sorted(starts, key=lambda t: t.seed) if t.score is not None}
    documents = {t.seed: losses[t.id] for t in starts}
    judge = ScoreJudge.create(
        metric,
        scores,
        search.config.judge,
        {seed: documents[seed] for seed in scores},
        steady=search.task.deterministic,
    )
    judge.use_places(places)
    of_checks = {number for use in read_slices(journal) for number in use.trials}
    asked_for = (t for t in everything if t not in starts and t.id not in of_checks)
    trials = sorted(asked_for, key=lambda t: t.id)
    events: list[tuple[float, int, object]] = [(e.created, 0, e) for e in experiments[1:]]
    events += [(t.started, 1, t) for t in trials]
    events += [(t.finished or 0.0, 2, t) for t in trials if t.result]
    uses = [use for use in read_slices(journal) if use.outcome == "ok"]
    passed = {use.experiment: use.ended for use in uses}
    checks = {use.experiment: [t for i in use.trials for t in everything if t.id == i] for use in uses}
    events += [(moment, 3, number) for number, moment in passed.items()]
    gone = {use.experiment for use in read_slices(journal) if use.outcome not in ("", "ok")}
    events += [(experiments[number].finished or 0.0, 4, number) for number in gone]
    withdrawn = {e.number for e in experiments[1:] if e.verdict and e.verdict.reason.startswith("withdrawn")}
    asked: dict[int, TrialRequest] = {}
    found: dict[int, Verdict] = {}
    for _, kind, what in sorted(events, key=lambda event: event[:2]):
        if isinstance(what, Experiment):
            proposal = what.proposal
            assert proposal
            judge.candidate(search.state.candidate_of(what).growth, proposal.category, what.number)
        elif isinstance(what, int):
            if kind == 4:
                judge.withdraw(what)
            else:
                if ran := [(t.result, losses[t.id]) for t in checks.get(what, ()) if t.result]:
                    found |= judge.checked(what, checks[what][0].seed, *ran)
                found |= judge.passed(what)
            asked = {id: want for id, want in asked.items() if judge.needs(want)}
        elif kind == 1 and isinstance(what, Trial):
            judge.use_device(devices.get(what.place, ""))
            want = None
            while want is None and (behind := judge.behind):
                e = experiments[number := behind[0]]
                if number in withdrawn and (e.finished or 0.0) <= what.started:
                    judge.withdraw(number)
                else:
                    judge.rebased(number, search.state.candidate_of(e).growth)
                want = judge.next()
            want = want or judge.next()
            assert want and (want.arm, want.seed) == (what.arm, what.seed)
            assert want.arm is Arm.INCUMBENT or want.candidate == what.experiment
            asked[what.id] = want
        elif isinstance(what, Trial):
            results = [t.result for t in experiments[what.experiment].trials if t.result]
            decided = judge.digest(asked[what.id], what.result, lambda n, r=results: r, losses[what.id])
            found |= decided
            asked = {id: want for id, want in asked.items() if id != what.id and judge.needs(want)}
        while free := [number for number in judge.held if number not in {*passed, *gone}]:
            found |= judge.passed(free[0])  # at once: there was no slice left
            asked = {id: want for id, want in asked.items() if judge.needs(want)}
    return found
