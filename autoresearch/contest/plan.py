"""The plan of a contest: its briefs, the settings and the budget of each inner search.

It is fixed when the contest begins, but for how long it goes on and how models are reached. Not covered: what
is run next (`contest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from autoresearch.clock import now
from autoresearch.config import load
from autoresearch.config.files import replaced
from autoresearch.config.roles import is_folder
from autoresearch.errors import UserError
from autoresearch.propose.llm.roles import check_roles
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.brief.settings import Spend, is_connection
from autoresearch.types import Plain


@dataclass(frozen=True)
class Plan(Plain):
    """What was fixed when a contest began.

    Attributes:
        briefs: (name, text), in the order given.
        settings: Of each inner search.
        spend: What each may use.
        rounds: Most rounds; may be raised.
        dollars: Most that all inner searches may pay for language models; may be raised. None: no limit.
        base: The starting commit.
        created: Unix time in seconds.
        device_hour: What an hour of a device costs in dollars, to race the gain per dollar; None: the gain.
        connection: Settings that say how models are reached, in place of those in `settings`; may change.
    """

    briefs: tuple[tuple[str, str], ...]
    settings: tuple[str, ...]
    spend: Spend
    rounds: int
    dollars: float | None
    base: str
    created: float
    device_hour: float | None = None
    connection: tuple[str, ...] = ()


def read_briefs(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The briefs that words name: Markdown files, briefs that are folders, folders of both, or shipped ones.

    Raises:
        UserError: If there is no such brief, or two have the same name.
    """
    found: dict[str, str] = {}
    any_config = load([])
    for word in words:
        folder = Path(word).expanduser()
        many = folder.is_dir() and not is_folder(folder)
        inside = [p for p in sorted(folder.glob("*")) if p.suffix == ".md" or is_folder(p)] if many else []
        for path in inside or [Path(word)]:
            config = any_config.model_copy(update={"brief": str(path)})
            name = config.brief_path.stem
            if name in found:
                raise UserError(f"Two briefs are called {name}.", "Rename one of the files.")
            found[name] = config.read_brief()
    return tuple(found.items())


def make_plan(
    words: Sequence[str],
    overrides: Sequence[str],
    repository: Repository,
    rounds: int,
    dollars: float | None,
    device_hour: float | None = None,
) -> Plan:
    """The plan of a new contest.

    Args:
        words: That name briefs.
        overrides: Settings; `experiments` and `minutes` are the budget of each inner search.
        repository: The user's; its HEAD is the start of all.
        rounds: Most rounds.
        dollars: Most that all may pay for language models.
        device_hour: See `Plan`.
    """
    mine = ("experiments", "minutes", "name", "runs")
    config = load(list(overrides))
    # What the environment and the user's file choose is fixed now, and is the same for all.
    last = {o.partition("=")[0]: o for o in config.overrides}
    every = [override for key, override in last.items() if key not in mine]
    settings, reached = (tuple(o for o in every if is_connection(o) is is_so) for is_so in (False, True))
    spend = Spend(config.experiments, config.minutes)
    base, briefs = repository.resolve("HEAD") or "", read_briefs(words)
    for _, text in briefs:
        check_roles(text, config.proposer)
    return Plan(briefs, settings, spend, rounds, dollars, base, now(), device_hour, reached)


def continued(
    before: Plan,
    overrides: Sequence[str],
    rounds: int | None = None,
    dollars: float | None = None,
    device_hour: float | None = None,
) -> Plan:
    """The plan of a contest that goes on.

    Args:
        before: Its plan so far.
        overrides: Settings; only those that say how a model is reached can be others.
        rounds: Most rounds; None: as before.
        dollars: Most that all may pay for language models; None: as before.
        device_hour: As before, or None.

    Raises:
        UserError: If something else is to be different.
    """
    known = {o for o in before.settings if not is_connection(o)}
    known |= {f"{key}={value}" for key, value in asdict(before.spend).items()}
    given = [o for o in overrides if not o.startswith(("name=", "runs=")) and o not in known]
    other = [o for o in given if not is_connection(o)]
    other += [f"--per-dollar {device_hour:g}"] if device_hour not in (None, before.device_hour) else []
    if other:
        raise UserError(
            f"The contest was begun with other settings than {' '.join(other)}.",
            "Leave them out, or begin another contest: name=...",
        )
    dollars = before.dollars if dollars is None else dollars
    return replace(before, rounds=rounds or before.rounds, dollars=dollars, connection=tuple(given))


def goes_on(before: Plan, plan: Plan, name: str) -> Plan:
    """The plan of a contest that goes on as a new plan says.

    Args:
        before: As it was begun.
        plan: With other rounds or dollars, or other settings that say how models are reached.
        name: Of the contest.

    Raises:
        UserError: If the plans differ in something else.
    """
    settings, known = ({o for o in p.settings if not is_connection(o)} for p in (plan, before))
    reached = tuple(replaced(before.connection, plan.connection))
    plan = replace(plan, base=before.base, created=before.created, settings=before.settings)
    same = replace(plan, rounds=before.rounds, dollars=before.dollars, connection=before.connection)
    if settings != known or same != before:
        raise UserError(
            f"The contest {name} was begun with other briefs or settings.",
            f"It goes on with: autoresearch contest name={name}; or choose another name.",
        )
    return replace(plan, connection=reached)
