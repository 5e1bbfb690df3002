"""Builds the prompt from the context; the result is text that tests can check.

Invariant: the parts that change least come first. The tool and the rules are the same in every search of a
task, what the task says of its data and the brief are the same within a search, the current script is the
same until a change is kept, and the history only grows; the state of the search comes last. Cache breakpoints
follow the brief, the script and the history (for one hour, because a trial takes longer than five minutes)
and the state (for five minutes: an answer that is refused is sent back at once), so that a call pays in full
only for new parts. A keep rewrites the history too; that costs less than sending the script anew with each
call as long as fewer than about one in six changes is kept, which holds but for the first few. Another brief
changes only the block of the brief.

Not covered: the conversation about an answer that was refused (see `autoresearch.propose.llm.conversation`).
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoresearch.config.roles import for_proposer
from autoresearch.judge import Bars
from autoresearch.propose.base import Context
from autoresearch.propose.budget import size_of
from autoresearch.propose.llm.history import Ledger, change_line, losses_at, own_results, printed
from autoresearch.propose.llm.instructions import FILES, JSON, TOOL, Form, rules
from autoresearch.propose.llm.outcomes import CONFIDENCES, Outcomes
from autoresearch.propose.llm.strategy import request_on_plateau
from autoresearch.text import bars_text, duration, escape_tags, quoted, tuning_text, tunings
from autoresearch.types import Category, Experiment, Idea, Metric

__all__ = ["FILES", "JSON", "TOOL", "Form", "Prompt", "Writer", "build"]

CACHE = {"type": "ephemeral", "ttl": "1h"}
SHORT_CACHE = {"type": "ephemeral", "ttl": "5m"}

CURVE_SHARES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
MAX_NOTE, MAX_PRINTED, MAX_DIAGNOSES = 2000, 3000, 3
"""Characters of a note and of what a diagnosis printed, and number of diagnoses, that are shown."""
MAX_NOTES, MAX_IDEAS, MAX_TUNINGS = 20, 20, 6
"""Number of the newest notes, of the oldest ideas, and of the latest tunings that are shown."""


@dataclass(frozen=True)
class Prompt:
    """The parts of a Messages API request that make the prompt."""

    system: list[dict[str, Any]]
    content: list[dict[str, Any]]

    @property
    def size(self) -> int:
        """Bytes of all text."""
        return sum(size_of(block["text"]) for block in (*self.system, *self.content))

    @property
    def text(self) -> str:
        """The whole prompt as one text, for agents that read files and for the record."""
        return "\n\n".join(block["text"].rstrip("\n") for block in (*self.system, *self.content)) + "\n"


def build(context: Context, history_tokens: int, form: Form = TOOL, variants: int = 0) -> Prompt:
    """Assemble one prompt; see `Writer.build`."""
    return Writer().build(context, history_tokens, form, variants)


class Writer:
    """Assembles the prompts of a search; of a history that has grown it reads only what is new."""

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._outcomes = Outcomes()
        self._lock = threading.Lock()

    def build(self, context: Context, history_tokens: int, form: Form = TOOL, variants: int = 0) -> Prompt:
        """Assemble the prompt.

        Args:
            context: What the proposer may know.
            history_tokens: Budget of the history, in tokens; see `history.Ledger`.
            form: The form of the answer.
            variants: How many variants of the idea the answer may hold besides the first.
        """
        if context.without_history:  # what was read of the whole history stays as it is
            start = replace(context, history=context.history[:1], under_way=())
            return Writer()._build(start, history_tokens, form, variants)
        with self._lock:
            return self._build(context, history_tokens, form, variants)

    def _build(self, context: Context, history_tokens: int, form: Form, variants: int) -> Prompt:
        how = f"{rules(context.task, context.metric)}\n\n# How to answer\n{form.how}"
        system = [_text(how)]
        if context.about:
            system.append(_text("\n\n".join(context.about)))
        system.append(_text(f"<brief>\n{escape_tags(for_proposer(context.brief).strip())}\n</brief>", CACHE))
        scripts = "\n\n".join(script(path, text) for path, text in sorted(context.sources.items()))
        if self._ledger is None or (self._ledger.budget, self._ledger.metric) != (
            history_tokens,
            context.metric,
        ):
            self._ledger = Ledger(history_tokens, context.metric)
        self._outcomes.read(context.history)
        entries = ["# Ledger of all experiments, oldest first\n", *self._ledger.entries(context.history)]
        content = [_text(scripts, CACHE), *map(_text, entries[:-1]), _text(entries[-1], CACHE)]
        ask = form.ask
        if variants and form.variants:
            ask = f"{form.variants.format(variants)}\n{ask}"
        return Prompt(system, [*content, _text(state(context, self._outcomes, ask), SHORT_CACHE)])


def state(context: Context, past: Outcomes, ask: str) -> str:
    """Where the search stands now: the part of the prompt that is new in every call."""
    parts = [
        "# Where the search stands\n" + _progress(context, past),
        _limits(context),
        _facts(context, past),
        _categories(context, past),
        _calibration(context, past),
        _tunings(context, past),
        _diagnoses(context),
        _under_way(context.under_way),
        _beside(context.beside),
        f"# This time\nPropose {context.request}" if context.request else request_on_plateau(past),
        _ideas(context.ideas),
        _notes(context.notes),
        _advice(context.advice),
        ask,
    ]
    return "\n\n".join(part for part in parts if part)


def script(path: str, text: str) -> str:
    """A file with line numbers, counted as Python does: only a line feed ends a line."""
    lines = text.removesuffix("\n").split("\n")
    numbered = "\n".join(f"{number:4d} | {line}" for number, line in enumerate(lines, start=1))
    return f'# The current script\n<script path="{path}">\n{numbered}\n</script>'


def _progress(context: Context, past: Outcomes) -> str:
    baseline = past.baseline.score if past.baseline else None
    metric = context.metric
    lines = [f"- current score: {metric.text(context.incumbent_score)} {metric.unit}"]
    if baseline is not None:
        gained = metric.gain(baseline, context.incumbent_score)
        lines.append(f"- baseline: {metric.text(baseline)}; gained so far: {gained:+.{metric.digits}f}")
        lines.append(f"- experiments: {past.tried}, kept: {past.kept}")
    if context.task.budget:
        lines.append(f"- budget of every trial: {context.task.budget}")
    if context.noise > 0:
        lines.append(f"- noise: {metric.text(context.noise)} (standard deviation of the score over seeds)")
    if context.bars is not None:
        lines.append(_bars(context.bars, metric))
    if context.experiments_left is not None:
        lines.append(f"- experiments left after this one: {context.experiments_left}")
    if context.diagnoses_left:
        lines.append(f"- diagnoses left: {context.diagnoses_left}")
    if context.seconds_left is not None:
        lines.append(f"- time left: {duration(context.seconds_left)}")
    return "\n".join(lines)


def _bars(bars: Bars, metric: Metric) -> str:
    """What the judge asks of a gain. Trials are compared seed by seed, so it may be below the noise."""
    told = bars_text(bars.second_run, bars.three_runs, bars.ever, metric)
    return f"- a gain, by the judge (trials are compared seed by seed): {told}"


def _limits(context: Context) -> str:
    """What a candidate may not use more of, and how much of it the current script uses."""
    lines = []
    for limit in context.limits:
        used = context.facts.get(limit.name)
        now = "" if used is None else f"; the current script uses {_number(used)}"
        lines.append(f"- {limit.text}: at most {_number(limit.most)}{now}")
    return "# Limits: a candidate that exceeds one has no score\n" + "\n".join(lines) if lines else ""


def _facts(context: Context, past: Outcomes) -> str:
    """Numbers from the trials of the current script."""
    told = context.task.facts
    lines = [
        "- " + told.get(name, f"{name}: {{}}").format(_number(value))
        for name, value in sorted(context.facts.items())
        if _plain(name, value) and told.get(name) != ""
    ]
    used = context.facts.get("peak_memory_mb")
    if context.memory_mb is not None:
        free = (
            "" if used is None else f", of which {_number(max(context.memory_mb - used, 0.0))} were left free"
        )
        lines.append(f"- memory of the device in MB: {_number(context.memory_mb)}{free}")
    curve = _curve(past.incumbent)
    if curve:
        points = ", ".join(f"{share:.0%}: {loss:.3f}" for share, loss in curve)
        lines.append("- " + told.get("curve", "curve at shares of the budget: {}").format(points))
    return "# What its trials measured\n" + "\n".join(lines) if lines else ""


def _curve(incumbent: Experiment | None) -> list[tuple[float, float]]:
    """A few points of the current script's latest loss curve."""
    curves = [result.curve for _, result in own_results(incumbent)] if incumbent else []
    return losses_at(curves[-1], (0.0, *CURVE_SHARES)) if curves else []


def _calibration(context: Context, past: Outcomes) -> str:
    """How well authors foresaw what came of their changes."""
    digits = context.metric.digits
    lines = []
    for (low, high), (count, kept) in zip(CONFIDENCES, past.confident, strict=True):
        if count:
            lines.append(f"- confidence {low:.0%} to {min(high, 1.0):.0%}: {count} proposals, {kept} kept")
    if count := past.effects[0]:
        expected, found = (total / count for total in past.effects[1:])
        lines.append(
            f"- mean expected effect {expected:+.{digits}f}, mean measured effect {found:+.{digits}f}, of "
            f"{count} experiments"
        )
    return "# Expectations and outcomes so far\n" + "\n".join(lines) if lines else ""


def _categories(context: Context, past: Outcomes) -> str:
    """How often each kind of change was tried, and what it gained."""
    digits = context.metric.digits
    found = {category: past.kinds[category] for category in Category if category in past.kinds}
    if not found:
        return ""
    rows = []
    for category, kind in found.items():
        paid = f"{kind.kept} kept ({kind.gain:+.{digits}f} in total)" if kind.kept else "0 kept"
        rows.append(f"- {category}: {kind.tried} tried, {paid}, {kind.failed} failed")
    never = [category.value for category in Category if category not in found]
    return "\n".join(["# Kinds of change so far", *rows, f"- never tried: {', '.join(never) or 'none'}"])


def _tunings(context: Context, past: Outcomes) -> str:
    """What the latest tunings and sweeps found; each point has an entry of its own in the ledger."""
    shown = {*[*past.points][-MAX_TUNINGS:], *(group[0][1].name for group in tunings(context.under_way))}
    known = (e for name, group in past.points.items() if name in shown for e, _ in group)
    groups = tunings((*known, *context.under_way))[-MAX_TUNINGS:]
    lines = [
        f"- {group[-1][1].kind} of {group[0][0].number}, {len(group)} of {group[0][1].points} points: "
        f"{escape_tags(tuning_text(group, context.metric))}"
        for group in groups
    ]
    head = "# What tunings and sweeps found\nDifferences of the score as measured, over paired seeds:"
    return "\n".join([head, *lines]) if lines else ""


def _diagnoses(context: Context) -> str:
    """What diagnoses printed, as data; the latest ones."""
    parts = []
    for found in context.diagnoses[-MAX_DIAGNOSES:]:
        script = f"experiment {found.experiment}" if found.experiment else "the baseline"
        failed = f" The training failed: {escape_tags(found.reason)}." if found.reason else ""
        parts.append(f"The script of {script}, asked: {escape_tags(found.question)}{failed}")
        parts.append(quoted(printed(found.printed, MAX_PRINTED)))
    return "\n".join(["# What diagnoses printed", *parts]) if parts and not context.without_history else ""


def _under_way(experiments: tuple[Experiment, ...]) -> str:
    """The experiments that run now, without a verdict yet."""
    lines = [
        f"- experiment {e.number} ({e.proposal.category}): {escape_tags(e.proposal.hypothesis)} "
        f"[{escape_tags(change_line(e))}]"
        for e in experiments
        if e.proposal
    ]
    if not lines:
        return ""
    return "\n".join(
        [
            "# Being measured now or next, not judged yet",
            *lines,
            "Do not repeat these. Your edit applies to the current script above; if what is measured now is "
            "kept, both are merged.",
        ]
    )


def _beside(others: int) -> str:
    """That others write proposals at this moment."""
    if not others:
        return ""
    return (
        f"# Beside you\nAt this moment {others} others who were told the same write proposals, which nobody "
        "has seen yet. Propose what they will hardly think of."
    )


def _notes(notes: tuple[str, ...]) -> str:
    said = [note.strip() for note in notes if note.strip()]
    lines = [f"<note>{escape_tags(note[:MAX_NOTE])}</note>" for note in said[-MAX_NOTES:]]
    if len(said) > MAX_NOTES:
        lines.insert(0, f"({len(said) - MAX_NOTES} older ones are not shown.)")
    return "\n".join(["# Notes from the person who runs this search", *lines]) if lines else ""


def _ideas(ideas: tuple[Idea, ...]) -> str:
    """People's ideas; patches are tried as they are, so they are only named."""
    lines = [
        f'<idea number="{idea.number}">{escape_tags(idea.text.strip()[:MAX_NOTE])}</idea>'
        for idea in ideas
        if not idea.patch
    ]
    if not lines:
        return ""
    ask = "# Open ideas of people\nTo test one of them, give its number in your answer."
    return "\n".join([ask, *lines[:MAX_IDEAS]])


def _advice(advice: str) -> str:
    """What the scout of the brief has found; it wrote that as a model, so it is data."""
    if not advice.strip():
        return ""
    told = "A scout read the same as you, and lists ideas. Take one of them or none; the proposal is yours."
    return f"# Ideas of the scout\n{told}\n{quoted(advice)}"


def _plain(name: str, value: object) -> bool:
    """Whether a fact is a finite number with an ordinary name."""
    usual = re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) is not None
    return usual and isinstance(value, int | float) and math.isfinite(value)


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def _text(text: str, cache: Mapping[str, str] | None = None) -> dict[str, Any]:
    block: Mapping[str, Any] = {"type": "text", "text": text}
    return {**block, "cache_control": cache} if cache else dict(block)
