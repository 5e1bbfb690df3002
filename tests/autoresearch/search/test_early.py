"""Head starts: what is begun before its turn saves time, and changes nothing else."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.errors import Refused
from autoresearch.propose.base import Check, Context, Proposer, ProposerError
from autoresearch.search.interfaces import NoInbox, View
from autoresearch.search.loop import Search
from autoresearch.store.git import Repository
from autoresearch.types import Measurement, Proposal, Trial
from tests.support.stub import PATH, ScriptedProposer, StubRunner, make_repository, make_search

IDEAS: list[float | str] = ["OTHER = 1", "OTHER = 2", 0.2, "OTHER = 3", "OTHER = 'crash'", "OTHER = 4"]
"""The third is kept, after the next ones were proposed; they change another line."""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo")


class Together(StubRunner):
    """Screens some candidates only while others are being trained, to prove that they are at once."""

    def __init__(self, meeting: threading.Barrier, lines: set[str], met: set[str]) -> None:
        super().__init__()
        self.meeting, self.lines, self.met = meeting, lines, met

    def run(self, *, code: Path, **arguments: object) -> Measurement:  # type: ignore[override]
        source = (code / PATH).read_text()
        if found := next((line for line in self.lines - self.met if line in source), ""):
            self.met.add(found)
            self.meeting.wait()
        return super().run(code=code, **arguments)  # type: ignore[arg-type]


def searches(
    repository: Repository,
    ideas: Sequence[float | str],
    *overrides: str,
    places: int = 2,
    instant: bool = False,
    proposer: Proposer | None = None,
) -> Search:
    """One whose proposer is asked ahead."""
    settings = f"experiments={len(ideas)}", f"executor.workers={places}", *overrides
    return make_search(repository, ideas, *settings, instant=instant, proposer=proposer)


def meeting(search: Search, *lines: str) -> None:
    """Let candidates wait for each other in their first trainings."""
    barrier, met = threading.Barrier(len(lines), timeout=20), set[str]()
    search.runners = {place: Together(barrier, set(lines), met) for place in search.runners}
    search.__post_init__()


def story(search: Search) -> list[tuple[object, ...]]:
    return [
        (e.number, e.verdict.kind.value, e.verdict.effect, e.verdict.reason, e.verdict.trials, e.scores)
        for e in search.journal.experiments()
        if e.verdict
    ]


def trials(search: Search, number: int) -> list[Trial]:
    return list(search.journal.experiment(number).trials)


@pytest.mark.parametrize("instant", [False, True])
def test_the_next_candidate_is_screened_where_a_place_is_idle(
    repository: Repository, tmp_path: Path, instant: bool
) -> None:
    search = searches(repository, [1.5, 1.6], instant=instant)
    meeting(search, "LEVEL = 1.5", "LEVEL = 1.6")
    search.run()
    first, second = trials(search, 1), trials(search, 2)
    assert (len(first), len(second)) == (1, 1), "begun early is begun once"
    assert second[0].started < (first[0].finished or 0) and second[0].place != first[0].place
    alone = searches(make_repository(tmp_path / "alone"), [1.5, 1.6], places=1)
    alone.run()
    assert story(search) == story(alone)


def test_three_places_screen_three_candidates(repository: Repository) -> None:
    search = searches(repository, [1.5, 1.6, 1.7], places=3)
    meeting(search, "LEVEL = 1.5", "LEVEL = 1.6", "LEVEL = 1.7")
    search.run()
    assert [row[1] for row in story(search)] == ["discard"] * 3
    assert len({trials(search, number)[0].place for number in (1, 2, 3)}) == 3
    proposer = search.proposer
    assert isinstance(proposer, ScriptedProposer)
    assert [e.number for e in proposer.asked[2].under_way] == [1, 2], "it is told what waits"


@pytest.mark.parametrize("places", [2, 3])
def test_no_verdict_is_another_one_for_it(tmp_path: Path, places: int) -> None:
    serial = searches(make_repository(tmp_path / "serial"), IDEAS, places=1)
    serial.run()
    search = searches(make_repository(tmp_path / "early"), IDEAS, places=places)
    search.run()
    assert [row[:5] for row in story(search)] == [row[:5] for row in story(serial)]
    assert [row[1] for row in story(search)] == ["discard", "discard", "keep", "discard", "crash", "discard"]


def test_what_was_to_replace_another_incumbent_is_given_up(repository: Repository) -> None:
    """The second candidate was begun on the baseline; the first is kept, so it is trained on that instead."""
    search = searches(repository, [0.2, "OTHER = 7"])
    meeting(search, "LEVEL = 0.2", "OTHER = 7")
    search.run()
    assert [row[1] for row in story(search)] == ["keep", "discard"]
    first, *others = trials(search, 2)
    assert first.result is None and first.finished, "in vain, and closed"
    assert others and others[0].score is not None
    assert search.journal.experiment(2).parent == search.journal.experiment(1).commit
    assert list(search.folder.glob("trials/*")) == []


class Points(ScriptedProposer):
    """Proposes points of a search space."""

    def propose(self, context: Context, check: Check) -> Proposal:
        return replace(super().propose(context, check), params={"LEVEL": 0.2})


def test_a_point_near_an_incumbent_that_was_replaced_is_chosen_anew(repository: Repository) -> None:
    """Merged, it would be a point that nobody chose, and its parameters would not be what they say."""
    search = searches(repository, [0.2, "OTHER = 7"], proposer=Points([0.2, "OTHER = 7", "OTHER = 8"]))
    meeting(search, "LEVEL = 0.2", "OTHER = 7")
    search.run()
    second = search.journal.experiment(2)
    assert [p.hypothesis for p in search.journal.experiment(1).dropped] == ["set OTHER = 7"]
    assert second.proposal and second.proposal.hypothesis == "set OTHER = 8"
    assert second.parent == search.journal.experiment(1).commit


def test_what_waits_is_not_proposed_again(repository: Repository) -> None:
    refused: list[str] = []

    class Twins(ScriptedProposer):
        def propose(self, context: Context, check: Check) -> Proposal:
            proposal = super().propose(context, check)
            try:
                check(proposal)
            except Refused as error:
                refused.append(str(error))
                raise ProposerError("out of ideas") from None
            return proposal

    ideas = [1.5, 1.6, 1.6]
    search = searches(repository, ideas, places=3, proposer=Twins(ideas))
    meeting(search, "LEVEL = 1.5", "LEVEL = 1.6")
    search.run()
    assert len(refused) == 1 and "experiment 2" in refused[0]
    assert [row[1] for row in story(search)] == ["discard"] * 2


def test_one_that_crashes_early_crashes_in_its_turn(repository: Repository) -> None:
    search = searches(repository, [1.5, "OTHER = 'crash'", 1.7])
    meeting(search, "LEVEL = 1.5", "OTHER = 'crash'")
    search.run()
    assert [row[1] for row in story(search)] == ["discard", "crash", "discard"]


def test_nothing_is_begun_beyond_the_last_experiment(repository: Repository) -> None:
    search = searches(repository, [1.5, 1.6], "experiments=1")
    search.run()
    assert [e.number for e in search.journal.experiments()] == [0, 1]
    rows = search.journal._db.execute("SELECT COUNT(*) FROM trials WHERE experiment > 1").fetchone()
    assert rows == (0,)


def test_a_search_that_is_stopped_gives_up_what_it_began(repository: Repository) -> None:
    search = searches(repository, [1.5, 1.6, 1.7])
    meeting(search, "LEVEL = 1.5", "LEVEL = 1.6")

    class Stop(NoInbox):
        def wait(self, view: View) -> bool:
            return search.past.tried < 2

    search.inbox = Stop()
    assert not search.run()
    open_trials = search.journal._db.execute("SELECT COUNT(*) FROM trials WHERE finished IS NULL").fetchone()
    assert open_trials == (0,)
    search.journal.close()
    again = searches(repository, [1.5, 1.6, 1.7])
    assert again.run()
    assert [row[1] for row in story(again)] == ["discard"] * 3


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [4, 6])
def test_killed_while_something_was_begun_early_it_ends_as_if_it_had_not_been(
    tmp_path: Path, at: int
) -> None:
    plain = searches(make_repository(tmp_path / "plain"), IDEAS)
    plain.run()
    repository = make_repository(tmp_path / "killed")
    search = searches(repository, IDEAS)
    calls, lock = iter(range(1, 10**6)), threading.Lock()

    def kill() -> None:
        with lock:
            number = next(calls)
        threading.Event().wait(0.05)  # long enough for the next proposal to come
        if number == at:
            raise Killed

    for runner in search.runners.values():
        assert isinstance(runner, StubRunner)
        runner.on_run = kill
    with pytest.raises(Killed):
        search.run()
    search.journal.close()
    again = searches(repository, IDEAS)
    again.run()
    assert [row[:5] for row in story(again)] == [row[:5] for row in story(plain)]
    assert list(again.folder.glob("trials/*")) == []
