"""The orders of experiments that are kept up one by one are those that sorting all of them would give."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoresearch.store.history import History
from autoresearch.types import Experiment, State, Verdict, VerdictKind, in_order, starts_with


@given(
    st.lists(
        st.tuples(st.sampled_from(["new", "judge", "record", "revoke"]), st.integers(0, 11)), max_size=40
    )
)
def test_each_order_is_what_sorting_gives(steps):
    history, known, marks, decided = History(), [Experiment(0, State.COMMITTED, "", 0.0)], [], 0
    history.put(known[0])
    for step, which in steps:
        at = which % len(known)
        old = known[at]
        if step == "new":
            at = len(known)
            known.append(Experiment(at, State.PROPOSED, "", 0.0))
        elif at == 0:
            known[0] = replace(old, state=State.RECORDED)
        elif step == "record" and old.verdict:
            known[at] = replace(old, state=State.RECORDED)
        elif step == "judge" and not old.verdict:
            decided += 1
            kind = VerdictKind.KEEP if which % 2 else VerdictKind.DISCARD
            known[at] = replace(old, state=State.JUDGED, verdict=Verdict(kind), decided=decided)
        elif step == "revoke" and old.verdict:
            known[at] = replace(old, state=State.JUDGED, verdict=Verdict(VerdictKind.INVALID))
        history.put(known[at])
        marks.append(history.changes(0)[0])
    ordered = in_order(known)
    assert history.by_number.all == tuple(known)
    assert history.decided.all == tuple(e for e in ordered if e.number == 0 or e.verdict)
    assert history.kept.all == tuple(e for e in ordered if e.kept and e.state is State.RECORDED)
    assert history.open.all == tuple(e for e in known[1:] if e.state is not State.RECORDED)
    assert sorted(e.number for e in history.changes(0)[1]) == list(range(len(known)))
    for mark in marks:
        assert history.changes(mark)[0] == marks[-1]
        assert all(e is known[e.number] for e in history.changes(mark)[1])
    assert not history.changes(history.changes(0)[0])[1]


def test_a_history_starts_with_what_it_grew_from_and_with_nothing_like_it():
    one, other, same = (Experiment(0, State.COMMITTED, "", 0.0) for _ in range(3))
    assert starts_with((one, other), (one,)) and starts_with((one,), ())
    assert not starts_with((one,), (one, other))
    assert not starts_with((one, other), (one, same)), "an equal one was put in its place: it was read again"


def test_an_experiment_without_a_verdict_takes_nobodys_place():
    history = History()
    first, second = Experiment(1, State.COMMITTED, "", 0.0), Experiment(2, State.RECORDED, "", 0.0)
    second = replace(second, verdict=Verdict(VerdictKind.KEEP), decided=1)
    for experiment in (Experiment(0, State.COMMITTED, "", 0.0), first, second, replace(first)):
        history.put(experiment)
    assert history.kept.all == (second,) and [e.number for e in history.decided.all] == [0, 2]
