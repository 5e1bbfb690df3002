"""Start and tip write text; their weights are trained once, and what they write is data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoresearch.errors import UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.finish.sample import make_samples
from autoresearch.report.page import to_markdown
from autoresearch.report.summary import summarize
from autoresearch.search.loop import Search
from autoresearch.store.records.notes import read_samples
from autoresearch.types import Measurement, TextRequest
from tests.support.stub import PATH, StubMeasurer, make_repository, make_search, measurer

EVIL = "once \x1b[2Jupon\n```\n<script>alert(1)</script>"


class Writer(StubMeasurer):
    """Writes the first line of its script, and worse."""

    def measure(self, tree: Path, spec: TrialSpec, *rest: Any) -> Measurement:
        done = super().measure(tree, spec, *rest)
        if spec.text is None or done.score is None:
            return done
        text = f"{spec.text.prompt} {(tree / PATH).read_text().splitlines()[0]} {EVIL}"
        return replace(done, texts=(text,) * spec.text.count)


@pytest.fixture
def search(tmp_path: Path) -> Search:
    made = make_search(make_repository(tmp_path / "repo"), [0.2], measurers={"cpu": Writer()})
    made.run()
    return made


def test_start_and_tip_write_and_are_trained_once(search: Search) -> None:
    before, trained = search.journal.experiments(), len(measurer(search).trained)
    start, tip = make_samples(search, TextRequest("say", count=2))
    assert len(measurer(search).trained) == trained + 2
    assert len({seed for _, seed in measurer(search).trained[trained:]}) == 1, "both with the same seed"
    assert start.texts[0].startswith("say LEVEL = 1.0") and tip.texts[1].startswith("say LEVEL = 0.2")
    assert (start.experiment, tip.experiment) == (0, 1) and "\x1b" not in start.texts[0]
    make_samples(search, TextRequest("again"))
    assert len(measurer(search).trained) == trained + 2, "weights that are kept are not trained again"
    assert [s.prompt for s in read_samples(search.journal)] == ["again", "again"]
    assert search.journal.experiments() == before, "nothing that steers the search has changed"


def test_the_report_shows_it_as_text(search: Search) -> None:
    make_samples(search, TextRequest("say"))
    page = to_markdown(summarize(search.journal), "", None)
    shown = page[page.index("## Text that the models wrote") : page.index("## How it was measured")]
    assert "````\nsay LEVEL = 1.0" in shown and "After experiment #1" in shown and "`say`" in shown


def test_without_a_model_that_writes_it_says_so(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.task, "writes", False)
    with pytest.raises(UserError, match="writes no text"):
        make_samples(search, TextRequest())
