"""What scores depend on besides code, data and seed: versions of programs, and the device.

Recorded in the journal whenever a search is opened under another environment than before, so that a score
that cannot be reproduced has an explanation. Not covered: installing what was there before.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from autoresearch import __version__
from autoresearch.clock import now
from autoresearch.config import Config
from autoresearch.execute.places import device, fingerprint, threads
from autoresearch.store.journal import Journal
from autoresearch.store.records.notes import Notes, read_records, write_records
from autoresearch.tasks.base import Task
from autoresearch.types import Plain

ENVIRONMENTS = "environments"
"""Key of the journal's note."""


@dataclass(frozen=True)
class Environment(Plain):
    """An environment that trials ran in.

    Attributes:
        time: From when on, Unix time in seconds.
        values: Name -> value, such as "python" -> "3.12.1".
    """

    time: float
    values: Mapping[str, str]

    def differences(self, other: Environment) -> dict[str, tuple[str, str]]:
        """Name -> value here and there, of what differs; "none" for what one of them lacks."""
        names = dict.fromkeys((*self.values, *other.values))
        pairs = {name: (self.values.get(name, "none"), other.values.get(name, "none")) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def this_environment(config: Config, task: Task) -> Environment:
    """The environment of this process."""
    values = {"autoresearch": __version__, "python": platform.python_version()}
    values |= {"system": f"{platform.system()} {platform.release()}", "machine": platform.machine()}
    values |= {"device": fingerprint(device(config)), "threads": str(threads(config))}
    for package in task.packages:
        try:
            values[package] = version(package)
        except PackageNotFoundError:
            continue
    return Environment(now(), values)


def read_environments(notes: Notes) -> list[Environment]:
    """Every environment of a search, oldest first; empty for a search of an older version."""
    return read_records(notes, ENVIRONMENTS, Environment)


def record_environment(journal: Journal, config: Config, task: Task) -> None:
    """Record the environment of this process, if it is not that of before."""
    known, here = read_environments(journal), this_environment(config, task)
    if not known or known[-1].differences(here):
        write_records(journal, ENVIRONMENTS, [*known, here])


def environment_at(notes: Notes, time: float) -> Environment | None:
    """The environment in which a trial ran that began at a time; None if it was not recorded."""
    return next((e for e in reversed(read_environments(notes)) if e.time <= time), None)
