"""Recorded proposals come in order, each once, also after a restart."""

import json
from dataclasses import replace

import pytest

from autoresearch.errors import Refused, UserError
from autoresearch.propose import create_proposer
from autoresearch.propose.base import ProposerError, SearchServices
from autoresearch.propose.queue import ReplayProposer
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


def test_a_line_is_decided_once_in_its_turn_and_a_refusal_is_recorded(tmp_path):
    told, refused = [], []

    def again():
        services = SearchServices(
            tmp_path, print, print, say=told.append, refused=lambda *r: refused.append(r)
        )
        return ReplayProposer(path=tmp_path / "recorded.jsonl", services=services)

    def check(proposal):
        if proposal.hypothesis in ("idea 1", "idea 3") and len(refused) < 2:  # the second look would pass
            raise Refused("no")

    replay(tmp_path, *map(line, range(1, 6)))
    proposer, past = again(), [baseline()]
    for number, expected in enumerate(("idea 2", "idea 4", "idea 5"), 1):
        proposal = proposer.ask(context(past), check)[0]
        assert proposal.hypothesis == expected
        made = experiment(number, "discard", effect=0.0, scores=(1.7,))
        past.append(
            replace(made, proposal=proposal, dropped=tuple(p for p, _ in refused) if number == 1 else ())
        )
        if number == 2:  # a restart knows what was refused from the history
            past[1] = replace(past[1], dropped=tuple(p for p, _ in refused))
            proposer = again()
    assert [reason for _, reason in refused] == ["no", "no"]
    assert [text.split(" of ")[0] for text in told] == ["Refused line 1", "Refused line 3"]
    with pytest.raises(ProposerError, match="used up"):
        again().ask(context(past), check)


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "3",
        "{}",
        line(1, hypothesis=3),
        line(1, hypothesis=" "),
        line(1, confidence=float("nan")),
        line(1, mechanism="\ud800"),
        "[" * 9999,
        '{"hypothesis": "x"}',
        line(1, category="alchemy"),
        line(1, x=1),
    ],
)
def test_a_line_that_is_no_proposal_is_named(tmp_path, bad):
    with pytest.raises(UserError, match=r"recorded\.jsonl, line 2"):
        replay(tmp_path, line(1), bad)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        create_proposer("replay", path=str(tmp_path / "none.jsonl"), column=0)
