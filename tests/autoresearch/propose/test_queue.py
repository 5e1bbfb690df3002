"""Recorded proposals come in order, each once, also after a restart."""

import json

import pytest

from autoresearch.errors import Refused, UserError
from autoresearch.propose import create_proposer
from autoresearch.propose.base import ProposerError
from autoresearch.types import Proposal
from tests.support.histories import baseline, context, experiment


def line(number, **more):
    edit = {"path": "train.py", "search": "0.02", "replace": f"0.02{number}"}
    return json.dumps({"hypothesis": f"idea {number}", "category": "optimizer", "edits": [edit], **more})


def replay(tmp_path, *lines):
    path = tmp_path / "recorded.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return create_proposer("replay", path=str(path), column=0)


def accept(proposal):
    pass


def test_in_order_then_no_more(tmp_path):
    proposer = replay(tmp_path, line(1, idea=3), "", line(2, proposer="a person", params={"LR": 0.3}))
    first, second = (proposer.ask(context(), accept)[0] for _ in range(2))
    assert [first.hypothesis, second.hypothesis] == ["idea 1", "idea 2"]
    assert (first.proposer, second.proposer, second.params) == ("replay", "a person", {"LR": 0.3})
    assert first.idea is None, "that was an idea in another search"
    with pytest.raises(ProposerError, match="2 recorded proposals") as error:
        proposer.ask(context(), accept)[0]
    assert not error.value.retry


def test_a_restart_goes_on_where_the_history_ends(tmp_path):
    lines = [line(1), line(1), line(2)]
    proposer = replay(tmp_path, *lines)
    past = [baseline()]
    for number in (1, 2):
        proposal = proposer.ask(context(past), accept)[0]
        made = experiment(number, "discard", effect=0.0, scores=(1.7,))
        object.__setattr__(made, "proposal", Proposal.from_dict(proposal.to_dict()))
        past.append(made)
        again = replay(tmp_path, *lines)
        assert again.ask(context(past), accept)[0].hypothesis == ("idea 1" if number == 1 else "idea 2")
    assert proposer.ask(context(past), accept)[0].hypothesis == "idea 2"


def test_refused_lines_are_passed_over(tmp_path):
    def check(proposal):
        if proposal.hypothesis == "idea 1":
            raise Refused("no")

    assert replay(tmp_path, line(1), line(2)).ask(context(), check)[0].hypothesis == "idea 2"


@pytest.mark.parametrize(
    "bad", ["{", "3", "{}", '{"hypothesis": "x"}', line(1, category="alchemy"), line(1, x=1)]
)
def test_a_line_that_is_no_proposal_is_named(tmp_path, bad):
    with pytest.raises(UserError, match=r"recorded\.jsonl, line 2"):
        replay(tmp_path, line(1), bad)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        create_proposer("replay", path=str(tmp_path / "none.jsonl"), column=0)
