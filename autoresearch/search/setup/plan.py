"""Says what `autoresearch run` would do, how long it would take and what it might cost; starts nothing.

The plan says what is unknown. The duration of a training comes from an earlier search with the same budget on
the same device, or from a budget of seconds. The cost of language models is a range: from one call per
proposal with the history read from the cache, to two calls without cache and with answers of half the limit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.config import Config, resume
from autoresearch.errors import UserError
from autoresearch.execute.places import device, require_device, threads
from autoresearch.execute.sandbox import Report, create_sandbox, describe
from autoresearch.propose import settings
from autoresearch.propose.base import Context
from autoresearch.propose.budget import Price, estimate_tokens, price_table
from autoresearch.propose.llm import prompt
from autoresearch.search.setup.create import is_scored
from autoresearch.search.setup.open import proposer_of
from autoresearch.search.setup.required import check_new, check_settings
from autoresearch.search.setup.settings import meant_by, named, recorded_config, runs_of
from autoresearch.store.connection import holds_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.searches import journals, searches
from autoresearch.tasks import create_task
from autoresearch.tasks.base import Task
from autoresearch.text import count, duration
from autoresearch.types import Experiment, in_order

ENTRY_TOKENS = 250
"""Tokens that an experiment adds to the history in the prompt, about."""

SHORT_ANSWER = 2500
"""Tokens of an answer with little thinking."""

TRIALS = (1.0, 3.5)
"""Trainings per experiment without an earlier search: from all discarded at once to most confirmed."""

Line = tuple[str, str]


@dataclass(frozen=True)
class Pace:
    """Figures of an earlier search with the same budget on the same device.

    Attributes:
        seconds: Duration of a training, start and scoring included.
        trials: Trainings per experiment.
        source: Name of the search.
    """

    seconds: float
    trials: float
    source: str


def make_plan(overrides: Sequence[str], folder: Path) -> list[Line]:
    """What a run with these settings would do, as lines of a heading and a text.

    Args:
        overrides: Settings, as for `run`.
        folder: Where the user is.

    Raises:
        UserError: If the run could not start, as far as that can be seen without starting it.
    """
    overrides = named(overrides)
    repository = Repository(folder)
    config = meant_by(overrides, repository)
    runs = runs_of(config, repository)
    there = next(path for path in (runs, *runs.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(f"The folder {runs} cannot be written.", "Choose another: runs=/some/folder", code=3)
    place = runs / config.name
    found = holds_search(place)
    if found:
        config = resume(recorded_config(place), overrides, scored=is_scored(place))
    require_device(config)
    check_settings(config, new=not found)
    protection = describe(create_sandbox(config.sandbox["backend"]))
    history = _experiments(place) if found else ()
    proposer_of(config, repository, place)
    done = len(history[1:])
    left = max(config.experiments - done, 0)
    pace = _pace(config, runs)
    base = repository.resolve("HEAD") or ""
    tip = next((e.commit for e in reversed(in_order(history)) if e.kept), base)
    task = create_task(config)
    if not found:
        check_new(config.name, repository, task)
    sources = repository.sources(tip, task.editable)
    return [
        (
            "search",
            f"autoresearch/{config.name}, " + (f"goes on after {done} experiments" if found else "new"),
        ),
        ("task", f"{task.name} ({', '.join(sources)}), brief {config.brief}"),
        ("device", f"{', '.join(p.name for p in task.places())}; {count(threads(config), 'thread')}"),
        ("budget", f"{task.budget.text} for each training ({config.choices.get('budget', 'own')})"),
        (
            "experiments",
            f"{left} more" + (f", for at most {config.minutes:g} minutes" if config.minutes else ""),
        ),
        *_time(config, task, left, 0 if found else config.baselines, pace),
        ("proposer", _who(config.proposer)),
        *_money(config, task, sources, history, left),
        *([("trial cost", task.trial_cost)] if task.trial_cost else []),
        ("protection", _protection(protection)),
    ]


def _protection(report: Report) -> str:
    """What a sandbox protects, in a line."""
    held = sum(item.held for item in report.protections)
    return f"{report.backend}: {held} of {len(report.protections)} protections hold (autoresearch doctor)"


def _experiments(place: Path) -> tuple[Experiment, ...]:
    with Journal.of(place) as journal:
        return journal.experiments()


def _pace(config: Config, runs: Path) -> Pace | None:
    """The latest search with the same budget on the same kind of device."""
    for journal in journals(searches(runs)[:-21:-1]):
        info, experiments = journal.info(), journal.experiments()
        same = info.config.get("budget") == config.budget
        spans = [t.seconds for e in experiments for t in e.trials if t.score is not None]
        if same and spans and info.device.startswith(device(config)):
            tried = [e for e in experiments[1:] if e.verdict]
            trials = sum(len(e.trials) for e in tried) / len(tried) if tried else sum(TRIALS) / 2
            return Pace(sum(spans) / len(spans), trials, info.name)
    return None


def _time(config: Config, task: Task, left: int, baselines: int, pace: Pace | None) -> list[Line]:
    """Trainings, and how long they take."""
    low, high = (pace.trials, pace.trials) if pace else TRIALS
    budget, claim = task.budget, 2 * config.claim if task.sealed else 0
    counts = [round(baselines + left * low), round(baselines + left * high) + claim]
    trainings = f"about {counts[0]}" if counts[0] == counts[1] else f"about {counts[0]} to {counts[1]}"
    trainings += f", {baselines} of them of the starting script" if baselines else ""
    lines = [("trainings", trainings)]
    if claim:
        words = f"{claim} of them at the end, if a change is kept, to claim the result (claim=0: none)"
        lines.append(("claim", words))
    if pace:
        each = f"{duration(pace.seconds)} each, as in the search {pace.source}"
        times = [count * pace.seconds / len(task.places()) for count in counts]
    elif budget.seconds is not None:
        each = f"{duration(budget.seconds)} each, start-up and scoring not counted"
        times = [count * budget.seconds / len(task.places()) for count in counts]
    else:
        most = f", at most {duration(budget.max_seconds)} each" if budget.max_seconds < 86400 else ""
        return [*lines, ("time", f"not known yet{most}")]
    span = " to ".join(dict.fromkeys(duration(seconds) for seconds in times))
    return [*lines, ("time", f"about {span}; {each}")]


def _who(proposer: dict[str, Any]) -> str:
    models = f" ({', '.join(proposer['models'])})" if proposer.get("models") else ""
    command = f" ({proposer['argv'][0]})" if proposer.get("argv") else ""
    fallback = f"; {proposer['fallback']} while it cannot" if proposer.get("fallback") else ""
    return f"{proposer['name']}{models}{command}{fallback}"


def _money(
    config: Config, task: Task, sources: dict[str, str], history: tuple[Experiment, ...], left: int
) -> list[Line]:
    """What models might cost, and the caps."""
    proposer = config.proposer
    if proposer["name"] == "portfolio":  # at most all proposals are those of its first model
        names = [m if isinstance(m, str) else m["name"] for m in proposer["members"]]
        known = ({"name": name, **settings(name)} for name in names)
        proposer = next((options for options in known if options.get("models")), proposer)
    if not proposer.get("models"):
        return [("model cost", "not known here" if proposer["name"] == "command" else "$0")]
    brief = config.read_brief()
    words, metric = task.prompt(), task.metric
    context = Context(config.name, brief, sources, sources, history[:1], 1.0, 0.01, task=words, metric=metric)
    asked = estimate_tokens(prompt.build(context, proposer["ledger_tokens"]).size)
    price = price_table(proposer["prices"], proposer["models"], free=proposer["name"] == "openai")
    first = price[proposer["models"][0]]
    low, high = _dollars(first, asked, proposer, len(history), left)
    caps = {key: proposer[key] for key in ("max_dollars", "max_tokens", "max_calls") if proposer.get(key)}
    cap = ", ".join(f"{key}={value:g}" for key, value in caps.items()) or "none"
    priced = f"about ${low:.2f} to ${high:.2f}" if high else "nothing, as no price is set"
    priced = priced if left else "nothing"
    most = proposer["max_dollars"]
    limit = f"; never more than ${most:g}" if most and high > most else ""
    return [
        ("prompt", f"about {asked:,} tokens at first, up to {asked + proposer['ledger_tokens']:,}"),
        ("cost", f"{priced} for {left} proposals by {proposer['models'][0]}{limit}"),
        ("caps", cap),
    ]


def _dollars(price: Price, asked: int, proposer: dict[str, Any], done: int, left: int) -> tuple[float, float]:
    """The likely range from cheapest to most expensive."""
    low = high = 0.0
    for number in range(done, done + left):
        ledger = min(number * ENTRY_TOKENS, proposer["ledger_tokens"])
        low += ledger * price.cache_read + ENTRY_TOKENS * price.cache_write
        low += asked * price.input + SHORT_ANSWER * price.output
        dear = max(price.input, price.cache_write)
        high += 2 * ((ledger + asked) * dear + proposer["answer_tokens"] / 2 * price.output)
    return low / 1e6, high / 1e6
