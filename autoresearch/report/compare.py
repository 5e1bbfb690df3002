"""Compares searches, or the briefs or proposers that they had: what each gained and how sure that is.

A gain is the claim's, from the sealed test set, if every search compared has one; otherwise the judge's own
estimate. Gains compare only if task, metric, data and budget are the same. Where a group has several
searches, its gain is their mean. Its error comes from their own intervals or from how they differ (Student's
t), whichever is larger. A difference is established if its 95% interval excludes zero; the level is shared
between all pairs (Bonferroni), because the best is picked after the fact. Not covered: what to run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from autoresearch.report.estimates import Moment, staircase, student_quantile
from autoresearch.report.summary import Summary
from autoresearch.text import duration
from autoresearch.types import Metric, in_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
"""Okabe & Ito (2008); the marks differ as well."""
MARKS = "osD^vPX"
MAIN = 0.5
"""A proposer gives its name to a search if it made at least this share of the proposals."""


class By(StrEnum):
    """What is compared."""

    NAME = "name"
    BRIEF = "brief"
    PROPOSER = "proposer"


@dataclass(frozen=True)
class Group:
    """Searches that are compared as one.

    Attributes:
        label: The name, brief or proposer that they share.
        searches: Their names.
        gain: Mean gain of their tips over their starts, in the metric's unit; positive is better.
        error: Standard error of `gain`; None if it is not known.
        tried: Experiments, all searches together.
        kept: Kept changes.
        device_seconds: Time of trials.
        dollars: Cost of language models.
        kinds: Category of proposals -> (tried, kept).
    """

    label: str
    searches: tuple[str, ...]
    gain: float
    error: float | None
    tried: int
    kept: int
    device_seconds: float
    dollars: float
    kinds: Mapping[str, tuple[int, int]]

    @property
    def gain_per_hour(self) -> float | None:
        """Gain per hour of device time and search; None without any."""
        hours = self.device_seconds / 3600 / len(self.searches)
        return self.gain / hours if hours else None


@dataclass(frozen=True)
class Comparison:
    """What came of comparing.

    Attributes:
        metric: Of all of them.
        sealed: Whether the gains are from the sealed test set.
        groups: The best first.
        statements: What can be said, one sentence each.
    """

    metric: Metric
    sealed: bool
    groups: tuple[Group, ...]
    statements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        rows = [asdict(group) | {"gain_per_hour": group.gain_per_hour} for group in self.groups]
        return {"metric": self.metric.name, "sealed": self.sealed, "groups": rows, "said": self.statements}


def compare(searches: Sequence[Summary], by: By = By.NAME) -> Comparison:
    """Compare searches of one task; at least one."""
    # A search that kept nothing has nothing to claim, and gained nothing for sure.
    sealed = any(s.claim for s in searches) and all(
        s.claim.result if s.claim else s.gain is None for s in searches
    )
    members: dict[str, list[Summary]] = defaultdict(list)
    for search in searches:
        members[_label(search, by)].append(search)
    groups = sorted((_group(label, found, sealed) for label, found in members.items()), key=lambda g: -g.gain)
    metric = searches[0].metric
    different = _different(searches)
    said = [different] if different else _statements(groups, metric)
    return Comparison(metric, sealed, tuple(groups), tuple(said))


def _label(search: Summary, by: By) -> str:
    if by is By.NAME:
        return search.info.name
    if by is By.BRIEF:
        return search.info.brief
    tried = {name: p.tried for name, p in search.proposers.items()}
    most = max(tried, key=lambda name: tried[name], default="nobody")
    return most if tried and tried[most] >= MAIN * sum(tried.values()) else "several"


def _group(label: str, found: Sequence[Summary], sealed: bool) -> Group:
    gains, errors = zip(*(_gain(search, sealed) for search in found), strict=True)
    error: float | None = None
    if None not in errors:
        error = math.sqrt(math.fsum(e * e for e in errors)) / len(errors)
        if len(gains) > 1:
            spread = stdev(gains) / math.sqrt(len(gains))
            # As a normal error with the same 95% interval, so that groups of any size add up alike.
            error = max(error, spread * student_quantile(0.975, len(gains) - 1) / NormalDist().inv_cdf(0.975))
    tried: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for search in found:
        for kind, row in search.kinds.items():
            tried[kind] += row.tried
            kept[kind] += row.kept
    return Group(
        label=label,
        searches=tuple(search.info.name for search in found),
        gain=fmean(gains),
        error=error,
        tried=sum(search.tried for search in found),
        kept=sum(search.verdicts["keep"] for search in found),
        device_seconds=sum(search.cost.device_seconds for search in found),
        dollars=sum(search.cost.dollars for search in found),
        kinds={kind: (count, kept[kind]) for kind, count in tried.most_common()},
    )


def _gain(search: Summary, sealed: bool) -> tuple[float, float | None]:
    """The gain of a search and its standard error."""
    normal = NormalDist().inv_cdf(0.975)
    if sealed and search.claim and (result := search.claim.result):
        return result.effect, (result.interval[1] - result.interval[0]) / 2 / normal
    if search.gain is None:
        return 0.0, 0.0  # the tip is the start
    interval = search.gain.interval
    return search.gain.absolute, (interval[1] - interval[0]) / 2 / normal if interval else None


def _different(searches: Sequence[Summary]) -> str:
    """Why gains do not compare; empty if they do."""
    facts: Mapping[str, Callable[[Summary], Any]] = {
        "tasks": lambda s: (s.info.task, s.metric),
        "data": lambda s: s.info.data.get("key"),
        "budgets": lambda s: s.info.config.get("budget"),
    }
    found = [what for what, of in facts.items() if any(of(s) != of(searches[0]) for s in searches)]
    return f"These searches had different {' and '.join(found)}: their gains do not compare." if found else ""


def _statements(groups: Sequence[Group], metric: Metric) -> list[str]:
    if len(groups) < 2:
        return []
    best, *others = groups
    level = NormalDist().inv_cdf(1 - 0.025 / math.comb(len(groups), 2))
    said = []
    for other in others:
        more = f"{best.label} gained {metric.text(best.gain - other.gain)} more than {other.label}"
        if best.error is None or other.error is None:
            said.append(f"{more}; how sure that is was not measured.")
            continue
        half = level * math.hypot(best.error, other.error)
        low, high = best.gain - other.gain - half, best.gain - other.gain + half
        sure = "established" if low > 0 else "not established"
        said.append(f"{more} (95% interval {metric.text(low)} to {metric.text(high)}): {sure}.")
    return said


def as_text(found: Comparison) -> str:
    """The comparison as a table for a terminal."""
    unit, digits = found.metric.unit, found.metric.digits
    where = "on the sealed test set" if found.sealed else "by the judge's estimate on validation data"
    lines = [f"Gains in {unit}, {where}; ± is half of a 95% interval."]
    width = max(len(group.label) for group in found.groups)
    lines.append(
        f"{'':{width}}  searches  tried  kept  {'gain':>17}  {'device time':>12}  {'gain/hour':>9}  dollars"
    )
    for g in found.groups:
        half = "" if g.error is None else f" ± {NormalDist().inv_cdf(0.975) * g.error:.{digits}f}"
        gain = f"{g.gain:+.{digits}f}{half}"
        rate = "–" if g.gain_per_hour is None else f"{g.gain_per_hour:+.{digits}f}"
        lines.append(
            f"{g.label:{width}}  {len(g.searches):8}  {g.tried:5}  {g.kept:4}  {gain:>17}"
            f"  {duration(g.device_seconds):>12}  {rate:>9}  {g.dollars:7.2f}"
        )
    for g in found.groups:
        kinds = ", ".join(f"{kind} {kept} of {tried}" for kind, (tried, kept) in g.kinds.items())
        lines.append(f"{g.label}: kept {kinds}." if kinds else f"{g.label}: nothing tried.")
    return "\n".join([*lines, *found.statements])


def write_comparison(searches: Sequence[Summary], found: Comparison, by: By, page: Path) -> None:
    """Write the comparison as a page with its figure in it."""
    from autoresearch.report.markdown import escape, fence
    from autoresearch.report.page import to_html
    from autoresearch.report.plots.progress import save

    title = f"Comparison by {by}: {', '.join(group.label for group in found.groups)}"
    with TemporaryDirectory() as folder:
        drawn = save(lambda: draw_comparison(searches, by), Path(folder) / "figure")
        pictures = {"figure": drawn[0].read_text(encoding="utf-8")} if drawn else {}
    picture = "![Gain so far against what it cost](figure)\n\n" if drawn else ""
    text = f"# {escape(title)}\n\n{picture}{fence(as_text(found))}\n"
    page.write_text(to_html(text, title, pictures), encoding="utf-8")


def draw_comparison(searches: Sequence[Summary], by: By) -> Figure:
    """Gain so far against experiments, device hours and, if any were spent, dollars."""
    from matplotlib.figure import Figure

    axes_of: dict[str, Callable[[Moment, float], float]] = {
        "experiments": lambda moment, hours: moment.experiment.order,
        "device hours": lambda moment, hours: hours,
    }
    if any(search.cost.dollars for search in searches):
        axes_of["dollars"] = lambda moment, hours: moment.dollars
    figure = Figure(figsize=(5 * len(axes_of), 4), layout="constrained")
    panels = figure.subplots(1, len(axes_of), sharey=True)
    labels = list(dict.fromkeys(_label(search, by) for search in searches))
    for axes, (name, x_of) in zip(panels, axes_of.items(), strict=True):
        for i, label in enumerate(labels):
            curves = [_progress(search, x_of) for search in searches if _label(search, by) == label]
            x, y, half = curves[0] if len(curves) == 1 else _mean_progress(curves)
            style = {"color": COLORS[i % len(COLORS)], "marker": MARKS[i % len(MARKS)], "markersize": 3}
            axes.step(x, y, where="post", label=label, **style)
            low, high = ([v + sign * h for v, h in zip(y, half, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, step="post", color=style["color"], alpha=0.12, linewidth=0)
        axes.set_xlabel(name)
        if name == "experiments":
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.axhline(0.0, color="#8c8c8c", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"gain so far in {searches[0].metric.unit} (higher is better)", parse_math=False)
    panels[0].legend(frameon=False, fontsize=8.5)
    return figure


Steps = tuple[list[float], list[float], list[float]]
"""Positions, gains so far, and half of their 95% intervals."""


def _mean_progress(curves: Sequence[Steps]) -> Steps:
    """The mean of several searches, and its 95% interval by how they differ (Student's t).

    A search that has ended keeps its gain while others go on.
    """
    places = sorted({at for x, _, _ in curves for at in x})
    many = len(curves)
    spread = student_quantile(0.975, many - 1) / math.sqrt(many)
    values = [[y[bisect_right(x, at) - 1] for x, y, _ in curves] for at in places]
    return places, [fmean(found) for found in values], [spread * stdev(found) for found in values]


def _progress(search: Summary, x_of: Callable[[Moment, float], float]) -> Steps:
    """Position, gain so far, and half of its 95% interval, after each experiment."""
    seconds = {e.order: sum(t.seconds for t in e.trials) for e in in_order(search.experiments)}
    start = search.estimates.baseline
    x, y, half, spent, done = [0.0], [0.0], [0.0], 0.0, -1
    for moment in staircase(search.experiments) if start else []:
        spent += sum(s for order, s in seconds.items() if done < order <= moment.experiment.order)
        done = moment.experiment.order
        levels = moment.experiment.verdict.levels if moment.experiment.verdict else None
        base = levels.baseline.mean if levels else start.mean if start else 0.0
        ends = levels.incumbent.interval if levels and moment.kept else None
        x.append(x_of(moment, spent / 3600))
        y.append(search.metric.gain(base, moment.best) if moment.kept else 0.0)
        half.append((ends[1] - ends[0]) / 2 if ends else 0.0)
    return x, y, half
