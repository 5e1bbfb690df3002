"""What a search lends to its proposers, for tests: the real inbox, record of calls, and tool."""

from pathlib import Path

from autoresearch.execute.tool import run_tool
from autoresearch.propose import Desk
from autoresearch.store.calls import CallLog
from autoresearch.store.inbox import Inbox
from autoresearch.types import Cost


def make_desk(folder: Path, said: list[str] | None = None) -> Desk:
    """A desk in a folder; what proposers say is added to `said`."""

    def tree(place: Path) -> None:
        (place / "harness.py").write_text("# frozen\n")

    words = [] if said is None else said
    calls = CallLog(folder)
    return Desk(
        folder / "agent", tree, run_tool, Inbox(folder), calls.record, lambda name: Cost(), words.append
    )
