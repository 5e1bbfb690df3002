"""Has a better brief written: a search of the task `brief` that begins with the best brief of a contest.

The model is shown the contest's evidence. What it writes is an ordinary proposal: it must beat the incumbent
brief like any change. The final claim is made on another corpus or starting point than the searches that
selected it (`task.elsewhere`). Not covered: the search itself (`autoresearch.search`).
"""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.config.files import quoted
from autoresearch.contest import page
from autoresearch.contest.contest import Contest
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository

BRIEF = "evolve"
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
    if "task.elsewhere" not in keys and "claim=0" not in given:
        raise UserError(
            "A better brief must hold elsewhere: say on which other corpus or starting point it is claimed.",
            """For example: 'task.elsewhere=["data=tinystories"]'; without any claim: claim=0""",
        )
    best, plan = standing.ranking[0], contest.plan
    own = {
        "task.editable": [committed(best, dict(plan.briefs)[best], repository)],
        "task.search": list(plan.settings),
        "task.evidence": str((contest.folder / "evidence.md").resolve()),
        "budget.experiments": plan.spend.experiments,
        "budget.minutes": plan.spend.minutes,
        "brief": BRIEF,
    }
    page.write(contest)  # and the evidence
    return ["task=brief", *(f"{k}={quoted(v)}" for k, v in own.items() if k not in keys), *given]


def committed(name: str, text: str, repository: Repository) -> str:
    """The path of a brief in the latest commit.

    Raises:
        UserError: If no file there has this text.
    """
    head = repository.resolve("HEAD") or ""
    paths = [path for path in repository.files(head, (".",)) if path.endswith(".md")]
    paths.sort(key=lambda path: not path.endswith(f"{name}.md"))
    for path, found in ((path, repository.sources(head, [path]).get(path)) for path in paths):
        if found is not None and found.strip() == text.strip():
            return path
    raise UserError(
        f"The best brief, {name}, is not among the committed files of {repository.root}.",
        "What is improved must be committed: copy it here, then git add and git commit it.",
    )
