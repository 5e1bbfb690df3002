"""Runs candidate code where it cannot read, change or use anything outside its jail.

`create_sandbox` picks a backend and tries it in practice; `start` runs a command in a jail; `describe` says
which protections hold on this machine. Other packages add backends under the entry point group
"autoresearch.sandboxes"; each must pass `autoresearch.testing.sandboxes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autoresearch.errors import UserError
from autoresearch.execute.sandbox.base import Jail, Limits, Protection, Sandbox
from autoresearch.execute.sandbox.probe import ProbeError, Report, describe
from autoresearch.execute.sandbox.process import Jailed, start
from autoresearch.registry import Registry
from autoresearch.text import one_line

__all__ = [
    "Jail",
    "Jailed",
    "Limits",
    "Protection",
    "Report",
    "Sandbox",
    "create_sandbox",
    "describe",
    "start",
]

BACKENDS = {
    "bwrap": "autoresearch.execute.sandbox.bwrap:BwrapSandbox",
    "landlock": "autoresearch.execute.sandbox.landlock:LandlockSandbox",
    "none": "autoresearch.execute.sandbox.plain:PlainSandbox",
}
"""The backends that "auto" tries, strongest first."""

SANDBOXES = Registry("sandbox", BACKENDS)

HINTS = {
    "bwrap": "Install it (apt-get install bubblewrap, dnf install bubblewrap), and let ordinary users make"
    " user namespaces; inside a container that takes --privileged. Or try sandbox=landlock.",
    "landlock": "It takes Linux 5.13 or later with Landlock switched on (6.12 or later where namespaces are"
    " forbidden, as in most containers). Or try sandbox=bwrap.",
}


def create_sandbox(backend: str, say: Callable[[str], None] | None = None) -> Sandbox:
    """The sandbox called `backend`, such as "bwrap", "landlock", "none", or "auto" for the best that works.

    Except for "none", a harmless intruder attacks the sandbox first; it is taken only if every protection
    holds.

    Args:
        backend: Its name.
        say: Is told of each stronger sandbox that does not work here.

    Raises:
        UserError: If there is no such backend, or it does not hold here.
    """
    problems: list[str] = []
    for sandbox in _variants(backend):
        try:
            report = describe(sandbox)
        except ProbeError as error:
            problems.append(f"{sandbox.name}: {one_line(str(error), 300)}")
            continue
        if not report.warning or sandbox.name == "none":
            if say is not None and problems:
                why = "; ".join(problems)
                say(f"A stronger sandbox does not work here, so {sandbox.name} is used: {why}.")
            return sandbox
        problems.append(report.warning)
    raise UserError(f"The sandbox {backend} does not work here: {problems[0]}", HINTS.get(backend, ""))


def _variants(backend: str) -> Iterator[Sandbox]:
    """Sandboxes to try for a backend, strongest first."""
    if backend == "auto":
        for name in BACKENDS:
            yield from _variants(name)
        return
    make = SANDBOXES.load(backend)
    yield make()
    if backend == "landlock":
        yield make(proc=False)
        yield make(namespaces=False, proc=False)
