"""Rooms without doors for candidate code.

`create_sandbox` picks a backend and tries it for real; `start` runs a command in a jail; `describe` says
what holds on this machine and what does not. The trust that scores deserve rests on this room, on the
scorer (`nanomodel.score`) and on the runner's clock (`autoresearch.tasks.gpt.measure`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from autoresearch.errors import UserError
from autoresearch.execute.sandbox.base import Jail, Limits, Protection, Sandbox
from autoresearch.execute.sandbox.bwrap import BwrapSandbox
from autoresearch.execute.sandbox.landlock import LandlockSandbox
from autoresearch.execute.sandbox.litter import remove_tree
from autoresearch.execute.sandbox.plain import PlainSandbox
from autoresearch.execute.sandbox.probe import ProbeError, Report, measure
from autoresearch.execute.sandbox.process import Jailed, kill_tree, start

__all__ = [
    "Jail",
    "Jailed",
    "Limits",
    "Protection",
    "Report",
    "Sandbox",
    "create_sandbox",
    "describe",
    "kill_tree",
    "remove_tree",
    "start",
]

HINTS = {
    "bwrap": "Install it (apt-get install bubblewrap, dnf install bubblewrap), and let ordinary users make"
    " user namespaces; inside a container that takes --privileged. Or try sandbox=landlock.",
    "landlock": "It takes Linux 5.13 or later with Landlock switched on (6.12 or later where namespaces are"
    " forbidden, as in most containers). Or try sandbox=bwrap.",
}


def create_sandbox(backend: str) -> Sandbox:
    """The sandbox called `backend`: "bwrap", "landlock", "none", or "auto" for the best that works here.

    Everything but "none" is tried first with a harmless intruder, and taken only if all of it holds.

    Raises:
        UserError: If there is no such backend, or it does not hold here.
    """
    if backend not in ("auto", "bwrap", "landlock", "none"):
        raise UserError(f"There is no sandbox {backend!r}.", "Choose auto, bwrap, landlock or none.")
    problems = []
    for sandbox in _candidates(backend):
        try:
            report = describe(sandbox)
        except ProbeError as error:
            problems.append(str(error))
            continue
        if not report.warning or sandbox.name == "none":
            return sandbox
        problems.append(report.warning)
    raise UserError(f"The sandbox {backend} does not work here: {problems[0]}", HINTS[backend])


def _candidates(backend: str) -> Iterator[Sandbox]:
    """Sandboxes to try for a backend, strongest first."""
    if backend in ("auto", "bwrap"):
        yield BwrapSandbox()
    if backend in ("auto", "landlock"):
        yield LandlockSandbox()
        yield LandlockSandbox(proc=False)
        yield LandlockSandbox(namespaces=False, proc=False)
    if backend in ("auto", "none"):
        yield PlainSandbox()


@cache
def describe(sandbox: Sandbox) -> Report:
    """What this sandbox protects on this machine; tried once and remembered.

    Raises:
        ProbeError: If nothing runs in it here.
    """
    return measure(sandbox)
