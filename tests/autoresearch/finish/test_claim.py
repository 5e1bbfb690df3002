from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoresearch.errors import UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.finish.claim import make_claim
from autoresearch.judge.noise.documents import Items, document_variance, seed_variance, total
from autoresearch.report.markdown import claim_sentence, headline
from autoresearch.report.page import to_markdown
from autoresearch.report.summary import summarize
from autoresearch.search.loop import Search
from autoresearch.search.observers import EmptyInbox
from autoresearch.search.recovery import recover
from autoresearch.search.scheduler import Stopped
from autoresearch.store.files import read_losses
from autoresearch.store.git.repository import Repository
from autoresearch.store.records.claims import BASELINE, TIP, read_claims
from autoresearch.store.records.notes import read_revoked
from autoresearch.types import Measurement, Outcome
from tests.support.faults import KILLED, in_child
from tests.support.stub import NOISE, PATH, git, make_repository, make_search, measurer, said


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo")


def finished(repository: Repository, ideas: Sequence[float | str] = (1.5, 0.2), *overrides: str) -> Search:
    search = make_search(repository, ideas, *overrides)
    search.run()
    return search


def test_start_and_tip_are_compared_on_fresh_seeds_and_the_sealed_split(repository: Repository) -> None:
    search = finished(repository)
    steered = {t.seed for e in search.journal.experiments() for t in e.trials}
    before = search.journal.experiments()
    record = make_claim(search, 8)
    seeds = [access.seed for access in record.accesses]
    assert len(set(seeds)) == 8 and not steered & set(seeds)
    assert seeds[::2] == seeds[1::2], "start and tip are compared in pairs"
    sides = [access.side for access in record.accesses]
    assert sides[:4] == [BASELINE, TIP, TIP, BASELINE] and sides.count(TIP) == 8
    assert record.result is not None and record.finished is not None
    assert record.result.effect == pytest.approx(0.08), "what a seed gives both is not in the difference"
    assert record.result.interval == pytest.approx((0.08, 0.08), abs=NOISE / 10)
    assert record.result.sampling > 0 and record.result.overfit == pytest.approx(0, abs=1e-9)
    assert search.journal.experiments() == before, "what steers the search knows nothing of the claim"


def failing(search: Search, reasons: Sequence[str]) -> list[Sequence[str]]:
    """Let the next trainings fail for these reasons, "" is success; the splits that are asked for."""
    stub, left, asked = measurer(search), list(reasons), []
    measure = stub.measure

    def fragile(tree: Path, spec: TrialSpec, *others: Any) -> Measurement:
        asked.append(spec.splits)
        if left and (reason := left.pop(0)):
            return Measurement(Outcome.CRASH, reason=reason)
        return measure(tree, spec, *others)

    stub.measure = fragile  # type: ignore[method-assign]
    return asked


def test_the_test_split_is_opened_when_all_are_trained(repository: Repository) -> None:
    search = finished(repository)
    asked = failing(search, [])
    make_claim(search, 2)
    assert asked == [("validation",)] * 4 + [("test",)] * 4
    assert measurer(search).scored == [("test",)] * 4, "nothing is trained twice"
    assert not list(search.folder.glob("claims/1/*.weights")), "weights take room"


def test_the_claim_can_be_computed_again_from_the_losses_that_stay(repository: Repository) -> None:
    search = finished(repository)
    result = make_claim(search, 3).result
    sides: dict[str, dict[int, Any]] = {BASELINE: {}, TIP: {}}
    for folder in (search.folder / "claims/1").iterdir():
        side, _, seed = folder.name.partition("-")
        sides[side][int(seed)] = read_losses(folder, "test")
    table = next(iter(sides[TIP].values()))
    items = Items(table[:, 1], table[:, 2])
    losses = [{seed: found[:, 0] for seed, found in runs.items()} for runs in sides.values()]
    scores = [{seed: x.sum() / items.weights.sum() for seed, x in runs.items()} for runs in losses]
    again = total([seed_variance(*scores), document_variance(*losses, items)])
    assert result is not None and result.seeds == (3, 3)
    assert (again.error, again.df) == pytest.approx((result.error, result.df))


def test_a_claim_that_the_machine_spoils_stays_open_and_is_finished_later(repository: Repository) -> None:
    search = finished(repository)
    asked = failing(
        search, ["timeout: not done after 60 s"] * 2 + ["", "", "timeout: again", "timeout: again"]
    )
    with pytest.raises(UserError, match=r"2 of 4 trainings .* not opened: timeout: again") as error:
        make_claim(search, 2)
    assert error.value.code == 3 and "autoresearch claim" in error.value.hint
    assert ("test",) not in asked, "the sealed split was spent for nothing"
    [record] = read_claims(search.journal)
    summary = summarize(search.journal)
    assert record.finished is None and "2 of 4 models are trained" in claim_sentence(record, summary.metric)
    assert "has not been opened" in to_markdown(summary, "", None)

    asked.clear()
    again = make_claim(search, 2)
    assert asked == [("validation",)] * 2 + [("test",)] * 4
    assert again.result is not None and again.result.seeds == (2, 2)
    alone = finished(make_repository(repository.root.parent / "alone"))
    assert make_claim(alone, 2).result == again.result, "as on a quiet machine"


def test_weights_that_are_lost_are_trained_again(repository: Repository) -> None:
    search = finished(repository)
    failing(search, ["timeout", "", "", "", "timeout"])
    with pytest.raises(UserError, match="1 of 4"):
        make_claim(search, 2)
    next((search.folder / "claims" / "1").glob("*.weights")).unlink()
    trained = len(measurer(search).trained)
    assert make_claim(search, 2).result is not None
    assert len(measurer(search).trained) == trained + 2


def test_a_tip_is_claimed_once_and_the_next_tip_again(repository: Repository) -> None:
    search = finished(repository)
    first = make_claim(search, 2)
    trained = len(measurer(search).trained)
    assert make_claim(search, 8) == first
    assert len(measurer(search).trained) == trained
    more = finished(repository, [1.5, 0.2, 0.1])
    second = make_claim(more, 2)
    assert second.number == 2 and read_claims(more.journal) == [first, second]
    assert not {a.seed for a in first.accesses} & {a.seed for a in second.accesses}
    text = to_markdown(summarize(more.journal), "", None)
    assert "opened 2 times" in text and "for 8 models" in text


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(4))
def test_a_killed_claim_goes_on_and_repeats_nothing_that_ended(repository: Repository, after: int) -> None:
    search = finished(repository)
    count = 0

    def kill() -> None:
        nonlocal count
        count += 1
        if count > after:
            raise Killed

    measurer(search).on_run = kill
    with pytest.raises(Killed):
        make_claim(search, 2)
    again = make_search(repository, [1.5, 0.2])
    again.run()
    record = make_claim(again, 2)
    assert len(measurer(again).trained) == 4 - after
    assert record.result is not None and record.result.seeds == (2, 2)
    assert all(access.started is not None for access in record.accesses)


def test_a_claim_needs_all_its_trainings(repository: Repository) -> None:
    """Or a tip that fails on unlucky seeds would be claimed by its lucky ones."""
    search = finished(repository)
    failing(search, ["", "out of memory: boom"] + [""] * 4 + ["out of memory: boom"])
    record = make_claim(search, 3)
    assert record.result is None and record.finished is not None and not record.caught
    assert "needs all its trainings: out of memory" in record.void
    summary = summarize(search.journal)
    assert "is void" in claim_sentence(record, summary.metric) and "is void" in to_markdown(summary, "", None)
    assert search.state.kept[-1].commit == record.tip, "failing is no proof of cheating"


def divided(search: Search) -> Search:
    """The same search, with a test split of many shares."""
    about = {split: {"tokens": 10**6, "documents": 99} for split in ("test", "validation")}
    search.journal.update(data={"splits": about})
    return search


def test_each_pair_of_trainings_has_a_share_and_questions_of_its_own(repository: Repository) -> None:
    search = divided(finished(repository))
    stub, seen = measurer(search), list[tuple[object, object, bool]]()
    measure = stub.measure

    def spy(tree: Path, spec: TrialSpec, *others: Any) -> Measurement:
        if spec.splits == ("test",):
            assert spec.blind
            seen.append((spec.share, spec.blind_seed, "LEVEL = 1.0" in (tree / PATH).read_text()))
        else:
            assert spec.share is None
        return measure(tree, spec, *others)

    stub.measure = spy  # type: ignore[method-assign]
    record = make_claim(search, 3)
    assert sorted(share for share, _, start in seen if start) == [(0, 3), (1, 3), (2, 3)]  # type: ignore[type-var]
    assert {pair[:2] for pair in seen if pair[2]} == {pair[:2] for pair in seen if not pair[2]}
    assert len({questions for _, questions, _ in seen}) == 3
    assert record.shares == 3 and record.result is not None and record.blind is not None
    assert record.result.effect == pytest.approx(0.08, abs=3 * NOISE)
    assert abs(record.blind[0] - record.result.effect) < 4 * record.blind[1]
    [again] = read_claims(search.journal)
    assert again == record
    assert "blind" in claim_sentence(record, summarize(search.journal).metric)
    assert not any("too small" in text for text in said(search))


def test_a_split_that_is_too_small_is_scored_as_a_whole_and_that_is_said(repository: Repository) -> None:
    search = finished(repository)
    assert make_claim(search, 2).shares == 0
    assert any("too small for a share" in text for text in said(search))


def check_taken_back(search: Search) -> None:
    assert search.state.kept[-1].number == 1 and read_revoked(search.journal)[0].number == 2
    assert git(search.repository.root, "rev-parse", "autoresearch/x") == search.state.kept[-1].commit
    assert "is void" in to_markdown(summarize(search.journal), "", None)


def test_a_gain_that_blind_answers_do_not_show_voids_claim_and_keep(repository: Repository) -> None:
    search = divided(finished(repository, [0.2, "OTHER = 1; PEEK = 0.05"]))
    assert len(search.state.kept) == 2
    record = make_claim(search, 4)
    assert record.result is None and record.caught and "given blind" in record.void
    check_taken_back(search)


@pytest.mark.parametrize("killed", [False, True])
def test_an_invalid_training_voids_claim_and_keep(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    search = divided(finished(repository, [0.2, "OTHER = 1; GAIN = 0.05"]))
    stub = measurer(search)
    measure, runs = stub.measure, 0

    def strict(tree: Path, spec: TrialSpec, *others: Any) -> Measurement:
        nonlocal runs
        runs += (found := "GAIN" in (tree / PATH).read_text())
        if found and runs == 3:
            return Measurement(Outcome.INVALID, reason="the model looks ahead")
        return measure(tree, spec, *others)

    stub.measure = strict  # type: ignore[method-assign]
    if killed:

        def kill(state: object) -> None:
            raise Killed

        monkeypatch.setattr("autoresearch.finish.claim.revoke_claimed", kill)
        with pytest.raises(Killed):
            make_claim(search, 4)
        assert len(search.state.kept) == 2
        search.journal.close()
        search = make_search(repository, [0.2, "OTHER = 1; GAIN = 0.05"], "experiments=2")
        search.run()
    else:
        record = make_claim(search, 4)
        assert record.result is None and record.caught and "looks ahead" in record.void
    check_taken_back(search)


def test_without_a_keep_there_is_nothing_to_claim(repository: Repository) -> None:
    with pytest.raises(UserError, match="Nothing was kept"):
        make_claim(finished(repository, [1.5]), 8)
    with pytest.raises(UserError, match="at least 2"):
        make_claim(finished(repository, [1.5, 0.2]), 1)


def test_the_page_says_what_may_be_claimed(repository: Repository) -> None:
    search = finished(repository)
    before = to_markdown(summarize(search.journal), "", None)
    assert "## Result on the sealed test set" not in before
    record = make_claim(search, 4)
    summary = summarize(search.journal)
    said = claim_sentence(record, summary.metric)
    assert "sealed test set" in said and "includes zero" not in said
    assert "unseen data" in headline(summary)
    assert said in to_markdown(summary, "", None)
    assert record.result
    worse = replace(record, result=replace(record.result, interval=(-0.1, 0.2)))
    assert "includes zero" in claim_sentence(worse, summary.metric)


class Wishing(EmptyInbox):
    """A person who says stop once a number of trainings have begun."""

    def __init__(self, after: int) -> None:
        self.search: Search | None = None
        self.after: int | None = after

    @property
    def wished(self) -> str:  # type: ignore[override]
        if self.search is None or self.after is None:
            return "run"
        begun = sum(a.started is not None for r in read_claims(self.search.journal) for a in r.accesses)
        return "stop" if begun >= self.after else "run"


def test_trainings_of_a_claim_run_beside_each_other_and_a_stop_lets_them_end(repository: Repository) -> None:
    person = Wishing(after=3)
    finished(repository).journal.close()
    search = make_search(repository, (1.5, 0.2), "executor.workers=2", inbox=person)
    person.search = search
    with pytest.raises(Stopped):
        make_claim(search, 4)
    [record] = read_claims(search.journal)
    assert [a.validation is not None for a in record.accesses] == [True] * 3 + [False] * 5
    person.after = None
    alone = finished(make_repository(repository.root.parent / "alone"))
    assert make_claim(search, 4).result == make_claim(alone, 4).result


def test_a_search_that_a_person_stops_has_not_ended_by_itself(repository: Repository) -> None:
    search = make_search(repository, [0.2])
    assert search.run()
    person = Wishing(after=0)
    more = make_search(repository, [0.2, 0.1], inbox=person)
    person.search = more
    assert not more.run()


def test_a_command_clears_away_what_a_killed_claim_has_left(repository: Repository) -> None:
    search = finished(repository)

    search.journal.close()

    def work() -> None:
        mine = make_search(repository, (1.5, 0.2))
        measurer(mine).on_run = lambda: os._exit(KILLED)  # as kill -9, with its folders left behind
        recover(mine.state, mine.view)
        make_claim(mine, 2)

    for _ in range(3):
        assert in_child(work) == KILLED
        assert list(search.folder.glob("trials/*"))
    again = make_search(repository, (1.5, 0.2))
    finished_at = again.journal.info().finished
    recover(again.state, again.view)
    assert again.journal.info().finished == finished_at and not list(search.folder.glob("trials/*"))
    assert make_claim(again, 2).result is not None
