"""No sandbox: the environment is cleared and limits are set, nothing else.

For machines where nothing better works (anything but Linux), and for code one trusts. A candidate can read
what the user can read, use the network, and kill other processes. Whoever uses it is told so each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from autoresearch.execute.sandbox.base import Jail
from autoresearch.execute.sandbox.visible import launcher


@dataclass(frozen=True)
class PlainSandbox:
    """Runs candidates as ordinary child processes with resource limits."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return "none"

    @property
    def means(self) -> Mapping[str, str]:
        """How it keeps a candidate from each threat; see `Sandbox.means`."""
        chance = dict.fromkeys(("files", "changes", "network", "processes", "secrets"), "not by this sandbox")
        return chance | {"daemons": "the launcher adopts what is orphaned, and kills it"}

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
