"""What a search lends to its proposers, for tests: the real inbox, record of calls, and way to run
programs."""

from collections.abc import Mapping
from pathlib import Path

from autoresearch.execute.sandbox.plain import run_tool
from autoresearch.propose.base import SearchServices
from autoresearch.store.calls import CallLog
from autoresearch.store.inbox import Inbox
from autoresearch.types import Cost


def make_services(
    folder: Path, said: list[str] | None = None, unbilled: Mapping[str, Cost] | None = None
) -> SearchServices:
    """Services in a folder; what proposers say is added to `said`, and `unbilled` was spent before."""

    def export(place: Path) -> None:
        (place / "harness.py").write_text("# frozen\n")

    def spent(name: str) -> Cost:
        costs = (cost for who, cost in (unbilled or {}).items() if f"{who}:".startswith(f"{name}:"))
        return sum(costs, Cost())

    calls, words = CallLog(folder), [] if said is None else said
    return SearchServices(
        folder / "agent", export, run_tool, Inbox(folder), calls.record, spent, words.append
    )
