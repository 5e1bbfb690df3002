"""Finds tasks, proposers, judges, executors and sandboxes by name, shipped ones and those of other packages.

A package registers its own under an entry point group, for instance in its `pyproject.toml`::

    [project.entry-points."autoresearch.proposers"]
    mine = "my_package.proposer:MyProposer"

after which `proposer=mine` works. A class is imported at its first use, so that one name does not load the
libraries of all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from autoresearch.errors import UserError


class Registry:
    """The names of one kind of part, and where each is implemented.

    Args:
        kind: The kind of part, in the singular, such as "proposer"; for messages.
        shipped: Name -> "module:attribute". Other packages add to it under the entry point group
            "autoresearch.KINDs"; a shipped name cannot be taken by another package.
    """

    def __init__(self, kind: str, shipped: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = f"autoresearch.{kind}{'es' if kind.endswith('x') else 's'}"
        self._shipped = {name: EntryPoint(name, value, self.group) for name, value in shipped.items()}

    def names(self) -> list[str]:
        """Every name that can be looked up, sorted."""
        return sorted(self._all())

    def load(self, name: str) -> Any:
        """The class or function of that name.

        Raises:
            UserError: If nothing has that name, or its package cannot be imported.
        """
        if name in self._shipped:  # without a look at the installed packages, which takes 10 ms or more
            shipped = self._shipped[name]
            return getattr(import_module(shipped.module), shipped.attr)
        found = self._all().get(name)
        if found is None:
            near = get_close_matches(name, self.names(), n=1, cutoff=0.4)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise UserError(f"There is no {self.kind} {name!r}.", f"{hint}Known: {', '.join(self.names())}.")
        try:
            return found.load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"The {self.kind} {name!r} cannot be imported from {found.value}: {error}",
                "Reinstall the package that provides it.",
                code=3,
            ) from None

    def _all(self) -> dict[str, EntryPoint]:
        """Shipped parts and those of other packages."""
        return {**{entry.name: entry for entry in entry_points(group=self.group)}, **self._shipped}
