"""The benchmark's candidates that change nothing: other programs that do the same."""

import ast
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.no_change import (
    handicap,
    no_changes,
    renamed_variables,
    swapped_definitions,
    unused_values,
)

SCRIPT = Path(__file__).parents[2] / "nanomodel" / "train.py"
SOURCE = '''
def double(x):
    """Twice."""
    größe = "ü" * 2; twice = x * 2
    return größe, twice


class Thing:
    def total(self, items, start=0):
        whole = start
        for item in items:
            whole += item
        return whole


def outer(n):
    kept = n
    def inner():
        return kept
    return inner()
'''
RESULT = (("üü", 6), 7, 5)


def result(source: str) -> object:
    names: dict[str, object] = {}
    exec(compile(source, "x", "exec"), names)
    return names["double"](3), names["Thing"]().total([1, 2], 4), names["outer"](5)  # type: ignore[operator]


def test_every_kind_is_another_program_that_does_the_same() -> None:
    assert result(SOURCE) == RESULT
    tree = ast.dump(ast.parse(SOURCE))
    for kind, least in ((unused_values, 4), (renamed_variables, 4), (swapped_definitions, 2)):
        texts = [text for _, text in kind(SOURCE)]
        assert len(set(texts)) == len(texts) >= least
        for text in texts:
            assert ast.dump(ast.parse(text)) != tree
            assert result(text) == RESULT


def test_what_an_inner_function_may_read_is_not_renamed() -> None:
    assert not [what for what, _ in renamed_variables(SOURCE) if "outer" in what]


@pytest.mark.slow
def test_the_training_script_has_forty_such_variants_of_every_kind() -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    found = list(islice(no_changes(source), 40))
    texts = {text for _, text in found}
    assert len(texts) == 40 and source not in texts
    assert all(ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)) for text in texts)
    assert {"unused", "renamed", "order"} <= {word for what, _ in found for word in what.split()}


def test_the_handicap_can_be_taken_away() -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    edit = handicap(source)
    worse = source.replace(edit.search, edit.replace)
    assert worse != source and worse.replace(edit.replace, edit.search) == source
