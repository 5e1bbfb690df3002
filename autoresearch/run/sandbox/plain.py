"""No sandbox: the environment is cleared and limits are set, nothing else.

For machines where nothing better works (anything but Linux), and for code one trusts. A candidate can read
what the user can read, use the network, and leave processes behind. Whoever uses it is told so each time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from autoresearch.run.sandbox.base import Jail, Protection
from autoresearch.run.sandbox.world import launcher


class PlainSandbox:
    """Runs candidates as ordinary child processes with resource limits."""

    name = "none"

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        """The command under limits; see `Sandbox.wrap`."""
        spec = {
            "env": dict(jail.env),
            "cwd": str(jail.cwd),
            "fds": list(jail.fds),
            "gpu": jail.gpu,
            "limits": asdict(jail.limits),
        }
        return [*launcher(json.dumps(spec)), *argv]

    def protections(self) -> tuple[Protection, ...]:
        """Only limits hold."""
        return (
            Protection("files", False, "a candidate can read and write what you can"),
            Protection("network", False, "a candidate can open connections"),
            Protection("processes", False, "a candidate can see, signal and outlive other processes"),
            Protection("environment", True, "cleared; but other processes' can be read"),
            Protection("limits", True, "resource limits of the system, and a watcher"),
        )
