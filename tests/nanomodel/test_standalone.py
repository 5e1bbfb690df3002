import pytest

from nanomodel.standalone import EPOCHS, compile_warnings, repetition_warnings

FINE = {"compiled_graphs": 5, "graph_breaks": 0, "compile_failures": 0, "recompiles": 0, "epochs": EPOCHS}


def test_a_good_training_gives_no_warning():
    assert compile_warnings(FINE) == repetition_warnings(FINE) == repetition_warnings({}) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"compiled_graphs": 0}, "Nothing was compiled"),
        ({"compile_failures": 2}, "2 functions could not be compiled"),
        ({"graph_breaks": 1}, "1 graph breaks"),
        ({"recompiles": 3}, "3 functions were compiled again"),
    ],
)
def test_what_was_not_compiled_gives_a_warning(found, said):
    (warning,) = compile_warnings(FINE | found)
    assert said in warning
    assert compile_warnings({}), "no compiler on this machine"


def test_text_that_is_read_too_often_gives_a_warning():
    (warning,) = repetition_warnings(FINE | {"epochs": 212.3})
    assert "212 times" in warning and "data=file" in warning
