import threading
from pathlib import Path

import pytest

import autoresearch.search.lookahead
from autoresearch.errors import Refused
from autoresearch.propose import create_proposer
from autoresearch.propose.base import Check, Context, ProposerError
from autoresearch.propose.portfolio import Portfolio
from autoresearch.search.conclusion import Conclusion
from autoresearch.search.loop import Search
from autoresearch.search.observers import EmptyInbox
from autoresearch.store.git.repository import Repository
from autoresearch.types import (
    Category,
    Edit,
    Experiment,
    Proposal,
)
from tests.support.stub import (
    PATH,
    ScriptedProposer,
    make_repository,
    make_search,
    measurer,
    said,
    scripted,
)

LINES = (
    "LEVEL = 1.0  # 0..2\n" + "".join(f"pad{i} = 0\n" for i in range(9)) + "OTHER = 0\nprint(LEVEL, OTHER)\n"
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo", LINES)


class Slow(ScriptedProposer):
    """Answers only while a trial of the experiment before is under way, to prove that it is asked then."""

    def __init__(self, ideas: list[tuple[str, str]]) -> None:
        super().__init__([])
        self.instant = False
        self.pairs = ideas
        self.training = threading.Event()
        self.answered = threading.Event()

    def propose(self, context: Context, check: Check) -> Proposal:
        self.asked.append(context)
        if len(context.paid) >= len(self.pairs):
            raise ProposerError("no more ideas")
        if context.paid:
            assert self.training.wait(60)
        old, new = self.pairs[len(context.paid)]
        line = next(line for line in context.sources[PATH].splitlines() if line.startswith(old))
        proposal = Proposal(f"set {new}", Category.KNOBS, (Edit(PATH, line, new),), self.name)
        check(proposal)
        self.answered.set()
        return proposal


def slow_search(repository: Repository, ideas: list[tuple[str, str]], *overrides: str) -> tuple[Search, Slow]:
    """A search whose trials of the first experiment end only when the next proposal is there."""
    proposer = Slow(ideas)
    search = make_search(repository, [], *overrides, proposer=proposer)

    def on_run() -> None:
        if search.journal.experiments()[-1].number == 1:
            if not proposer.training.is_set():
                proposer.answered.clear()
                proposer.training.set()
            assert proposer.answered.wait(60)

    measurer(search).on_run = on_run
    return search, proposer


def verdicts(search: Search) -> list[str]:
    return [e.verdict.kind.value for e in search.journal.experiments() if e.verdict]


def test_the_next_proposal_is_made_while_a_trial_runs_and_merged_onto_what_was_kept(
    repository: Repository,
) -> None:
    ideas = [("LEVEL", "LEVEL = 0.2"), ("OTHER", "OTHER = 7"), ("OTHER", "OTHER = 8")]
    search, proposer = slow_search(repository, ideas, "experiments=2")
    search.run()
    assert verdicts(search) == ["keep", "discard"]
    first, second = search.journal.experiments()[1:]
    assert [e.number for e in proposer.asked[1].under_way] == [1]
    assert second.parent == first.commit  # though the proposal was made for the baseline
    tried = repository.sources(second.commit, [PATH])[PATH]
    assert "LEVEL = 0.2\n" in tried and "OTHER = 7\n" in tried
    assert len(proposer.asked) == 2  # none for an experiment beyond the last
    queue = [span for span in search.journal.timeline(2) if span.phase == "queue"]
    assert len(queue) == 1


def test_a_proposal_in_the_way_of_what_was_kept_is_dropped_with_a_reason_and_its_cost_counts(
    repository: Repository,
) -> None:
    ideas = [("LEVEL", "LEVEL = 0.2"), ("LEVEL", "LEVEL = 0.3"), ("OTHER", "OTHER = 7")]
    search, proposer = slow_search(repository, ideas, "experiments=2")
    search.run()
    assert verdicts(search) == ["keep", "discard"]
    assert [p.hypothesis for p in search.journal.experiment(1).dropped] == ["set LEVEL = 0.3"]
    assert [len(context.paid) for context in proposer.asked] == [0, 1, 2]
    assert any("set LEVEL = 0.3" in line and "same lines" in line for line in said(search))


class Variants(ScriptedProposer):
    """Answers with as many variants as may be given."""

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        self.asked.append(context)
        first = len(context.paid)
        lines = [f"OTHER = {first + i + 1}" for i in range(n)]
        old = next(line for line in context.sources[PATH].splitlines() if line.startswith("OTHER"))
        return [Proposal(f"set {new}", Category.KNOBS, (Edit(PATH, old, new),), self.name) for new in lines]


def test_variants_become_drafts_where_places_are_free(repository: Repository) -> None:
    proposer = Variants([])
    proposer.instant = False
    search = make_search(repository, [], "experiments=6", "executor.workers=4", proposer=proposer)
    search.run()
    assert len(search.journal.experiments()) == 7
    assert len(proposer.asked) < 6, "an answer gave more than one"
    assert proposer.asked[0].experiments_left == 5 and proposer.asked[0].seconds_left is None


def test_a_proposer_is_told_the_limits(repository: Repository) -> None:
    search = make_search(repository, [1.5])
    search.run()
    limits = {limit.name: limit.most for limit in scripted(search).asked[0].limits}
    assert limits["weights_mb"] == 3.0 and limits["train_seconds"] == pytest.approx(3.0)
    assert limits["score_seconds"] == 6.0, "the guard is what is tighter than the budget"


def test_a_waiting_proposal_is_dropped_for_the_reason_that_is_said(repository: Repository) -> None:
    make_search(repository, [1.5], "experiments=1").run()
    search = make_search(repository, [], "experiments=2")
    tip = search.state.incumbent.commit
    for level in ("1.5", "2 words"):
        edit = Edit(PATH, "LEVEL = 1.0", f"LEVEL = {level}")
        search.journal.draft(Proposal(f"say {level}", Category.KNOBS, (edit,), "x"), tip, 1.0)
    search.run()
    dropped = [line for line in said(search) if line.startswith("Dropped a queued proposal")]
    assert len(dropped) == 2 and not any("parent" in line for line in dropped)
    assert "(say 1.5): the candidate is the same program as experiment 1" in dropped[0]
    assert "(say 2 words): " in dropped[1] and "yntax" in dropped[1]


def test_a_lookahead_may_not_repeat_what_is_under_way(repository: Repository) -> None:
    ideas = [("OTHER", "OTHER = 7"), ("OTHER", "OTHER = 7")]
    search, proposer = slow_search(repository, ideas, "experiments=2")
    refused: list[str] = []
    original = proposer.propose

    def propose(context: Context, check: Check) -> Proposal:
        try:
            return original(context, check)
        except Refused as error:
            refused.append(str(error))
            proposer.answered.set()
            raise ProposerError("out of ideas") from None

    proposer.propose = propose  # type: ignore[method-assign]
    search.run()
    assert len(refused) == 1 and "experiment 1" in refused[0]
    assert verdicts(search) == ["discard"]


def test_lookahead_0_asks_when_the_verdict_is_there(repository: Repository) -> None:
    search, proposer = slow_search(
        repository, [("LEVEL", "LEVEL = 0.2"), ("LEVEL", "LEVEL = 0.1")], "experiments=2", "lookahead=0"
    )
    proposer.training.set()
    proposer.answered.set()
    search.run()
    assert verdicts(search) == ["keep", "keep"]
    assert [c.under_way for c in proposer.asked] == [(), ()]
    assert "LEVEL = 0.2" in proposer.asked[1].sources[PATH]


def test_a_proposer_that_answers_at_once_is_asked_at_the_last_moment(repository: Repository) -> None:
    search = make_search(repository, [0.2, 0.1], "experiments=2")
    search.run()
    assert [c.under_way for c in search.proposer.asked] == [(), ()]  # type: ignore[attr-defined]


def test_an_outage_is_waited_out_and_shown(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoresearch.search.lookahead, "RETRY_SECONDS", (0, 0))
    search = make_search(repository, [1.5, 0.2], instant=False)
    original, failures = search.proposer.propose, iter(range(3))

    def propose(context: Context, check: Check) -> Proposal:
        if next(failures, None) is not None:
            raise ProposerError("the API cannot be reached", retry=True)
        return original(context, check)

    search.proposer.propose = propose  # type: ignore[method-assign]
    search.run()
    assert verdicts(search) == ["discard", "keep"]
    assert sum("cannot be reached; asking again in 0 s" in line for line in said(search)) == 3


def test_each_attempt_is_told_what_is_known_then(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(autoresearch.search.lookahead, "RETRY_SECONDS", (0, 0))
    brief = tmp_path / "brief.md"
    brief.write_text("# Brief\nLower the level.\n")
    search = make_search(repository, [0.2, 1.5], f"brief={brief}", "experiments=2", instant=False)
    search.journal.update(config=search.config.model_dump(mode="json"))
    original, seen, judged = search.proposer.propose, list[Context](), threading.Event()

    def propose(context: Context, check: Check) -> Proposal:
        seen.append(context)
        if len(context.paid) == 1 and not judged.is_set():
            raise ProposerError("the API cannot be reached", retry=True)
        return original(context, check)

    def record(conclusion: Conclusion, experiment: Experiment) -> Experiment:
        recorded = write(conclusion, experiment)
        if experiment.number == 1:
            brief.write_text("# Brief\nRaise the level.\n")
            judged.set()
        return recorded

    write = Conclusion.record
    monkeypatch.setattr(Conclusion, "record", record)
    search.proposer.propose = propose  # type: ignore[method-assign]
    search.run()
    first, last = seen[1], seen[-1]
    assert [e.number for e in first.under_way] == [1] and "Lower" in first.brief
    assert [e.number for e in last.history] == [0, 1] and not last.under_way
    assert "LEVEL = 0.2" in last.sources[PATH] and "Raise" in last.brief
    assert last.task.budget.endswith("training tokens") and last.bars is not None and last.bars.ever > 0
    assert verdicts(search) == ["keep", "discard"]


def test_an_outage_does_not_outlast_the_minutes(repository: Repository) -> None:
    search = make_search(repository, [1.5], "minutes=0.02", instant=False)

    def propose(context: Context, check: Check) -> Proposal:
        raise ProposerError("the API cannot be reached", retry=True)

    search.proposer.propose = propose  # type: ignore[method-assign]
    search.run()
    assert "minutes are over" in said(search)[-1]


def test_a_draft_that_waits_is_used_after_a_restart_and_nothing_is_asked_again(
    repository: Repository,
) -> None:
    search = make_search(repository, [])
    edit = (Edit(PATH, "OTHER = 0", "OTHER = 9"),)
    search.journal.draft(
        Proposal("paid for", Category.KNOBS, edit, "scripted"), repository.resolve("HEAD") or "", 1.0
    )
    search.run()
    assert [e.proposal.hypothesis for e in search.journal.experiments() if e.proposal] == ["paid for"]


class Interrupted(BaseException):
    pass


def test_an_interruption_does_not_wait_for_a_proposer_that_is_thinking(repository: Repository) -> None:
    search = make_search(repository, [1.5], instant=False)
    original, asked, never = search.proposer.propose, threading.Event(), threading.Event()

    def propose(context: Context, check: Check) -> Proposal:
        if not context.under_way:
            return original(context, check)
        asked.set()
        never.wait(60)
        raise ProposerError("too late")

    def interrupt() -> None:
        if search.journal.experiments()[-1].number:
            assert asked.wait(60)
            raise Interrupted

    search.proposer.propose = propose  # type: ignore[method-assign]
    measurer(search).on_run = interrupt
    with pytest.raises(Interrupted):
        search.run()
    thinking = [thread for thread in threading.enumerate() if thread.name == "proposer"]
    assert thinking and all(thread.daemon for thread in thinking)
    never.set()
    thinking[0].join()


class Person(EmptyInbox):
    """Says something, and stops the search when it has been asked so many times."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.waited = 0

    @property
    def wished(self) -> str:  # type: ignore[override]
        self.waited += 1
        return "run" if self.waited <= self.steps else "stop"

    def notes(self) -> tuple[str, ...]:
        return (f"after {self.waited} steps",)


@pytest.mark.slow
def test_a_person_is_heard_and_can_stop_the_search_at_any_boundary(tmp_path: Path) -> None:
    counting = Person(10**6)
    plain = make_search(make_repository(tmp_path / "plain"), [0.2, 1.5], instant=False, inbox=counting)
    plain.run()
    assert all(note.startswith("after ") for c in scripted(plain).asked for note in c.notes)
    stopped = make_repository(tmp_path / "stopped")
    for steps in range(counting.waited):
        one_step = Person(1 if steps else 0)
        search = make_search(stopped, [0.2, 1.5], instant=False, inbox=one_step)
        search.run()
        assert any(line.startswith("Stopped.") for line in said(search))
        assert all(t.finished for e in search.journal.experiments() for t in e.trials)
        search.journal.close()
    search = make_search(stopped, [0.2, 1.5], instant=False)
    search.run()
    assert verdicts(search) == verdicts(plain)


class Broken(ScriptedProposer):
    """Fails in a way that no proposer may, so often; then it proposes."""

    def __init__(self, failure: object, times: int) -> None:
        super().__init__([1.5])
        self.failure, self.times = failure, times

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        if self.times > 0:
            self.times -= 1
            if isinstance(self.failure, Exception):
                raise self.failure
            return self.failure  # type: ignore[return-value]
        return super().ask(context, check, n)

    def tell(self, experiment: Experiment) -> None:
        raise KeyError("told")


FAILURES = [
    ZeroDivisionError("odd \x1b[31m"),
    IndexError("x"),
    RecursionError("deep"),
    OSError(5, "I/O error"),
    [],
    None,
    [{"hypothesis": "no proposal"}],
    [Proposal(3, Category.KNOBS, (Edit(PATH, "LEVEL = 1.0", "LEVEL = 1.5"),), "x")],  # type: ignore[arg-type]
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_search_never_dies_of_its_proposer(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, failure: object
) -> None:
    monkeypatch.setattr(autoresearch.search.lookahead, "RETRY_SECONDS", (0,))
    search = make_search(repository, [], "experiments=1", proposer=Broken(failure, 3))
    assert search.run()
    assert search.journal.experiment(1).verdict
    failed = [text for text in said(search) if "scripted failed unexpectedly" in text]
    assert len(failed) == 3 and "\x1b" not in "".join(failed)
    assert any("did not take the verdict (KeyError" in text for text in said(search))


def test_a_proposer_that_keeps_failing_unexpectedly_ends_the_search_with_a_message(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoresearch.search.lookahead, "RETRY_SECONDS", (0,))
    proposer = Broken(ValueError("always"), 1000)
    search = make_search(repository, [], "experiments=1", proposer=proposer)
    assert not search.run(), "it is no end of its own, after which the sealed split is opened"
    assert proposer.times == 1000 - 6
    assert any("No further proposal" in text and "always" in text for text in said(search))


def test_a_stand_in_proposes_while_a_proposer_fails_unexpectedly(repository: Repository) -> None:
    proposer = Portfolio(Broken(ValueError("odd"), 1000), ScriptedProposer([1.5]))
    search = make_search(repository, [], "experiments=1", proposer=proposer)
    search.run()
    assert search.journal.experiment(1).verdict


@pytest.mark.parametrize("comment", ["1 | 1", "0..1e999", "x1e999", "1e999 | 1"])
def test_an_odd_comment_on_a_knob_does_not_end_a_search(tmp_path: Path, comment: str) -> None:
    repository = make_repository(tmp_path / "odd", f"{LINES}K = 1  # {comment}\n")
    proposer = create_proposer("optuna", column=0, sampler="local")
    search = make_search(repository, [], "experiments=2", proposer=proposer)
    search.run()
    assert len(search.journal.experiments()) == 3


class Beside(ScriptedProposer):
    """Answers four questions at a time, and the first ones only when three are under way."""

    def __init__(self) -> None:
        super().__init__([])
        self.name, self.instant, self.questions = "beside", False, 4
        self.together = threading.Barrier(3)
        self.lock, self.made = threading.Lock(), 0

    def propose(self, context: Context, check: Check) -> Proposal:
        with self.lock:
            self.asked.append(context)
            number = self.made = self.made + 1
        if number <= 3:
            self.together.wait(30)  # breaks if they were asked one after the other
        line = next(x for x in context.sources[PATH].splitlines() if x.startswith(f"pad{number % 9} "))
        edit = Edit(PATH, line, f"pad{number % 9} = {number}")
        return Proposal(f"{number}", Category.KNOBS, (edit,), self.name)


def test_several_questions_are_under_way_when_places_wait_and_each_is_told_of_the_others(
    repository: Repository,
) -> None:
    proposer = Beside()
    search = make_search(
        repository, [], "experiments=12", "executor.workers=8", "baselines=2", proposer=proposer
    )
    assert search.run()
    assert {c.beside for c in proposer.asked[:3]} == {0, 1, 2}
    assert search.state.tried == 12 and not search.journal.open()
    assert proposer.made <= 12 + len(search.journal.experiment(12).dropped), "no more than there is room for"


def test_an_outage_that_meets_several_questions_counts_once(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoresearch.search.lookahead, "RETRY_SECONDS", (0,))
    monkeypatch.setattr(autoresearch.search.lookahead, "MAX_DEFECTS", 2)
    proposer = Beside()
    sound = proposer.propose

    def propose(context: Context, check: Check) -> Proposal:
        found = sound(context, check)
        if int(found.hypothesis) <= 3:
            raise ValueError("out of order")
        return found

    proposer.propose = propose  # type: ignore[method-assign]
    search = make_search(
        repository, [], "experiments=6", "executor.workers=8", "baselines=2", proposer=proposer
    )
    assert search.run() and search.state.tried == 6
    assert sum("asking again" in line for line in said(search)) == 1
