import pytest

from nanomodel.doubts import EPOCHS, slow, stale

FINE = {"compiled_graphs": 5, "graph_breaks": 0, "compile_failures": 0, "recompiles": 0, "epochs": EPOCHS}


def test_a_good_training_raises_no_doubts():
    assert slow(FINE) == stale(FINE) == stale({}) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"compiled_graphs": 0}, "Nothing was compiled"),
        ({"compile_failures": 2}, "2 functions could not be compiled"),
        ({"graph_breaks": 1}, "1 graph breaks"),
        ({"recompiles": 3}, "3 functions were compiled again"),
    ],
)
def test_what_the_compiler_left_undone_is_said(found, said):
    (doubt,) = slow(FINE | found)
    assert said in doubt
    assert slow({}), "no compiler on this machine"


def test_text_that_is_read_too_often_is_said():
    (doubt,) = stale(FINE | {"epochs": 212.3})
    assert "212 times" in doubt and "data=file" in doubt
