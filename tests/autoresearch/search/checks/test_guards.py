"""A gain on the deciding metric that costs other metrics is flagged, held or refused (Goodhart's law)."""

from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.search.loop import Search
from autoresearch.store.git.commits import commit_message
from autoresearch.store.inbox import DevisedGuard, Inbox
from autoresearch.tasks.base import chosen_guards
from autoresearch.types import Experiment, VerdictKind
from tests.support.stub import make_repository, make_search, measurer

HONEST, PLANTED = "OTHER = 0; GAIN = 0.05", "OTHER = 0; GAIN = 0.05; HARM = 0.04"
GUARDS = "guards.metrics=[rare,late]"


def searched(folder: Path, script: str, *overrides: str) -> tuple[Search, Experiment]:
    search = make_search(make_repository(folder / "repo"), [script], "experiments=1", *overrides)
    search.run()
    return search, search.journal.experiment(1)


@pytest.mark.parametrize(
    ("action", "kind"),
    [("flag", VerdictKind.KEEP), ("refuse", VerdictKind.DISCARD), ("hold", VerdictKind.DISCARD)],
)
def test_a_planted_gain_that_costs_a_guard(tmp_path: Path, action: str, kind: VerdictKind) -> None:
    search, one = searched(tmp_path, PLANTED, GUARDS, f"guards.action={action}")
    assert one.verdict and one.verdict.kind is kind and one.verdict.effect and one.verdict.effect > 0.03
    assert {gain.guard: gain.lost for gain in one.verdict.guards} == {"rare": True, "late": True}
    assert "it loses on a guard: rare (loss on rare tokens: -0.03" in one.verdict.reason
    assert ("guards release 1" in one.verdict.reason) == (action == "hold")
    message = commit_message(one, search.task.metric)
    assert "Guards: rare lost -0.03" in message and "late lost" in message
    tip = search.repository.resolve("refs/heads/autoresearch/x")
    assert (tip == one.commit) == (action == "flag")


def test_an_honest_gain_is_kept_whatever_the_rule(tmp_path: Path) -> None:
    search, one = searched(tmp_path, HONEST, GUARDS, "guards.action=refuse")
    assert one.verdict and one.kept and not any(gain.lost for gain in one.verdict.guards)
    assert all(gain.gain is not None and gain.runs >= 2 for gain in one.verdict.guards)
    plain, other = searched(tmp_path / "plain", HONEST)
    assert other.verdict and other.verdict.guards == ()
    assert len(measurer(search).trained) == len(measurer(plain).trained), "guards cost no training"


def test_a_held_change_is_tried_again_once_a_person_releases_it(tmp_path: Path) -> None:
    from autoresearch.propose.queue import QueueProposer

    search, one = searched(tmp_path, PLANTED, GUARDS, "guards.action=hold")
    inbox = Inbox(search.folder)
    inbox.release(1, inbox.add_idea("released", one.diff))
    again = make_search(
        search.repository, [], "experiments=2", GUARDS, "guards.action=hold",
        proposer=QueueProposer(inbox, wait=False), inbox=inbox,
    )  # fmt: skip
    again.run()
    two = again.journal.experiment(2)
    assert two.kept and two.verdict and "it loses on a guard" in two.verdict.reason


def test_an_accepted_guard_refuses_the_next_exploit(tmp_path: Path) -> None:
    """The first exploit is kept, since nothing looks; the guard that a person accepts refuses the second."""
    repository = make_repository(tmp_path / "repo")
    make_search(repository, [PLANTED], "experiments=1", "guards.action=refuse").run()
    ideas: list[float | str] = [PLANTED, f"{PLANTED.replace('0.04', '0.09').replace('0.05', '0.10')}"]
    search = make_search(repository, ideas, "experiments=2", "guards.action=refuse")
    assert search.journal.experiment(1).kept
    inbox = Inbox(search.folder)
    guard = search.task.devised("numbers", "loss on documents with many digits", {"documents": "digits"})
    number = inbox.add_guard(DevisedGuard(guard, "they may skip digits", "somebody"))
    inbox.decide_guard(number, "accepted")
    search.run()
    two = search.journal.experiment(2)
    assert two.verdict and two.verdict.kind is VerdictKind.DISCARD
    assert "numbers (loss on documents with many digits" in two.verdict.reason
    inbox.path.unlink()  # what was accepted is in the journal
    assert [g.name for g in make_search(repository, [], "experiments=2").state.guards()] == ["numbers"]


def test_a_guard_that_the_task_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no guard 'colour'"):
        searched(tmp_path, HONEST, "guards.metrics=[colour]")


def test_a_guard_may_have_a_margin_below_which_a_loss_is_none(tmp_path: Path) -> None:
    chosen = make_search(make_repository(tmp_path / "repo"), [], "guards.metrics=[rare:0.002,late,seeds:0.5]")
    margins = {guard.name: guard.margin for guard in chosen.state.guards()}
    assert margins == {"rare": 0.002, "late": 0.0, "seeds": 0.5}
    for margin in ("0.2%", "1", "-0.1", "nan"):
        with pytest.raises(UserError, match=f"margin of rare, {margin}, is no share"):
            chosen_guards(chosen.task, [f"rare:{margin}"])
