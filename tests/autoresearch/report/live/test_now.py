import math
from dataclasses import replace
from pathlib import Path

from autoresearch.cli.watch import _view
from autoresearch.report.live.now import FILE, POINTS, Published, read_now
from autoresearch.report.live.terminal import SearchView
from autoresearch.store.lock import Lease
from autoresearch.types import Progress
from tests.support.cli import inside
from tests.support.searches import INFO, baseline
from tests.support.stub import make_repository, make_search

TRIAL = replace(baseline(1.7).trials[0], id=7, experiment=3, result=None, finished=None)


def test_what_runs_is_told_to_other_processes_and_nothing_is_left(tmp_path: Path) -> None:
    assert read_now(tmp_path) == {}
    with Published(SearchView(INFO), tmp_path) as view:
        view.message("hello\x1b[31m")
        view.trial(TRIAL)
        for i in range(1000):
            view.progress(TRIAL, Progress(i / 1000, i / 10, i, 5 - i / 1000))
        view.message("again")
        now = read_now(tmp_path)
        (told,) = now["trials"]
        assert told["experiment"] == 3 and told["fraction"] == 0.999 and "step 999" in told["state"]
        assert len(told["curve"]) <= POINTS + 1 and told["curve"][0] == [0.0, 5.0]
        assert [m["text"] for m in now["messages"]] == ["hello", "again"]
    assert read_now(tmp_path) == {} and not list(tmp_path.iterdir())


def test_a_full_disk_does_not_end_the_search(tmp_path: Path) -> None:
    with Published(SearchView(INFO), tmp_path / "missing") as view:
        view.message("hello")
        view.progress(TRIAL, Progress(0.5, 1.0, 1, math.nan))


def test_a_broken_file_says_nothing(tmp_path: Path) -> None:
    for text in ("", "[1]", '{"trials'):
        (tmp_path / FILE).write_text(text)
        assert read_now(tmp_path) == {}
    (tmp_path / FILE).write_text('{"loss": NaN}')
    assert read_now(tmp_path) == {"loss": None}


def test_another_terminal_shows_what_the_first_one_shows(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [0.2])
    search.run()
    folder, journal = search.journal.path.parent, search.journal
    assert _view(journal, folder) is None  # nobody runs it
    assert "Not running." in inside(search.repository.root, "watch", "name=x")
    journal.set("lease", Lease.ours().to_json())
    trial = replace(journal.experiment(1).trials[-1], result=None, finished=None)
    with Published(SearchView(journal.info(), journal.experiments()), folder) as first:
        first.trial(trial)
        first.progress(trial, Progress(0.25, 3.0, 40, 2.5))
        first.message("hello")
        found = _view(journal, folder)
        assert found is not None and found.kept == 1
        assert [p for _, p in found.running.values()] == [Progress(0.25, 3.0, 40, 2.5)]
        assert found.messages[-1] == ("hello", False)
