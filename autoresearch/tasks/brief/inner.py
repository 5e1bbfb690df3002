"""Inner searches: each is a search of its own that follows one brief. It is run, resumed by name, and read.

An inner search is an ordinary search in a folder of its own. Its name follows from the brief, the seed and
the settings, so nothing is paid for twice: a search that has ended is read, and one that was killed goes on.
It runs in a process of its own, through the same command as any search, on a repository that holds the
starting commit's files alone: the user's repository gets none of its commits. Its gain is what its own judge
claims on the sealed split. Nothing kept, or nothing that can be claimed, is a gain of 0.

Money is counted here: an inner search is begun only if what has been paid, its cap, and the caps of all that
have not ended stay below the common cap. Not covered: what is done with the gains (`measurer`,
`autoresearch.contest`).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.config.files import quoted, replaced
from autoresearch.edit.apply import apply
from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.store.connection import JOURNAL
from autoresearch.store.files import remove_tree
from autoresearch.store.git.repository import Repository
from autoresearch.store.lock import RUNS_ALREADY
from autoresearch.tasks.brief import process
from autoresearch.tasks.brief.result import Result, read_result
from autoresearch.tasks.brief.settings import DEFAULTS, Spend, cap

ATTEMPTS = 3
"""Times that an inner search is started without coming to its end."""


@dataclass(frozen=True)
class Inner:
    """One inner search.

    Attributes:
        brief: The text.
        seed: Of the search.
        settings: Of the search.
        spend: What it may use.
        start: The name of its starting point.
        connection: Settings that say how its model is reached; they take the place of others.
    """

    brief: str
    seed: int
    settings: tuple[str, ...]
    spend: Spend
    start: str = ""
    connection: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name, equal for the same search only, however its model is reached."""
        known = [self.brief, self.settings, self.spend.experiments, self.spend.minutes]
        what = json.dumps([*known, self.start] if self.start else known)
        return f"{hashlib.sha256(what.encode()).hexdigest()[:12]}-{self.seed}"


class Searches:
    """The inner searches of one folder.

    Args:
        folder: For all of them; made if it is missing. `code` in it is their repository.
        cache: Prepared data, shared with all other searches.
        settings: Of each inner search, as for `autoresearch run`.
        spend: What each may use.
        dollars: Most that all of them may pay for language models; None: no limit.
        connection: Settings that say how their model is reached; they take the place of those in `settings`.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        settings: Sequence[str],
        spend: Spend,
        dollars: float | None = None,
        connection: Sequence[str] = (),
    ) -> None:
        self.folder, self.cache = folder.resolve(), cache.resolve()
        self.connection = tuple(connection)
        self.settings, self.spend, self.dollars = tuple(settings), spend, dollars
        self._ended: dict[str, Result] = {}

    def code(self, start: str = "") -> Path:
        """The repository of a starting point."""
        return self.folder / "-".join(filter(None, ("code", start)))

    def prepare(self, export: Callable[[Path], None], others: Mapping[str, str] | None = None) -> None:
        """Make the repositories, once.

        Args:
            export: Writes the files of the starting commit into a folder.
            others: Names of other starting points -> the patch that makes each of these files.

        Raises:
            UserError: If a patch does not apply.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for start, patch in {"": "", **(others or {})}.items():
            if (code := self.code(start)).exists():
                continue
            half = code.with_name(f"{code.name}.half")
            remove_tree(half)
            export(half)
            if patch:
                _apply(patch, half)
            Repository.begin(half)
            half.rename(code)
        if not (link := self.folder / "cache").exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(self.cache, target_is_directory=True)

    def inner(self, brief: str, seed: int, more: Sequence[str] = (), start: str = "") -> Inner:
        """The inner search that follows a brief.

        Args:
            brief: The text.
            seed: Of the search.
            more: Settings that replace others.
            start: Name of another starting point.
        """
        own = {override.partition("=")[0] for override in more}
        reached = [o for o in self.connection if not own & {"proposer", o.partition("=")[0]}]
        return Inner(brief, seed, tuple(replaced(self.settings, more)), self.spend, start, tuple(reached))

    def result(self, inner: Inner) -> Result | None:
        """What an inner search came to; None while it has not ended."""
        return self._read(self.folder / inner.name)

    def _read(self, folder: Path) -> Result | None:
        """What a search came to; what has ended does not change any more."""
        if folder.name not in self._ended and (done := read_result(folder)):
            self._ended[folder.name] = done
        return self._ended.get(folder.name)

    def run(self, inner: Inner, tick: Callable[[float, int], None] = lambda seconds, tried: None) -> Result:
        """Run an inner search to its end; one that has ended is only read.

        Args:
            inner: Which one.
            tick: Called several times a second with the seconds that it has run and the number of its
                experiments; an exception stops the search, which can go on later.

        Raises:
            UserError: If it cannot be run to its end, or if it could break the common cap in dollars.
        """
        if done := self.result(inner):
            return done
        self._check_money(inner)
        text = self.folder / f"{inner.name}.md"
        text.write_text(inner.brief, encoding="utf-8")
        log = self.folder / f"{inner.name}.log"
        journal = self.folder / inner.name / JOURNAL
        for _ in range(ATTEMPTS):
            clock = process.Clock(self.folder / f"{inner.name}.seconds")
            overrides = self._overrides(inner, text, clock.before)

            def look(clock: process.Clock = clock) -> None:
                tick(clock.tick(), process.tried(journal))

            code = process.run_search(self.code(inner.start), overrides, log, look)
            clock.note()
            if done := self.result(inner):
                return done
            if code == RUNS_ALREADY:  # it has survived the process that started it
                while process.runs(journal):
                    look()
                    time.sleep(process.LOOK)
            elif code:
                break
        said = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        raise UserError(
            f"The inner search {inner.name} did not come to its end. It said last:\n{said}",
            f"The same command goes on with it. Look at it: autoresearch report name={inner.name} "
            f"runs={self.folder}",
            code=3,
        )

    def spent(self, but: str = "") -> float:
        """Dollars of all inner searches but one; a search that has not ended counts with its cap."""
        each = cap(self.settings, self.spend) or 0.0
        found = [path.parent for path in self.folder.glob(f"*/{JOURNAL}") if path.parent.name != but]
        return sum(done.dollars if (done := self._read(folder)) else each for folder in found)

    def affords(self, count: int) -> bool:
        """Whether so many more inner searches are sure to stay below the common cap."""
        each = cap(self.settings, self.spend)
        return self.dollars is None or self.spent() + count * (each or 0.0) <= self.dollars

    def _check_money(self, inner: Inner) -> None:
        if self.dollars is None:
            return
        each, others = cap(inner.settings, inner.spend), self.spent(but=inner.name)
        if each is None:
            raise UserError(
                f"A cap of {self.dollars:g} dollars for all inner searches needs one for each of them.",
                "Give it: budget.dollars=...",
            )
        if others + each > self.dollars:
            raise UserError(
                f"The next inner search could break the cap of {self.dollars:g} dollars: {others:.4g} are "
                f"spent or reserved, and it may spend up to {each:.4g}.",
                "Raise the cap and give the same command again: nothing is lost.",
                code=3,
            )

    def _overrides(self, inner: Inner, brief: Path, seconds: float) -> list[str]:
        """The settings of an inner search that has run for so many seconds before."""
        given = {override.partition("=")[0] for override in inner.settings}
        spend = inner.spend
        left = None if spend.minutes is None else max(spend.minutes - seconds / 60, 0.001)
        own = {
            "name": inner.name,
            "runs": str(self.folder),
            "brief": str(brief),
            "seed": inner.seed,
            "experiments": spend.experiments,
            **({} if left is None else {"minutes": left}),
            **({} if spend.dollars is None else {"proposer.max_dollars": spend.dollars}),
        }
        default = [value for value in DEFAULTS if value.partition("=")[0] not in given]
        settings = replaced(inner.settings, inner.connection)
        return [*default, *settings, *(f"{key}={quoted(value)}" for key, value in own.items())]


def _apply(patch: str, folder: Path) -> None:
    """Change the files of a folder as a patch says."""
    changed = {Path(name) for name in re.findall(r"^\+\+\+ (?:b/)?([^\t\n]+)", patch, re.MULTILINE)}
    try:
        sources = {str(path): (folder / path).read_text(encoding="utf-8") for path in changed}
        for path, text in apply(sources, edits_from_patch(patch, sources)).items():
            (folder / path).write_text(text, encoding="utf-8")
    except (OSError, ValueError, Refused) as error:
        raise UserError(
            f"The other starting point cannot be made: {error}.",
            "task.elsewhere_patch is a diff of the starting commit's files, as `git diff` writes it.",
        ) from None
