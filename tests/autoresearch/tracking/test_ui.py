"""What a person sees of two searches in MLflow, in a real browser and from a real server."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.store.journal import Journal
from autoresearch.tracking.mirror import EXPERIMENT_KEY
from autoresearch.tracking.ui import Ui, answers, ui
from autoresearch.types import Measurement, Outcome, VerdictKind
from tests.autoresearch.tracking.test_mirror import add, mirror, new_journal
from tests.support.browser import Browser
from tests.support.searches import INFO

pytestmark = pytest.mark.soak  # the server alone takes ten seconds to start

OTHER = replace(INFO, name="other", brief="optimizer", brief_text="# Only the optimizer", created=3.0)


@pytest.fixture(scope="module")
def shown(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """One server for all tests here, on a store with two searches whose briefs differ."""
    place = tmp_path_factory.mktemp("ui")
    folder = place / "mlflow"
    folder.mkdir()
    shutil.copy(empty_store / "mlflow.db", folder)
    first = new_journal(place)
    add(first)
    add(first, VerdictKind.DISCARD, hypothesis="fewer heads")
    second = Journal.create(place / "other" / "journal.db", OTHER)
    second.finish_trial(second.start_trial(0, "baseline", 0, INFO.base_commit), Measurement(Outcome.OK, 1.7))
    for journal in (first, second):
        journal.update(finished=9.0)
        assert mirror(folder).close(journal) is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = ui(None, folder, port, first.info(), first.get(EXPERIMENT_KEY))
    for journal in (first, second):
        journal.close()
    assert made.command
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    server = subprocess.Popen(made.command, env={**os.environ, **made.environment}, **quiet)  # type: ignore[call-overload]
    try:
        assert answers("127.0.0.1", port, lambda: server.poll() is None)
        yield made
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def rows(browser: Browser) -> list[str]:
    """The names of the runs, from the top down."""
    found = "[...document.querySelectorAll('a[href*=\"/runs/\"]')].sort((a, b) => "
    found += "a.getBoundingClientRect().top - b.getBoundingClientRect().top).map(a => a.innerText.trim())"
    return [name for name in browser.eval(found) if name]


def test_a_search_opens_with_its_answer_first_and_the_columns_that_matter(
    shown: Ui, browser: Browser
) -> None:
    browser.open(shown.url, 1700, 900)
    browser.wait("document.body.innerText.includes('fewer heads')")
    assert rows(browser) == [
        "night1",
        "000 baseline: starting point",
        "001 keep: raise the learning rate",
        "002 discard: fewer heads",
    ]
    heads = browser.eval("[...document.querySelectorAll('.ag-header-cell')].map(c => c.innerText.trim())")
    for name in ("verdict", "effect", "val_bpb", "category", "proposer", "brief"):
        assert name in heads, heads
    said = browser.text()
    assert "Model training" in said and "shows them side by side" in said, "the experiment is described"


def test_a_run_tells_hypothesis_verdict_and_diff(shown: Ui, browser: Browser) -> None:
    browser.open(shown.url, 1700, 900)
    browser.wait("document.body.innerText.includes('001 keep')")
    browser.eval("[...document.querySelectorAll('a')].find(a => a.innerText.startsWith('001 keep')).click()")
    browser.wait("document.body.innerText.includes('Verdict: keep')")
    said = browser.text()
    assert "raise the learning rate" in said and "clearly better" in said and "+LR = 2" in said
    assert "System metrics" in said and "sotu" in said


def test_two_searches_stand_side_by_side_and_are_compared(shown: Ui, browser: Browser) -> None:
    browser.open(shown.searches, 1700, 900)
    browser.wait("document.body.innerText.includes('other')")
    assert rows(browser) == ["night1", "other"]
    browser.wait("document.body.innerText.includes('gain_percent')")
    said = browser.text()
    assert "all searches" in said and INFO.brief in said and "optimizer" in said
    browser.eval("document.querySelector('[aria-label=\"Select all runs\"]').click()")
    compare = "[...document.querySelectorAll('a, button')].find(b => b.innerText.trim() == 'Compare')"
    browser.wait(compare)
    browser.eval(f"{compare}.click()")
    browser.wait("location.hash.includes('compare-runs')")
    browser.wait("document.body.innerText.includes('night1') && document.body.innerText.includes('brief')")
