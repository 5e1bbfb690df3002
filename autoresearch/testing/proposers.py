r"""What every proposer promises, as tests.

Subclass `ProposerContract` in a test module of your own::

    from autoresearch.testing.proposers import ProposerContract

    class TestMyProposer(ProposerContract):
        @pytest.fixture
        def make(self):
            return lambda: MyProposer(...)

The fixture `make` makes a proposer of the same search again, as after a restart. `context` may be overridden,
too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from autoresearch.edit.apply import apply
from autoresearch.errors import Refused
from autoresearch.propose.base import Check, Context, Proposer, ProposerError
from autoresearch.tasks.base import PromptText
from autoresearch.types import (
    Arm,
    Direction,
    Experiment,
    Measurement,
    Metric,
    Outcome,
    Proposal,
    State,
    Trial,
    Verdict,
    VerdictKind,
)

Make = Callable[[], Proposer]

PATH = "train.py"
SOURCE = """\
LR = 0.02      # x4
WARMUP = 0.0   # 0..0.2
ACT = "relu"   # relu | gelu | swiglu


def main():
    return LR, WARMUP, ACT
"""


class ProposerContract:
    """Tests of one proposer. A subclass gives the fixture `make`, and the attributes.

    Attributes:
        path: The file that is edited in `context`.
        repeats: Whether the same history gives the same proposal after a restart.
        authors: Names besides its own under which it may propose, such as those of its members.
    """

    path = PATH
    repeats: bool = True
    authors: tuple[str, ...] = ()

    @pytest.fixture
    def make(self) -> Make:
        """Makes a proposer, with all that it needs to make three proposals."""
        raise NotImplementedError

    @pytest.fixture
    def context(self) -> Context:
        """A search that has measured its baseline."""
        return search_so_far(Direction.MINIMIZE)

    def check(self, context: Context) -> Check:
        """Accepts what applies to the sources of a context and was not tried."""

        def check(proposal: Proposal) -> None:
            new = apply(context.sources, proposal.edits)
            tried = [apply(context.sources, known.edits) for known in context.proposals]
            if new == context.sources or new in tried:
                raise Refused("this program was tried already")

        return check

    def test_it_has_a_name_and_says_whether_it_answers_at_once(self, make: Make) -> None:
        """The search shows the name, and decides by `instant` when to ask."""
        proposer = make()
        assert proposer.name and isinstance(proposer.instant, bool)
        assert not proposer.unbilled

    @pytest.mark.parametrize("n", [1, 3])
    def test_it_gives_at_least_one_proposal_and_at_most_as_many_as_wanted(
        self, make: Make, context: Context, n: int
    ) -> None:
        """Each applies to the incumbent, and no two are the same program."""
        found = make().ask(context, self.check(context), n)
        programs = [apply(context.sources, proposal.edits)[self.path] for proposal in found]
        assert 1 <= len(found) <= n
        assert len({*programs, context.sources[self.path]}) == len(found) + 1

    def test_a_proposal_says_who_made_it_and_why(self, make: Make, context: Context) -> None:
        """The record names the author, or an author of it, such as one model."""
        proposer = make()
        (proposal,) = proposer.ask(context, self.check(context))
        assert proposal.proposer.partition(":")[0] in (proposer.name, *self.authors)
        assert proposal.hypothesis.strip()

    def test_a_proposal_survives_the_journal(self, make: Make, context: Context) -> None:
        """It is the same after it was JSON."""
        (proposal,) = make().ask(context, self.check(context))
        assert Proposal.from_dict(json.loads(json.dumps(proposal.to_dict()))) == proposal

    def test_it_goes_on_where_the_history_ends(self, make: Make, context: Context) -> None:
        """After a restart it proposes something new; the same thing each time, where it promises that."""
        first = make()
        (proposal,) = first.ask(context, self.check(context))
        judged = with_verdict(context, proposal)
        first.tell(judged.history[-1])
        (second,) = make().ask(judged, self.check(judged))
        assert apply(context.sources, second.edits) != apply(context.sources, proposal.edits)
        if self.repeats:
            (again,) = make().ask(judged, self.check(judged))
            assert (again.edits, again.hypothesis) == (second.edits, second.hypothesis)

    def test_it_works_where_more_is_better(self, make: Make) -> None:
        """The direction of the metric is the task's."""
        context = search_so_far(Direction.MAXIMIZE)
        assert make().ask(context, self.check(context))

    def test_if_all_is_refused_it_says_that_it_cannot_propose(self, make: Make, context: Context) -> None:
        """It raises `ProposerError` with a reason, and nothing else."""

        def refuse(proposal: Proposal) -> None:
            raise Refused("not today")

        with pytest.raises(ProposerError) as raised:
            make().ask(context, refuse)
        assert str(raised.value)


def search_so_far(direction: Direction) -> Context:
    """A search of a small script that has measured its baseline."""
    result = Measurement(Outcome.OK, 1.75, metrics={"steps": 100.0})
    trial = Trial(1, 0, Arm.BASELINE, 1, "c0", 0.0, 1.0, result)
    baseline = Experiment(0, State.RECORDED, "c0", 0.0, "c0", finished=1.0, trials=(trial,))
    sources = {PATH: SOURCE}
    words = PromptText(role="You improve a script.", rules=(), budget="1 second", facts={})
    metric = Metric("score", "points", direction)
    return Context(
        "contract", "Try things.", sources, sources, (baseline,), 1.75, 0.005, task=words, metric=metric
    )


def with_verdict(context: Context, proposal: Proposal) -> Context:
    """The search after a proposal was tried and discarded."""
    number = len(context.history)
    result = Measurement(Outcome.OK, 1.75)
    trial = Trial(number + 1, number, Arm.SCREEN, 1, f"c{number}", 0.0, 1.0, result)
    verdict = Verdict(VerdictKind.DISCARD, 0.0, (-0.01, 0.01), 0.0, 1, "no gain")
    done = Experiment(number, State.RECORDED, "c0", 0.0, f"c{number}", proposal, verdict, "", 1.0, (trial,))
    return replace(context, history=(*context.history, done))
