"""Tunings and sweeps that an answer asks for: points on top of an edit, told of what came before."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.edit.apply import apply
from autoresearch.edit.knobs import read_values
from autoresearch.errors import Refused
from autoresearch.propose.base import Proposer, ProposerError
from autoresearch.propose.portfolio import Portfolio
from autoresearch.propose.tune.knobs import tunables
from autoresearch.propose.tune.optuna import observations
from autoresearch.propose.tune.request import MAX_POINTS, first_point, next_points, with_tuning
from autoresearch.text import tuning_text, tunings
from autoresearch.types import Category, Edit, Experiment, Proposal, State, Verdict, VerdictKind
from tests.support.histories import SOURCE, baseline, context

NEW = Edit("train.py", "def main():\n    train(", "GATE = 0.5\n\n\ndef main():\n    train(GATE, ")
IDEA = Proposal("A gate helps.", Category.ARCHITECTURE, (NEW,), "anthropic:m", idea=3, kind="new")
BARE = replace(IDEA, hypothesis="The rate is off.", edits=())


def accepted(proposal: Proposal) -> None:
    pass


def judged(number: int, proposal: Proposal, gain: float | None, *, kept: bool = False) -> Experiment:
    """An experiment whose candidate was better by `gain` on one seed; None: it crashed."""
    if gain is None:
        verdict = Verdict(VerdictKind.CRASH, reason="oh no", trials=1)
    else:
        kind = VerdictKind.KEEP if kept else VerdictKind.DISCARD
        verdict = Verdict(kind, gain, trials=1, paired=1, pairs=((0, 1.75, 1.75 - gain),))
    return Experiment(number, State.RECORDED, "c000", 0.0, f"c{number:03d}", proposal, verdict)


def following(past: list[Experiment], n: int = 1, wait: bool = True, **more) -> list[Proposal]:
    return next_points(context(past, **more), accepted, n, wait, lambda *said: None)


def carried_out(words: str, points: int | None, gain, idea: Proposal = IDEA) -> list[Experiment]:
    """A whole tuning; `gain` says how much a point gains, from its values."""
    past = [baseline()]
    found = [first_point(idea, words, points, context(past))]
    while found:
        past.append(judged(len(past), found[0], gain(found[0].tuning.values)))
        found = following(past)
    return past


def values(proposal: Proposal, source: str = SOURCE) -> dict:
    return read_values(apply({"train.py": source}, proposal.edits)["train.py"], 0)


def test_every_point_is_the_change_with_other_numbers_and_says_which_point_it_is() -> None:
    past = carried_out("GATE 0.1..1; LR x4", 4, lambda point: 0.0)
    points = [e.proposal for e in past[1:]]
    assert len(points) == 4 and points[0].edits == IDEA.edits, "the first is the change as it was written"
    assert len({str(p.tuning.values) for p in points}) == 4, "no point is tried twice"
    for number, point in enumerate(points, start=1):
        found = values(point)
        assert {name: found[name] for name in ("GATE", "LR")} == point.tuning.values
        assert 0.1 <= found["GATE"] <= 1 and 0.005 <= found["LR"] <= 0.08 and found["DEPTH"] == 3
        assert point.hypothesis.startswith(f"Point {number} of 4 of {'the' if number > 1 else 'a'} tuning")
        assert (point.idea, point.kind, point.proposer) == (3, "new", "anthropic:m")
    assert "of the tuning of #1 (GATE " in points[3].hypothesis and points[3].hypothesis.endswith(
        IDEA.hypothesis
    )


def test_the_sampler_is_told_of_earlier_points_and_finds_the_best_numbers() -> None:
    best = []
    for seed in range(2):
        past = [baseline()]
        found = [first_point(IDEA, "GATE 0.1..1.0", MAX_POINTS, context(past, seed=seed))]
        while found:
            gain = 0.05 - 0.3 * (found[0].tuning.values["GATE"] - 0.85) ** 2
            past.append(judged(len(past), found[0], gain))
            found = following(past, seed=seed)
        best.append(max(past[1:], key=lambda e: e.verdict.effect).proposal.tuning.values["GATE"])
    assert all(abs(value - 0.85) < 0.15 for value in best), best
    past = [baseline(), judged(1, first_point(IDEA, "GATE 0.1..1.0", 8, context()), 0.0)]
    up, down = (
        following([*past, judged(2, replace(following(past)[0]), gain)])[0].tuning.values["GATE"]
        for gain in (0.1, -0.1)
    )
    assert up != down, "what the second point gained decides about the third"
    whole = carried_out("GATE 0.1..1.0", 8, lambda point: 0.0)[1:]
    tried = sorted(e.proposal.tuning.values["GATE"] for e in whole)
    gaps = [two - one for one, two in pairwise(tried)]
    assert min(gaps) > 0.04, "no point is a twin of another"


def test_a_sweep_tries_each_value_once_in_order() -> None:
    past = carried_out("LR 0.01 | 0.02 | 0.04", None, lambda point: 0.01, BARE)
    assert [e.proposal.tuning.values for e in past[1:]] == [{"LR": 0.01}, {"LR": 0.04}], "0.02 is the script"
    assert [e.proposal.tuning.points for e in past[1:]] == [2, 2] and past[
        1
    ].proposal.category is Category.KNOBS
    with_edit = carried_out("GATE 0.25 | 0.5 | 0.75", None, lambda point: 0.01)
    assert [e.proposal.tuning.values["GATE"] for e in with_edit[1:]] == [0.5, 0.25, 0.75]
    assert with_edit[1].proposal.tuning.kind == "sweep"


def test_points_of_the_script_alone_are_known_to_optuna() -> None:
    past = carried_out("LR 0.01 | 0.04", None, lambda point: 0.01, BARE)
    there = context(past)
    seen = observations(there, tunables(there, 0), 0)
    assert [one.point["LR"] for one in seen] == [0.02, 0.01, 0.04, 0.02], (
        "between the start and the incumbent"
    )
    with_code = context(carried_out("LR 0.01 | 0.04", None, lambda point: 0.01))
    assert len(observations(with_code, tunables(with_code, 0), 0)) == 2, "another program is no such point"


def test_a_tuning_waits_for_its_points_unless_places_are_free() -> None:
    first = first_point(IDEA, "GATE 0.1..1", 4, context())
    running = replace(judged(1, first, 0.0), verdict=None)
    assert not following([baseline()], under_way=(running,))
    assert len(following([baseline()], n=2, under_way=(running,))) == 2
    assert len(following([baseline()], wait=False, under_way=(running,))) == 1
    draft = replace(running, commit="", state=State.PROPOSED)
    assert not following([baseline()], n=2, under_way=(draft,)), "its number is not known yet"
    swept = first_point(IDEA, "GATE 0.25 | 0.5 | 0.75", None, context())
    assert following([baseline()], under_way=(replace(running, proposal=swept),)), "values wait for nothing"


def test_a_refused_point_is_recorded_and_used_up() -> None:
    past = [baseline(), judged(1, first_point(IDEA, "GATE 0.25 | 0.5 | 0.75", None, context()), 0.0)]
    said: list[tuple[Proposal, str]] = []

    def check(proposal: Proposal) -> None:
        if values(proposal)["GATE"] == 0.25:
            raise Refused("it fails")

    found = next_points(context(past), check, 1, True, lambda *told: said.append(told))
    assert [p.tuning.point for p in found] == [3] and said[0][1] == "it fails"
    dropped = replace(past[1], dropped=(said[0][0],))
    assert [p.tuning.point for p in following([baseline(), dropped])] == [3], "after a restart, too"
    assert not following([baseline(), replace(dropped, dropped=(said[0][0], found[0]))])


def test_after_a_keep_further_points_start_from_the_script_that_has_the_change() -> None:
    first = first_point(IDEA, "GATE 0.1..1", 4, context())
    source = apply({"train.py": SOURCE}, first.edits)["train.py"]
    past = [baseline(), judged(1, first, 0.02, kept=True)]
    [second] = following(past, source=source)
    assert values(second, source)["GATE"] == second.tuning.values["GATE"] != 0.5
    other = SOURCE.replace("def main():", "def start():")
    assert not following([baseline(), judged(1, first, 0.0)], source=other), "it no longer applies"


@pytest.mark.parametrize(
    ("gains", "more"), [([None], True), ([None, None], False), ([0.0, None], True), ([None, 0.0], True)]
)
def test_a_tuning_of_a_change_that_crashes_ends(gains: list, more: bool) -> None:
    past = [baseline()]
    found = [first_point(IDEA, "GATE 0.1..1", 4, context())]
    for gain in gains:
        past.append(judged(len(past), found[0], gain))
        found = following(past)
    assert bool(found) is more


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("NOTHING 1..2", "no constant NOTHING"),
        ("GATE", "is not clear"),
        ("GATE soon", "is no space for GATE"),
        ("; ;", "name 1 to"),
        ("; ".join(f"A{i} 1..2" for i in range(9)), "name 1 to"),
        ("GATE " + " | ".join(map(str, range(20))), "2 to 8 values"),
        ("GATE 0.5 | 0.5", "is no space"),
    ],
)
def test_what_is_not_clear_goes_back_to_the_author(words: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        first_point(IDEA, words, None, context())


@given(words=st.text(max_size=40), points=st.none() | st.integers(-5, 10**30))
@settings(deadline=None, max_examples=60)
def test_any_words_are_taken_or_refused(words: str, points: int | None) -> None:
    for text in (words, f"GATE {words}"):
        try:
            found = first_point(IDEA, text, points, context())
        except Refused:
            continue
        assert 1 <= found.tuning.points <= MAX_POINTS and values(found)


def test_the_verdict_says_which_point_it_is_and_what_was_found() -> None:
    past = carried_out("GATE 0.25 | 0.5", None, lambda point: 0.01 * point["GATE"])
    metric = context().metric
    said = with_tuning(replace(past[2].verdict, reason="hopeless"), 2, past, metric)
    assert said.reason == (
        "hopeless; point 2 of 2 of the sweep of #1, as measured: "
        "GATE 0.5: −0.0050 (#1); GATE 0.25: −0.0025 (#2)"
    )
    assert with_tuning(past[2].verdict, 0, past, metric) == past[2].verdict
    [group] = tunings([*past, replace(judged(3, past[2].proposal, None))])
    assert tuning_text(group, metric).endswith("GATE 0.25: no score (#3, crash)")


def test_points_that_are_judged_in_another_order_belong_to_their_tuning() -> None:
    past = carried_out("GATE 0.25 | 0.5 | 0.75", None, lambda point: 0.01 * point["GATE"])
    baseline_, first, second, third = past
    mixed = [baseline_, third, first]
    assert [tuning.point for _, tuning in tunings(mixed)[0]] == [1, 3]
    said = with_tuning(second.verdict, 2, past, context().metric)
    assert said.reason.count("#") == 4, "what was judged before it, whatever its number, is told"
    running = replace(second, verdict=None)
    assert not following([*mixed], under_way=(running,)), "all its points are made"


class Silent(Proposer):
    name = "silent"

    def ask(self, context, check, n=1):
        raise ProposerError("a cap is reached")


def test_a_tuning_is_finished_when_the_model_has_no_more_to_say() -> None:
    first = first_point(IDEA, "GATE 0.1..1", 4, context())
    running = replace(judged(1, first, 0.0), verdict=None)
    portfolio = Portfolio(Silent())
    [second] = portfolio.ask(context([baseline()], under_way=(running,)), accepted)
    assert second.tuning.point == 2
    with pytest.raises(ProposerError, match="cap"):
        portfolio.ask(context(), accepted)
