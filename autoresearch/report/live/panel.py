"""The live view: one panel in the terminal that says what is tried, why, how far it is, and what came of it.

`create_view` chooses between this, plain lines and warnings only. Text of others reaches Rich as text, never
as markup.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

from autoresearch.report.live.terminal import (
    PlainView,
    QuietView,
    SearchView,
    VerdictLine,
    never_raises,
    trial_name,
    trial_state,
)
from autoresearch.text import duration
from autoresearch.types import Experiment, Progress, Trial, VerdictKind

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from autoresearch.store.journal import SearchInfo

COLORS = {
    VerdictKind.KEEP: "green",
    VerdictKind.DISCARD: "bright_black",
    VerdictKind.PRUNE: "blue",
    VerdictKind.CRASH: "red",
    VerdictKind.INVALID: "magenta",
}
MOST_VERDICTS = 12
MOST_BARS = 8


def create_view(
    kind: Literal["auto", "live", "plain", "quiet"] | str,
    info: SearchInfo | None = None,
    experiments: Sequence[Experiment] = (),
    stream: TextIO | None = None,
) -> SearchView:
    """The view that fits where the output goes.

    Args:
        kind: "live", "plain", "quiet", or "auto": live on a terminal that can redraw, plain elsewhere.
        info: The search that is shown.
        experiments: What an earlier run of it has done.
        stream: Where to write; if None, standard output, or for warnings only standard error.

    Raises:
        ValueError: If `kind` is none of these.
    """
    stream = stream or (sys.stderr if kind == "quiet" else sys.stdout)
    if kind == "auto":
        able = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        kind = "live" if able else "plain"
    views: dict[str, type[QuietView | LiveView]] = {"live": LiveView, "plain": PlainView, "quiet": QuietView}
    if kind not in views:
        raise ValueError(f"view must be auto, live, plain or quiet, not {kind!r}")
    view = views[kind](stream, info, experiments)
    if isinstance(view, PlainView):
        view.stamped = True  # who reads it later wants to know when something was
    return view


class LiveView(SearchView):
    """A panel that is redrawn four times a second, from a thread of Rich's own.

    The first argument is a terminal, the others are as for `SearchView`. Nothing is drawn before `with`.
    """

    def __init__(self, stream: TextIO, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._live = redrawn(SearchPanel(self), stream)

    def __enter__(self) -> Self:
        never_raises(self._live.start)(refresh=True)
        return self

    def __exit__(self, *exc: object) -> None:
        with self.lock:
            self.running.clear()
            self.doing = self.hypothesis = ""
        never_raises(self._live.stop)()


class SearchPanel:
    """Draws the state of a view into the width and height of the terminal."""

    def __init__(self, view: SearchView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich calls this for every frame."""
        from rich.console import Group
        from rich.panel import Panel

        with self._view.lock:
            body = [
                self._setting(),
                self._figures(options.max_width > 72),
                *self._needed(options.max_width - 4),
                *self._doing(options.max_width - 4),
            ]
            messages = self._messages()
            room = console.height - len(body) - len(messages) - 4
            verdicts = self._verdicts(min(MOST_VERDICTS, room))
            title = _text(self._view.title, "bold")
        yield Panel(
            Group(*body, *verdicts, *messages), title=title, title_align="left", border_style="bright_black"
        )

    def _setting(self) -> Text:
        return _text("  ".join(self._view.setting), "bright_black")

    def _figures(self, wide: bool) -> Text:
        b, text = self._view, _text("")
        if b.best is not None:
            score = b.metric.text
            noise = f" ± {score(b.noise)}" if b.noise is not None and wide else ""
            text.append("best ").append(f"{score(b.best)}{noise}", "bold green" if b.kept else "bold")
            if b.kept and b.baseline:
                share = b.metric.share(b.best - b.baseline, b.baseline)
                text.append("" if share is None else f"  {100 * share:+.2f}%")
                text.append(f" from {score(b.baseline)}" if wide else "")
            text.append("  ")
        of = f"/{b.limit}" if b.limit is not None else ""
        text.append("kept ").append(str(b.kept), "bold").append("  tried ").append(f"{b.tried}{of}", "bold")
        left = b.seconds_left()
        if left is not None:
            text.append("  left " if wide else "  ").append(f"~{duration(left)}", "bold")
        return text

    def _needed(self, width: int) -> list[Text]:
        """What the next gain must be."""
        needed = self._view.needed
        told = (
            textwrap.wrap(f"a gain: {needed}", max(width, 10), max_lines=2, placeholder=" …")
            if needed
            else []
        )
        return [_text(line, "bright_black") for line in told]

    def _doing(self, width: int) -> list[Text | Table]:
        """What is tried and why, and a bar for each place; always as many lines, so that nothing jumps."""
        b = self._view
        if not b.doing:
            return []
        why = textwrap.wrap(b.hypothesis, max(width, 10), max_lines=2, placeholder=" …")
        lines: list[Text | Table] = [_text(""), _text(b.doing, "bold cyan")]
        lines += [_text(line, "italic") for line in [*why, "", ""][:2]]
        bars: list[Text | Table] = [self._bar(*trial, width) for trial in b.running.values()]
        empty: list[Text | Table] = [_text("")] * b.places
        return [*lines, *(bars + empty)[: min(b.places, MOST_BARS)]]

    def _bar(self, trial: Trial, progress: Progress | None, width: int) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        state = trial_state(trial, progress)
        name = f"#{trial.experiment} {trial_name(trial, self._view.baselines)}"
        fraction = progress.fraction if progress and progress.phase != "start-up" else 0.0
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(
            total=1.0, completed=min(1.0, fraction), width=max(6, min(40, width - len(name) - len(state) - 3))
        )
        grid.add_row(_text(name, "bright_black"), bar, _text(state))
        return grid

    def _verdicts(self, room: int) -> list[Text | Table]:
        from rich.table import Table

        shown = list(self._view.verdicts)[-max(0, room) :] if room > 0 else []
        if not shown:
            return []
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for line in reversed(shown):
            grid.add_row(*_row(line))
        return [_text(""), grid]

    def _messages(self) -> list[Text]:
        shown = list(self._view.messages)[-2:]
        return [_text(text, "yellow" if warning else "bright_black") for text, warning in shown]


def redrawn(panel: SearchPanel, stream: TextIO) -> Live:
    """A panel that is redrawn in place, and after a change of the terminal's size on a cleared screen.

    When a terminal becomes narrower, it folds the lines of the frame before, so that nobody knows how many
    there are to be erased.
    """
    from rich.control import Control
    from rich.live import Live

    class Redrawn(Live):
        shape: tuple[int, int] = (0, 0)

        def refresh(self) -> None:
            with self._lock:
                before, (width, height) = self.shape, self.console.size
                self.shape = width, height
                if self.shape != before and before != (0, 0):
                    self._live_render._shape = None  # nothing is left above to be erased
                    self.console.control(Control.home(), Control.clear())
                super().refresh()

    return Redrawn(panel, console=_console(stream), refresh_per_second=4, vertical_overflow="crop")


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    class LastingConsole(Console):
        def on_broken_pipe(self) -> None:
            # Rich would end the program; the search continues without anyone watching.
            self.quiet = True

    return LastingConsole(file=stream)


def _row(line: VerdictLine) -> tuple[Text, ...]:
    color = COLORS[line.kind]
    what = line.hypothesis if line.score is not None else f"{line.reason}: {line.hypothesis}"
    return (
        _text(f"#{line.number}", "bright_black"),
        _text(line.text, color),
        _text(what),
    )


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
