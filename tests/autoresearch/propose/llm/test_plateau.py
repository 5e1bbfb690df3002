"""A plateau is noticed by how often changes were kept, and what is asked then goes round."""

from autoresearch.propose.llm.plateau import LONGEST, SHORTEST, direction, drought, patience
from autoresearch.propose.llm.prompt import build
from autoresearch.types import Category
from tests.support.histories import baseline, context, experiment


def past(kinds, **more):
    made = [
        experiment(n, "keep" if kind == "k" else "discard", effect=0.01 if kind == "k" else -0.01,
                   scores=(1.7,), **more)
        for n, kind in enumerate(kinds, start=1)
    ]  # fmt: skip
    return [baseline(), *made]


def test_nothing_is_said_while_things_go_well():
    assert direction([]) == direction(past("")) == direction(past("kdkdk")) == direction(past("ddd")) == ""
    assert "stuck" not in build(context(past("kdkd")), 9000).text


def test_patience_grows_as_keeps_get_rare():
    assert patience(past("kkkkk")) == SHORTEST
    lengths = [patience(past("d" * n + "k")) for n in (0, 5, 10, 200)]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1] == LONGEST
    assert {patience(past("dk" + "d" * n)) for n in range(40)} == {patience(past("dk"))}, "fixed in a drought"
    assert drought(past("kdkddd")) == 3 and drought(past("ddd")) == 3


def test_a_plateau_asks_for_something_else_each_time():
    long = "k" + "d" * 40
    starts = [n for n in range(1, 41) if direction(past(long[: n + 1]))]
    assert starts and starts == list(range(starts[0], 41)), "until something is kept"
    wishes = [direction(past(long[: n + 1])).partition("This time: ")[2] for n in starts[:6]]
    assert len(set(wishes[:3])) == 3 and wishes[3] == wishes[0]
    assert direction(past(long + "k")) == ""


def test_another_kind_of_change_is_named():
    words = direction(past("d" * 12, category=Category.OPTIMIZER))
    wishes = [direction(past("d" * n, category=Category.OPTIMIZER)) for n in range(12, 16)]
    other = next(w for w in wishes if "another kind of change" in w)
    assert "all about optimizer" in other and "architecture" in other and words


def test_near_misses_are_to_be_combined():
    near = [
        experiment(n, "discard", effect=0.001 * n, scores=(1.7, 1.7), category=Category.DATA)
        for n in (1, 2, 3)
    ]
    rest = [experiment(n, "discard", effect=-0.01, scores=(1.8,)) for n in range(4, 20)]
    wishes = [direction([baseline(), *near, *rest[:n]]) for n in range(8, 12)]
    assert any("experiments 1 and 2 and 3" in wish for wish in wishes)


def test_it_stands_in_the_prompt_after_the_cached_part():
    prompt = build(context(past("d" * 15)), 9000)
    assert "# The search is stuck" in prompt.content[-1]["text"]
