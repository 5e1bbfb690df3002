import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import unicodedata
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from autoresearch.report.live.panel import LiveView, SearchPanel, create_view
from autoresearch.report.live.terminal import PlainView, QuietView, SearchView, trial_name, trial_state
from autoresearch.search.observers import View
from autoresearch.types import Arm, Experiment, Progress, Trial, VerdictKind
from tests.support.searches import ACCURACY_INFO, BASE, EVIL, INFO, baseline, by_accuracy, night, tried
from tests.support.terminal import Screen

EXPERIMENTS = night()
RUNNING = Trial(1, 0, "baseline", 1000, BASE, 0.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def started(trial: Trial) -> Trial:
    return replace(trial, finished=None, result=None)


def play(view: View, experiments: list[Experiment]) -> None:
    """What a search tells its view."""
    for e in experiments:
        if e.number:
            view.proposing(e.number, "optuna")
            view.experiment(e)
        for trial in e.trials:
            view.trial(started(trial))
            view.progress(started(trial), Progress(0.0, 1.0, phase="start-up"))
            view.progress(started(trial), Progress(0.5, 10.0, step=50, loss=3.25))
            view.trial(trial)
        if e.number:
            view.verdict(e, 1.605, 0.01)


def test_plain_lines_tell_the_whole_story() -> None:
    stream = io.StringIO()
    with PlainView(stream, INFO) as view:
        view.message("Going on.", warning=False)
        view.message("No sandbox here.", warning=True)
        play(view, EXPERIMENTS)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "autoresearch/night1: brief default, cpu, 2 threads, 1,000,000 tokens a trial"
    assert lines[1:3] == ["Going on.", "warning: No sandbox here."]
    assert (
        "#0 baseline 2 of 3, seed 1001: training" in lines
        or "#0 baseline 1 of 3, seed 1001: training" in lines
    )
    assert "#2: optimizer, by anthropic:model: raise the learning rate" in lines
    assert "#2 confirm, seed 1001: 1.6400 (20 s)" in lines
    assert "#2 keep: −0.0500 ± 0.0050 over 3 seeds: because" in lines
    assert "#3 screen, seed 7: crash, CUDA out of memory: tried 12 MB (9 s)" in lines
    assert "#3 crash: CUDA out of memory: tried 12 MB" in lines
    assert any(line.startswith("best 1.6050 (noise 0.0100), kept 2, tried 8 of 100") for line in lines)


def test_progress_lines_come_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    view = PlainView(stream, INFO, clock=clock)
    view.trial(RUNNING)
    for second in range(100):
        clock.now += 1
        view.progress(RUNNING, Progress(second / 100, second, step=second, loss=2.0))
    lines = [line for line in stream.getvalue().splitlines() if "loss" in line]
    assert lines == [f"#0 baseline 1, seed 1000: {s}%, {s} s, step {s}, loss 2.000" for s in (29, 59, 89)]


@settings(max_examples=50)
@given(st.text(st.characters(codec=None), max_size=100))
def test_no_control_character_reaches_a_plain_line(text: str) -> None:
    stream = io.StringIO()
    view = PlainView(stream, replace(INFO, device=text, brief=text))
    with view:
        view.message(text)
        view.proposing(1, text)
        play(view, [baseline(1.7), tried(1, VerdictKind.KEEP, ("screen", 1.6), hypothesis=text, reason=text)])
        play(view, [tried(2, VerdictKind.CRASH, hypothesis=text, reason=text)])
    written = stream.getvalue()
    assert not [c for c in written if c != "\n" and unicodedata.category(c)[0] == "C"]
    assert written.count("\n") == 1 + 1 + 1 + 2 + 6 + 6


def test_lines_that_are_read_later_begin_with_the_time() -> None:
    stream = io.StringIO()
    with create_view("plain", INFO, stream=stream) as view:
        view.message("Going on.")
    assert re.fullmatch(r"(\d\d:\d\d:\d\d .+\n){2}", stream.getvalue())


def test_quiet_says_warnings_only() -> None:
    stream = io.StringIO()
    with QuietView(stream, INFO) as view:
        view.message("fine")
        play(view, EXPERIMENTS)
        view.message("not fine", warning=True)
    assert stream.getvalue() == "warning: not fine\n"


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("kind", ["plain", "live", "quiet"])
def test_a_closed_pipe_does_not_end_the_search(kind: str) -> None:
    with create_view(kind, INFO, stream=Broken()) as view:
        view.message("anyone there?", warning=True)
        play(view, EXPERIMENTS)


@pytest.mark.parametrize("kind", ["plain", "live", "quiet"])
def test_a_failing_search_is_not_swallowed(kind: str) -> None:
    with pytest.raises(KeyboardInterrupt), create_view(kind, INFO, stream=io.StringIO()):
        raise KeyboardInterrupt


def test_a_stream_that_knows_only_ascii_gets_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    PlainView(stream, INFO).message("größer → 漢字 −0.1 ± 0.2")
    stream.flush()
    assert stream.buffer.getvalue() == b"gr??er ? ?? -0.1 +/- 0.2\n"  # type: ignore[attr-defined]


def test_the_view_fits_where_the_output_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(create_view("auto", INFO, stream=Terminal()), LiveView)
    assert isinstance(create_view("auto", INFO, stream=io.StringIO()), PlainView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(create_view("auto", INFO, stream=Terminal()), PlainView)
    assert isinstance(create_view("plain"), PlainView)
    with pytest.raises(ValueError, match="view must be"):
        create_view("loud")


def drawn(display: SearchView, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    console.print(SearchPanel(display))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def running_display() -> SearchView:
    display = SearchView(INFO, EXPERIMENTS)
    display.experiment(tried(9, VerdictKind.CRASH, hypothesis="wider and shallower"))
    display.trial(trial := replace(RUNNING, experiment=9, arm="confirm", seed=12))
    display.progress(trial, Progress(0.25, 5.0, step=120, loss=2.5))
    return display


def test_two_trials_at_once_have_a_line_each_and_nothing_jumps_when_one_ends() -> None:
    display = running_display()
    alone = len(drawn(display))
    first, second = (replace(RUNNING, id=i, experiment=9, seed=i, place=f"cuda:{i}") for i in (1, 2))
    display.trial(first)
    display.trial(second)
    display.progress(second, Progress(0.5, 9.0, step=7))
    display.progress(replace(second, id=99), Progress(0.99, 9.0))  # not waited for any more
    both = drawn(display)
    assert any("#9 baseline, seed 1 on cuda:1" in line and "starting up" in line for line in both)
    assert any("seed 2 on cuda:2" in line and "50%" in line for line in both)
    assert len(both) == alone + 1
    display.trial(replace(first, result=EXPERIMENTS[0].trials[0].result))
    assert len(drawn(display)) == len(both) and not any("seed 1 " in line for line in drawn(display))


@pytest.mark.parametrize("kept", [False, True])
def test_a_verdict_leaves_the_trials_of_others_and_one_that_is_cancelled_goes(kept: bool) -> None:
    stream = io.StringIO()
    view = PlainView(stream, INFO)
    first = next(e for e in EXPERIMENTS if e.verdict and (e.verdict.kind is VerdictKind.KEEP) == kept)
    own = started(replace(first.trials[0], id=100, experiment=first.number))
    beside = replace(own, id=101, experiment=first.number + 1)
    for trial in (own, beside):
        view.experiment(replace(first, number=trial.experiment))
        view.trial(trial)
    view.trial(replace(own, finished=own.started + 1.0))
    view.verdict(first, 1.6, 0.01)
    assert list(view.running) == [101]
    for trial in (own, beside):
        name = f"#{trial.experiment} {trial_name(trial)}"
        assert [line for line in stream.getvalue().splitlines() if name in line] == [f"{name}: training"]


def test_what_a_gain_must_be_is_told_in_the_panel_and_in_a_plain_line_when_it_changes() -> None:
    stream, needed = io.StringIO(), "none below about 0.004 can be kept"
    display, lines = running_display(), PlainView(stream, INFO)
    for number, told in enumerate((needed, needed, "none below about 0.005 can be kept"), 10):
        for view in (display, lines):
            view.verdict(tried(number, VerdictKind.DISCARD, ("screen", 1.8)), 1.6, 0.01, partial(str, told))
    assert "a gain: none below about 0.005 can be kept" in "\n".join(drawn(display))
    told_lines = [line for line in stream.getvalue().splitlines() if line.startswith("a gain: ")]
    assert told_lines == [f"a gain: {needed}", "a gain: none below about 0.005 can be kept"]


def test_the_panel_says_what_is_tried_why_how_far_and_what_came_of_it() -> None:
    text = "\n".join(drawn(running_display()))
    for words in (
        "autoresearch/night1",
        "brief default  cpu, 2 threads  1,000,000 tokens a trial",
        "best 1.6050",
        "from 1.7000",
        "kept 2  tried 8/100",
        "#9: optimizer, by anthropic:model",
        "wider and shallower",
        "confirm, seed 12",
        "25%, 5 s, step 120, loss 2.500",
        "#5 keep: −0.0400 ± 0.0050 over 3 seeds   raise the learning rate",
        "#8 crash",
        "CUDA out of memory",
    ):
        assert words in text, words


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 160), st.integers(8, 60), st.text(st.characters(codec=None), max_size=300))
def test_the_panel_fits_any_terminal_whatever_is_written(width: int, height: int, text: str) -> None:
    display = running_display()
    display.message(text, warning=True)
    display.experiment(tried(9, VerdictKind.CRASH, hypothesis=text))
    display.verdict(tried(9, VerdictKind.CRASH, hypothesis=text, reason=text), 1.6, 0.01)
    lines = drawn(display, width, height)
    console = Console(width=1000)
    assert all(console.measure(line).maximum <= width for line in lines)
    assert len(lines) <= max(height, 12)


def test_markup_of_others_is_text() -> None:
    display = SearchView(INFO)
    display.message("[bold]not[/bold] [link=http://evil.test]a link[/link]")
    display.experiment(tried(1, VerdictKind.CRASH, hypothesis=EVIL))
    text = "\n".join(drawn(display, 200, 40))
    assert "[bold]not[/bold]" in text and "[red]rich[/red]" in text
    assert "\x1b" not in text


def test_a_search_that_goes_on_shows_what_it_has_done() -> None:
    display = SearchView(INFO, EXPERIMENTS)
    assert (display.tried, display.kept, display.best, display.baseline) == (
        8,
        2,
        pytest.approx(1.605),
        pytest.approx(1.7),
    )
    assert [line.number for line in display.verdicts] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_the_starting_point_is_the_best_until_something_is_kept() -> None:
    display = SearchView(INFO)
    for trial in baseline(1.70, 1.72).trials:
        display.trial(trial)
    assert display.best == display.baseline == pytest.approx(1.71)


def test_time_left_follows_the_pace() -> None:
    clock = Clock()
    display = SearchView(replace(INFO, config={"experiments": 10}), clock=clock)
    clock.now += 500  # preparing and measuring the baseline are no measure of the pace
    assert display.seconds_left() is None
    for n in (1, 2):
        display.proposing(n, "optuna")
        clock.now += 60
        display.verdict(tried(n, VerdictKind.DISCARD, ("screen", 1.8)), 1.7, 0.01)
    assert display.seconds_left() == pytest.approx(8 * 60)
    display.trial(RUNNING)
    display.progress(RUNNING, Progress(0.5, 10.0))
    assert display.seconds_left() == pytest.approx(120 / 2.45 * 7.55)


def test_time_left_ends_with_the_minutes() -> None:
    clock = Clock()
    display = SearchView(replace(INFO, config={"experiments": 1000, "minutes": 10.0}), clock=clock)
    clock.now += 60
    assert display.seconds_left() == pytest.approx(540)
    clock.now += 10_000
    assert display.seconds_left() == 0.0


def test_time_left_includes_the_claim() -> None:
    clock = Clock()
    display = SearchView(replace(INFO, config={"experiments": 1, "claim": 2}), clock=clock)
    display.proposing(1, "optuna")
    clock.now += 60
    [kept] = [tried(1, VerdictKind.KEEP, ("screen", 1.6), effect=0.1)]
    display.trial(kept.trials[0])  # of 20 s
    display.verdict(kept, 1.6, 0.01)
    assert display.seconds_left() == pytest.approx(4 * 20)
    display.trial(replace(kept.trials[0], id=5, arm=Arm.CLAIM))
    assert display.seconds_left() == pytest.approx(3 * 20)


def test_names_and_states_of_trials() -> None:
    assert trial_name(RUNNING, 3) == "baseline 1 of 3, seed 1000"
    assert trial_name(replace(RUNNING, id=4), 3) == "baseline 4, seed 1000"
    assert trial_name(replace(RUNNING, id=2, experiment=1, arm="screen"), 3) == "screen, seed 1000"
    assert trial_state(RUNNING, None) == "starting up"
    assert trial_state(RUNNING, Progress(0.0, 4.0, phase="start-up")) == "starting up, 4 s"
    assert trial_state(RUNNING, Progress(1.0, 4.0, phase="score")) == "scoring"
    assert trial_state(RUNNING, Progress(0.5, 4.0, step=3)) == "50%, 4 s, step 3"


def test_the_live_view_draws_on_a_real_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        with create_view("auto", INFO, stream=terminal) as view:
            assert isinstance(view, LiveView)
            play(view, EXPERIMENTS)
        terminal.flush()
        seen = b""
        while select.select([master], [], [], 0)[0]:
            seen += os.read(master, 65536)
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    last = text[text.rindex("╭") :]  # the frame that stays when the search is over
    assert "kept 2  tried 8/100" in last and "#5 keep" in last
    assert "raise the learning rate" in last and "seed 1" not in last


CHILD = """
import os, sys
from autoresearch.report.live.panel import create_view
from tests.autoresearch.report.live.test_terminal import EXPERIMENTS, INFO, RUNNING, tried, VerdictKind
asked, told = map(int, sys.argv[1:])
print("A line that stood there before.")
with create_view("live", INFO, EXPERIMENTS) as view:
    view.message("A message that is longer than a narrow terminal is wide, and so has to be cut off.")
    view.experiment(tried(9, VerdictKind.CRASH, hypothesis="wider and shallower " * 9))
    view.trial(RUNNING)
    while os.read(asked, 1) == b"g":
        view._live.refresh()
        sys.stdout.flush()
        os.write(told, b"d")
"""
"""Draws once for each byte that it is sent, until the pipe ends."""


@pytest.mark.slow
def test_no_frame_is_broken_when_the_terminal_changes_its_size(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    asked, ask = os.pipe()
    done, told = os.pipe()
    root = str(Path(__file__).parents[4])
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": root}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    screen = Screen(80, 24)

    def resize(width: int, height: int) -> None:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        screen.resize(width, height)

    def read() -> None:
        while select.select([master], [], [], 0)[0]:
            screen.feed(os.read(master, 65536).decode("utf-8", "replace"))

    resize(80, 24)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(asked), str(told)],
        cwd=root, stdin=slave, stdout=slave, stderr=slave, env=environment, pass_fds=(asked, told),
    )  # fmt: skip
    for descriptor in (slave, asked, told):
        os.close(descriptor)
    try:
        for width, height in ((80, 24), (120, 40), (50, 20), (30, 12), (100, 30)):
            read()
            resize(width, height)
            for _ in range(2):  # the second frame must erase the first one whole
                os.write(ask, b"g")
                assert os.read(done, 1) == b"d"
                read()
            lines = [line for line in screen.lines if line]
            start = next(i for i, line in enumerate(lines) if line.startswith("╭"))
            assert [line[0] for line in lines[start:]] == ["╭", *"│" * (len(lines) - start - 2), "╰"], lines
            assert all(len(line) == width for line in lines[start:]), lines
            assert lines[:start] in ([], ["A line that stood there before."]), lines
        os.close(ask)
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        os.close(master)
        os.close(done)


def test_a_maximised_metric_is_shown_with_its_own_digits_and_signs() -> None:
    search = by_accuracy(night())
    text = "\n".join(drawn(SearchView(ACCURACY_INFO, search), 100))
    assert "best 1.395" in text and "+7.31% from 1.300" in text
    assert "#2 keep: +0.0500 ± 0.0050 over 3 seeds" in text and "#1 discard: −0.0200" in text
