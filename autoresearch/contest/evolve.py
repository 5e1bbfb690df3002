"""Has a better brief written: a search of the task `brief` that begins with the best brief of a contest.

The model is shown the contest's evidence. What it writes is an ordinary proposal: it must beat the incumbent
brief like any change. The final claim is made on another corpus or starting point than the searches that
selected it (`task.elsewhere`). Not covered: the search itself (`autoresearch.search`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoresearch.config import load
from autoresearch.config.files import quoted, replaced
from autoresearch.config.roles import BRIEF, ROLES, together
from autoresearch.contest import page
from autoresearch.contest.contest import Contest
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.brief.settings import shared

GUIDE = "evolve"
"""The brief for who writes briefs."""


def settings(contest: Contest, repository: Repository, given: Sequence[str]) -> list[str]:
    """The settings of the search, as for `autoresearch run`.

    Args:
        contest: With at least one complete round.
        repository: The user's; the best brief is a committed file of it.
        given: Settings of the user's, which come last.

    Raises:
        UserError: If there is nothing to begin with, or nothing elsewhere to claim on.
    """
    standing = contest.standing()
    if not standing.rounds:
        raise UserError(
            f"The contest {contest.folder.name} has no complete round yet.",
            f"Go on with it: autoresearch contest name={contest.folder.name}",
        )
    keys = {override.partition("=")[0] for override in given}
    if not keys & {"task.elsewhere", "task.elsewhere_patch"} and "claim=0" not in given:
        raise UserError(
            "A better brief must hold elsewhere: say on which other corpus or starting point it is claimed.",
            """For example: 'task.elsewhere=["data=tinystories"]', or task.elsewhere_patch=OTHER.patch; """
            "without any claim: claim=0",
        )
    best, plan = standing.ranking[0], contest.plan
    search = replaced(plan.settings, plan.connection)
    outer = load(["task=brief", *given]).proposer
    own = {
        "task.editable": committed(best, dict(plan.briefs)[best], repository),
        "task.search": search,
        "task.shared": shared(search, outer),
        "task.evidence": str((contest.folder / "evidence.md").resolve()),
        "budget.experiments": plan.spend.experiments,
        "budget.minutes": plan.spend.minutes,
        "brief": GUIDE,
    }
    if plan.device_hour is not None:
        own |= {"task.per_dollar": True, "task.device_hour": plan.device_hour}
    page.write(contest)  # and the evidence
    return ["task=brief", *(f"{k}={quoted(v)}" for k, v in own.items() if k not in keys), *given]


def committed(name: str, text: str, repository: Repository) -> list[str]:
    """The paths of a brief in the latest commit: of its file, or of brief.md and its roles.

    Raises:
        UserError: If nothing there has this text.
    """
    head = repository.resolve("HEAD") or ""
    paths = [path for path in repository.files(head, (".",)) if path.endswith(".md")]
    whole = [[path for path in paths if Path(path).parent == f] for f in {Path(p).parent for p in paths}]
    roles = [[p for p in found if Path(p).stem in (BRIEF, *ROLES)] for found in whole]
    ways = [[path] for path in paths] + [sorted(f) for f in roles if BRIEF in {Path(p).stem for p in f}]
    ways.sort(key=lambda found: not f"/{found[0]}".endswith((f"/{name}.md", f"/{name}/{BRIEF}.md")))
    for found in ways:
        sources = repository.sources(head, found)
        if len(sources) == len(found) and together(sources).strip() == text.strip():
            return found
    raise UserError(
        f"The best brief, {name}, is not among the committed files of {repository.root}.",
        "What is improved must be committed: copy it here, then git add and git commit it.",
    )
