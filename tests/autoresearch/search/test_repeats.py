"""A program that was tried, or waits to be tried, is refused when it is proposed again."""

from pathlib import Path

import pytest

from autoresearch.errors import Refused
from autoresearch.types import Category, Edit, Proposal
from tests.support.stub import PATH, make_repository, make_search


def test_the_same_program_again_is_refused_with_its_number(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [1.5])
    search.run()
    base = search.journal.info().base_commit
    line = next(line for line in search.state.sources(base)[PATH].splitlines() if line.startswith("LEVEL"))

    def propose(new: str) -> Proposal:
        return Proposal("again", Category.KNOBS, (Edit(PATH, line, new),), "scripted")

    with pytest.raises(Refused, match="experiment 1, which was tried already"):
        search.admission.accept(propose("LEVEL = 1.5  # in other words"), base)
    new = search.admission.accept(propose("LEVEL = 1.25"), base).fingerprint
    with pytest.raises(Refused, match="experiment 4"):
        search.admission.accept(propose("LEVEL = 1.250"), base, waiting={new: 4})
