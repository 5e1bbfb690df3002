"""The history of a search as text for a language model: one entry an experiment, never a transcript.

Invariants: an entry depends on its experiment and the metric alone, and entries are only appended, so that
the text of one call is a prefix of the next and the provider's prompt cache is paid for once. When the text
outgrows its budget it is compacted in one go to well below it, in a fixed order (see `Ledger`),
which is a function of the history alone: a restarted search writes the same bytes. What candidates printed is
quoted, cut and marked. The diff of a kept change is left out, since the current script shows it.

Not covered: the state of the search now (see `autoresearch.propose.llm.prompt`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoresearch.execute.output import TIMEOUT, classify
from autoresearch.propose.budget import estimate_tokens, size_of
from autoresearch.text import SEEDS_SHOWN, escape_tags, pairs_text, quoted
from autoresearch.types import Experiment, Measurement, Metric, Proposal, Trial, VerdictKind, starts_with

COMPACT_TO = 0.6
"""Share of the budget that a compaction leaves in use; with a lower share the cache is lost less often."""

RECENT = 3
"""The latest experiments stay in full as long as anything else can be dropped."""

MAX_PROSE, MAX_LOG, MAX_PRINTED, MAX_DIFF = 500, 800, 400, 6000
"""Characters shown of a sentence, of what a failed or a scored candidate printed, and of a diff."""

CURVE_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the budget at which the training loss is told."""

PROGRESS = re.compile(r"step\s+\d+\s")
"""Begins a line of progress, which tells no more than the curve."""

END = 0.02
"""A curve may miss a share of the budget by so much, since its points lie apart."""

NUMBERS = {
    "train_seconds": "training {} s",
    "score_seconds": "scoring {} s",
    "memory_mb": "main memory {} MB",
    "peak_memory_mb": "peak memory {} MB",
    "steps": "{} steps",
}
"""Metrics of a measurement that are told of each experiment, and how."""


@dataclass(frozen=True)
class Entry:
    """One experiment as text.

    Attributes:
        texts: In full, without diff and output, in one line, and as nothing.
        worth: 2 for a kept change, 1 for a near miss, 0 for the rest.
    """

    texts: tuple[str, str, str, str]
    worth: int

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """Of each text, by estimate."""
        return tuple(estimate_tokens(size_of(text)) for text in self.texts)


class Ledger:
    """The entries to show, within a budget of tokens; reads only what a history has more than the last one.

    Details are dropped first, the oldest first: of failures the diffs and outputs, then all but one line;
    then the same of near misses, and of kept changes. Then one-line entries are dropped in the same order. A
    first text says how many entries are missing. All of this is a function of the history alone.

    Args:
        budget: In tokens, by estimate.
        metric: The metric of the scores.
    """

    def __init__(self, budget: int, metric: Metric) -> None:
        self.budget = budget
        self.metric = metric
        self._read: Sequence[Experiment] = ()
        self._shown: list[_Shown] = []
        self._used = 0

    def entries(self, history: Sequence[Experiment]) -> list[str]:
        """The texts, oldest first.

        Args:
            history: Judged experiments, oldest first.
        """
        if not starts_with(history, self._read):
            self._read, self._shown, self._used = (), [], 0
        for number, experiment in enumerate(history[len(self._read) :], start=len(self._read)):
            self._shown.append(_Shown(number, entry(experiment, self.metric)))
            self._used += self._shown[-1].entry.tokens[0]
            if self._used > self.budget:
                self._compact(number + 1 - RECENT, int(self.budget * COMPACT_TO))
        self._read = history
        missing = len(history) - len(self._shown)
        texts = [shown.entry.texts[shown.level] for shown in self._shown]
        return [f"({missing} older experiments are not shown.)\n", *texts] if missing else texts

    def _compact(self, recent: int, target: int) -> None:
        """Drop detail until `target` is met, of experiments from the `recent`-th on last."""
        rounds = [(level, worth, False) for worth in (0, 1, 2) for level in (0, 1)]
        rounds += [(2, worth, False) for worth in (0, 1, 2)]
        rounds += [(level, 2, True) for level in (0, 1, 2)]
        for level, worth, late in rounds:
            for shown in self._shown:
                if self._used <= target:
                    break
                if shown.level == level and (late or (shown.entry.worth == worth and shown.number < recent)):
                    shown.level += 1
                    self._used -= shown.entry.tokens[level] - shown.entry.tokens[level + 1]
        self._shown = [shown for shown in self._shown if shown.entry.texts[shown.level]]


@dataclass
class _Shown:
    """An entry that is not dropped: of the how-manieth experiment, and in which of its texts."""

    number: int
    entry: Entry
    level: int = 0


def entry(experiment: Experiment, metric: Metric) -> Entry:
    """One experiment as text."""
    verdict, proposal = experiment.verdict, experiment.proposal
    if verdict is None or proposal is None:
        score = "unknown" if experiment.score is None else f"{metric.text(experiment.score)} {metric.unit}"
        line = f'<experiment number="{experiment.number}">the baseline: {score}'
        told = "".join(f"\n{part}" for part in _measured(experiment, metric))
        line, told = f"{line}</experiment>\n", f"{line}{told}\n</experiment>\n" if told else ""
        return Entry((told or line, line, line, ""), 2)
    near = is_near_miss(experiment)
    head = f'<experiment number="{experiment.number}" verdict="{verdict.kind}" category="{proposal.category}"'
    head += ' near-miss="yes"' if near else ""
    change = escape_tags(change_line(experiment))
    lines = [
        f'{head} by="{escape_tags(proposal.proposer)}">',
        f"hypothesis: {escape_tags(_short(proposal.hypothesis))}",
        *_expected(proposal, metric),
    ]
    if verdict.effect is not None:
        lines.append(f"effect: {_effect(experiment, metric)}")
        if measured := pairs_text(verdict, metric):
            lines.append(f"as measured: {measured}")
    shown = f"change: {change}" if experiment.kept or not experiment.diff else _diff(experiment.diff)
    if verdict.kind in (VerdictKind.CRASH, VerdictKind.INVALID, VerdictKind.PRUNE):
        full = [shown, *_measured(experiment, metric), quoted(_cause(experiment))]
        middle = [f"change: {change}", quoted(_short(verdict.reason))]
    else:
        why = f"reason: {escape_tags(_short(verdict.reason))}"
        full = [*_measured(experiment, metric), why, shown, *_printed(experiment)]
        middle = [why, f"change: {change}"]
    texts = ["\n".join([*lines, *rest, "</experiment>\n"]) for rest in (full, middle)]
    effect = "" if verdict.effect is None else f" (effect {verdict.effect:+.{metric.digits}f})"
    line = f"{head}>{change}{effect}</experiment>\n"
    return Entry((texts[0], texts[1], line, ""), 2 if experiment.kept else int(near))


def _expected(proposal: Proposal, metric: Metric) -> list[str]:
    """What its author expected; nothing if that was not stated."""
    if proposal.expected_effect is None:
        return []
    sure = "" if proposal.confidence is None else f", confidence {proposal.confidence:.0%}"
    return [f"expected: {proposal.expected_effect:+.{metric.digits}f} {metric.unit}{sure}"]


def own_results(experiment: Experiment) -> list[tuple[Trial, Measurement]]:
    """The trials of the script itself that have ended, without those of the incumbent beside it."""
    return [(t, t.result) for t in experiment.own if t.result is not None]


def _measured(experiment: Experiment, metric: Metric) -> list[str]:
    """Scores by seed, and what the latest of its trials measured besides."""
    results = own_results(experiment)
    lines = []
    scores = [f"seed {t.seed}: {metric.text(r.score)}" for t, r in results if r.score is not None]
    if scores and not (experiment.verdict and experiment.verdict.pairs):
        lines.append("scores: " + ", ".join(scores[-SEEDS_SHOWN:]))
    if not results:
        return lines
    latest = results[-1][1]
    told = [f"{share:.0%}: {loss:.3f}" for share, loss in losses_at(latest.curve)]
    found = [f"training loss at shares of the budget {', '.join(told)}"] if told else []
    found += numbers(latest.metrics)
    return [*lines, f"measured: {'; '.join(found)}"] if found else lines


def numbers(metrics: Mapping[str, float]) -> list[str]:
    """The numbers of a measurement that are told of each experiment, in words."""
    known = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return [words.format(f"{known[name]:,.4g}") for name, words in NUMBERS.items() if name in known]


def losses_at(
    curve: Sequence[tuple[float, float]], shares: Sequence[float] = CURVE_SHARES
) -> list[tuple[float, float]]:
    """The latest loss at each share of the budget that a curve has reached."""
    points = [(at, loss) for at, loss in curve if math.isfinite(loss)]
    reached = [share for share in shares if points and points[0][0] - END <= share <= points[-1][0] + END]
    return [(share, [loss for at, loss in points if at <= share + END][-1]) for share in reached]


def _printed(experiment: Experiment) -> list[str]:
    """What a scored candidate printed, as data."""
    logs = [result.log for _, result in own_results(experiment) if result.score is not None]
    said = printed(logs[-1], MAX_PRINTED) if logs else ""
    return ["it printed:", quoted(said)] if said else []


def printed(log: str, limit: int) -> str:
    """The end of what a candidate printed, without lines of progress."""
    lines = [line for line in log.splitlines() if not PROGRESS.match(line)]
    return "\n".join(lines).strip()[-limit:]


def is_near_miss(experiment: Experiment) -> bool:
    """Not kept, though it looked good enough to be measured more than once, and its mean was better."""
    verdict = experiment.verdict
    return (
        verdict is not None
        and verdict.kind is VerdictKind.DISCARD
        and verdict.trials > 1
        and (verdict.effect or 0.0) > 0
    )


def change_line(experiment: Experiment) -> str:
    """The change in one line: the lines before and after if they are few, else how many, and the first."""
    removed, added = changed_lines(experiment)
    pairs = [f"{_short(a, 100)} -> {_short(b, 100)}" for a, b in zip(removed, added, strict=False)]
    if len(removed) == len(added) <= 3:
        return "; ".join(pairs)
    first = (added or removed or [""])[0]
    return f"+{len(added)} -{len(removed)} lines, first: {_short(first, 100)}"


def changed_lines(experiment: Experiment) -> tuple[list[str], list[str]]:
    """Lines removed and added, from the diff, or from the edits where there is no diff."""
    if experiment.diff:
        lines = [line for line in experiment.diff.splitlines() if not line.startswith(("---", "+++"))]
        removed = [line[1:].strip() for line in lines if line.startswith("-")]
        added = [line[1:].strip() for line in lines if line.startswith("+")]
    else:
        proposal: Proposal | None = experiment.proposal
        edits = proposal.edits if proposal else ()
        removed = [line.strip() for edit in edits for line in edit.search.splitlines()]
        added = [line.strip() for edit in edits for line in edit.replace.splitlines()]
    return [line for line in removed if line], [line for line in added if line]


def _effect(experiment: Experiment, metric: Metric) -> str:
    verdict = experiment.verdict
    assert verdict is not None
    interval = ""
    if verdict.interval is not None:
        low, high = verdict.interval
        interval = f", 95% interval [{low:+.{metric.digits}f}, {high:+.{metric.digits}f}]"
    trials = f"{verdict.trials} trial{'' if verdict.trials == 1 else 's'}"
    effect = f"{verdict.effect or 0.0:+.{metric.digits}f} {metric.unit}"
    return f"{effect} (positive is better){interval}, {trials}"


def _cause(experiment: Experiment) -> str:
    """Why it failed: the reason, and the end of the output of the last failed trial, if that adds to it."""
    verdict = experiment.verdict
    failed = [t.result for t in experiment.trials if t.result is not None and t.result.score is None]
    late = bool(failed) and classify(failed[-1].reason) == TIMEOUT  # its output only says where it was
    tail = "" if late or not failed else failed[-1].log.strip()[-MAX_LOG:]
    return "\n".join(part for part in (_short(verdict.reason if verdict else ""), tail) if part)


def _diff(diff: str) -> str:
    kept = [line for line in diff.splitlines() if not line.startswith(("diff --git", "index "))]
    text = "\n".join(kept)
    if len(text) > MAX_DIFF:
        half = MAX_DIFF // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return f"<diff>\n{escape_tags(text)}\n</diff>"


def _short(text: str, limit: int = MAX_PROSE) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
