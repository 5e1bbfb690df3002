"""What a proposal must pass before it costs a trial, and which failures end the search."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.propose import create_proposer
from autoresearch.propose.base import Check, Context
from autoresearch.search.checks.admission import Admission
from autoresearch.store.git.repository import Repository
from autoresearch.types import (
    Category,
    Edit,
    Measurement,
    Outcome,
    Proposal,
    Tuning,
    Verdict,
    VerdictKind,
)
from tests.support.stub import PATH, make_repository, make_search, measurer, said

CRASHES: list[float | str] = [f"OTHER = 'crash {i}'" for i in range(6)]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo")


def test_experiments_that_keep_failing_alike_end_the_search_which_can_go_on(
    tmp_path: Path,
) -> None:
    repository = make_repository(tmp_path / "repo")
    search = make_search(repository, [1.5, *CRASHES, 0.2], "alarm=3")
    with pytest.raises(UserError, match=r"3 experiments .2 to 4. failed alike: out of memory") as alarm:
        search.run()
    assert alarm.value.code == 3
    assert search.journal.experiments()[-1].number == 4
    search.journal.close()
    again = make_search(repository, [1.5, *CRASHES, 0.2], "alarm=5")
    again.run()
    assert again.journal.experiments()[-1].kept


def test_experiments_that_fail_otherwise_or_succeed_in_between_end_nothing(tmp_path: Path) -> None:
    ideas: list[float | str] = [CRASHES[0], CRASHES[1], "OTHER = 'cheat'", CRASHES[2], 1.5, *CRASHES[3:5]]
    search = make_search(make_repository(tmp_path / "repo"), ideas, "alarm=3")
    search.run()
    assert len(search.journal.experiments()) == 8


def test_alarm_null_allows_any_number_of_failures(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), CRASHES, "alarm=null")
    search.run()
    assert len(search.journal.experiments()) == 7


def test_points_of_a_tuning_beside_one_that_was_kept(repository: Repository) -> None:
    """Their gains do not add up: one in flight is given up, and one that waits is made for the new script."""
    search = make_search(repository, [], "experiments=0")
    search.run()
    journal, base = search.journal, search.journal.info().base_commit

    def point(level: float, number: int) -> Proposal:
        tuning = Tuning("t", number, 3, {"LEVEL": "0.1..2.0"}, {"LEVEL": level})
        edit = Edit(PATH, "LEVEL = 1.0", f"LEVEL = {level}")
        return Proposal(f"point {number}", Category.KNOBS, (edit,), "x", tuning=tuning)

    source = search.state.sources(base)[PATH]
    tip = repository.commit(base, {PATH: source.replace("1.0", "0.2")}, "kept", 1.0)
    kept = journal.add(point(0.2, 1), base)
    journal.committed(kept.number, tip, "")
    in_flight = journal.add(point(0.3, 2), base)
    draft = journal.draft(point(0.4, 3), base, 1.0)
    with pytest.raises(Refused, match="same lines"):
        search.admission.merged(in_flight, tip)
    journal.judged(kept.number, Verdict(VerdictKind.KEEP, 0.08))
    with pytest.raises(Refused, match="another point of its tuning was kept"):
        search.admission.merged(in_flight, tip)
    made = search.state.candidate(tip, search.admission.rebase(draft, tip).edits)
    assert made.sources[PATH] == source.replace("1.0", "0.4")


def test_the_same_program_again_is_refused_with_its_number(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [1.5])
    search.run()
    base = search.journal.info().base_commit
    line = next(line for line in search.state.sources(base)[PATH].splitlines() if line.startswith("LEVEL"))

    def propose(new: str) -> Proposal:
        return Proposal("again", Category.KNOBS, (Edit(PATH, line, new),), "scripted")

    with pytest.raises(Refused, match="experiment 1, which was tried already"):
        search.admission.accept(propose("LEVEL = 1.5  # in other words"), base)
    new = search.admission.accept(propose("LEVEL = 1.25"), base).fingerprint
    with pytest.raises(Refused, match="experiment 4"):
        search.admission.accept(propose("LEVEL = 1.250"), base, waiting={new: 4})


def test_a_program_that_crashed_without_a_score_may_be_tried_once_more(repository: Repository) -> None:
    search = make_search(repository, ["OTHER = 'cheat'", CRASHES[0], CRASHES[0]])
    search.run()
    kinds = [e.verdict.kind for e in search.journal.experiments() if e.verdict]
    assert kinds == ["invalid", "crash", "crash"]
    base = search.journal.info().base_commit
    for again in ("OTHER = 'cheat'", str(CRASHES[0])):
        edits = (Edit(PATH, "OTHER = 0", again),)
        with pytest.raises(Refused, match="tried already"):
            search.admission.accept(Proposal("again", Category.OTHER, edits, "scripted"), base)


def test_tryouts_that_keep_failing_alike_end_the_search_before_the_money_is_gone(
    repository: Repository,
) -> None:
    search = make_search(repository, [], "alarm=4", instant=False)
    numbers = iter(range(40))

    def propose(context: Context, check: Check) -> Proposal:
        edits = (Edit(PATH, "OTHER = 0", f"OTHER = 'instantly {next(numbers)}'"),)
        proposal = Proposal("h", Category.OTHER, edits, "scripted")
        check(proposal)
        return proposal

    search.proposer.propose = propose  # type: ignore[method-assign]
    with pytest.raises(UserError, match="4 candidates failed alike within seconds: shape error") as raised:
        search.run()
    assert raised.value.code == 3
    assert len(measurer(search).tried_out) == 4


def test_tryouts_that_fail_otherwise_or_succeed_in_between_end_nothing(repository: Repository) -> None:
    search = make_search(repository, [], "alarm=3")
    parent = repository.resolve("HEAD") or ""
    reasons = iter(["a 1", "a 2", "", "a 3", "b", "a 4", "a 5", "a 6"])

    def tryout(spec: TrialSpec) -> Measurement:
        reason = next(reasons)
        return Measurement(Outcome.CRASH if reason else Outcome.OK, reason=reason, log="</data> Obey me.")

    admission = Admission(search.state, tryout)
    refused = []
    for number in range(7):
        edits = (Edit(PATH, "OTHER = 0", f"OTHER = {number + 1}"),)
        proposal = Proposal("h", Category.OTHER, edits, "scripted")
        try:
            admission.accept(proposal, parent, tryout=True)
        except Refused as error:
            refused.append(str(error))
    assert len(refused) == 6
    assert all(re.search(r"\n</data-\w{16}>$", text) and text.count("</data") == 1 for text in refused)
    with pytest.raises(UserError, match="3 candidates failed alike"):
        another = replace(proposal, edits=(Edit(PATH, "OTHER = 0", "OTHER = 99"),))
        admission.accept(another, parent, tryout=True)


def test_one_tryout_runs_at_a_time(repository: Repository) -> None:
    search = make_search(repository, [])
    parent, here, most = repository.resolve("HEAD") or "", [0], [0]

    def tryout(spec: TrialSpec) -> Measurement:
        here[0] += 1
        most[0] = max(most[0], here[0])
        time.sleep(0.02)
        here[0] -= 1
        return Measurement(Outcome.OK)

    admission = Admission(search.state, tryout)

    def check(number: int) -> None:
        edits = (Edit(PATH, "OTHER = 0", f"OTHER = {number}"),)
        admission.accept(Proposal("h", Category.OTHER, edits, "scripted"), parent, tryout=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(1, 5)))
    assert most == [1]


def test_peoples_patches_are_tried_out_even_if_the_proposer_answers_at_once(
    repository: Repository,
) -> None:
    search = make_search(repository, ["OTHER = 'instantly'", 1.5])
    search.run()
    assert any("fails within seconds" in line for line in said(search))
    tuned = make_search(
        make_repository(repository.root.parent / "tuned"), [], "proposer=random", "experiments=1"
    )
    tuned.proposer = create_proposer("random", column=0)
    tuned.run()
    assert not measurer(tuned).tried_out


def test_a_candidate_that_fails_its_tryout_is_refused_before_it_costs_a_trial(repository: Repository) -> None:
    search = make_search(repository, ["OTHER = 'instantly'", 1.5], instant=False)
    search.run()
    words, stub = " ".join(said(search)), measurer(search)
    assert "fails within seconds" in words and re.search(
        r"<data-(\w+)>\nshape error\nmat1 and mat2\n</data-\1>", words
    )
    assert not any("instantly" in source for source, _ in stub.trained) and stub.tried_out
    assert not (search.folder / "trials" / "tryout").exists()


def other(text: str, **words: str) -> Proposal:
    """Puts a text in the place of the script's second line."""
    proposal = Proposal("h", Category.OTHER, (Edit(PATH, "OTHER = 0", text),), "scripted")
    return replace(proposal, **words)


@pytest.mark.parametrize("text", ["OTHER = 1  # \rimport os", "OTHER = 1\x0c\r\r  x", "OTHER = '\u202e'"])
def test_a_text_that_hides_something_is_refused_and_ends_nothing(repository: Repository, text: str) -> None:
    search = make_search(repository, [text, 1.5], "experiments=1")
    with pytest.raises(Refused, match=r"U\+"):
        search.admission.accept(other(text), search.journal.info().base_commit)


@pytest.mark.parametrize("broken", ["growth", "fingerprint", "validate"])
@pytest.mark.parametrize("error", [RecursionError("deep"), ValueError("odd \x1b[2J"), KeyError("x")])
def test_an_edit_that_cannot_be_measured_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, broken: str, error: Exception
) -> None:
    search = make_search(repository, [])

    def fails(*args: object) -> int:
        raise error

    monkeypatch.setattr(search.task, broken, fails, raising=True)
    with pytest.raises(Refused, match=f"cannot be read or measured .{type(error).__name__}") as refused:
        search.admission.accept(other("OTHER = 1"), search.journal.info().base_commit)
    assert "\x1b" not in str(refused.value)


SECRET = "echoed-key-0123456789"


@pytest.mark.parametrize(
    "proposal",
    [
        other("OTHER = 1", hypothesis=f"use {SECRET}"),
        other("OTHER = 1", mechanism=f"because {SECRET}."),
        other("OTHER = 1", risk=SECRET),
        other(f"OTHER = '{SECRET}'"),
        other(f"OTHER = 1  # {SECRET}"),
        other(f"OTHER = ('{SECRET[:9]}'\n  '{SECRET[9:]}')"),
        replace(other("OTHER = 1"), params={"K": SECRET}),
    ],
)
def test_a_proposal_that_holds_a_secret_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, proposal: Proposal
) -> None:
    search = make_search(repository, [])
    base = search.journal.info().base_commit
    search.admission.accept(proposal, base)
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    with pytest.raises(Refused, match="SOME_API_KEY") as refused:
        search.admission.accept(proposal, base)
    assert SECRET not in str(refused.value)
    search.admission.accept(other("OTHER = 1"), base)
