"""The page to read in the morning: how much better, how sure, at what cost, what was kept, how to take it.

Owns the wording of results. What is not known is not said: no gain without an interval where noise was
measured, no success where nothing was kept. Numbers come from `summary`, so that `status --json` agrees.
Everything written by candidates or proposers is escaped. Not covered: the parts (`sections`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.report.claim_text import section
from autoresearch.report.guard_text import drifted
from autoresearch.report.page import escape, to_html
from autoresearch.report.plot import write_plot
from autoresearch.report.sections import (
    change,
    cost,
    count,
    everything,
    failures,
    kept,
    method,
    proposers,
    take,
    time_spent,
)
from autoresearch.report.standing import History
from autoresearch.report.summary import summarize
from autoresearch.report.timeline import use
from autoresearch.report.timeline_plot import write_timeline
from autoresearch.text import scrub

if TYPE_CHECKING:
    from autoresearch.store.database import Span


@dataclass(frozen=True)
class Report:
    """Where a report lies."""

    markdown: Path
    html: Path
    png: Path | None


def write_report(history: History, diff: str, folder: Path, spans: Iterable[Span] = ()) -> Report:
    """Write `report.md`, `report.html` and the progress plot into a folder.

    Args:
        history: The search.
        diff: Unified diff from the base commit to the tip of the branch.
        folder: Created if it is missing.
        spans: What was done when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spent = use(spans)
    summary = summarize(history) | {"time": spent.to_dict()}
    drawn = [write_plot(history.experiments(), summary["search"], folder)]
    drawn += [write_timeline(spent, summary["search"], folder)]
    pictures = {png.name: svg.read_text(encoding="utf-8") for svg, png in filter(None, drawn)}
    progress, time_png = (pair[1] if pair else None for pair in drawn)
    summary["time"]["picture"] = time_png.name if time_png else None
    markdown = scrub(to_markdown(summary, diff, progress.name if progress else None))
    report = Report(folder / "report.md", folder / "report.html", progress)
    report.markdown.write_text(markdown, encoding="utf-8")
    title = f"{summary['branch']}: {headline(summary)}"
    report.html.write_text(to_html(markdown, title, pictures), encoding="utf-8")
    return report


def to_markdown(summary: Mapping[str, Any], diff: str, picture: str | None) -> str:
    """The report as Markdown. Linear in the number of experiments."""
    missing = "No picture: matplotlib is not installed here. Where it is, `autoresearch report` draws one."
    s = summary
    sections = [
        f"# {escape(s['branch'])}: {headline(s)}",
        f"> {_lead(s)}",
        drifted(s),
        cost(s),
        proposers(s),
        f"![Progress of the search]({picture})" if picture else missing,
        *kept(s),
        *section(s),
        *take(s),
        *change(diff, s),
        *failures(s),
        *everything(s),
        *time_spent(s),
        *method(s),
        f"Written {_date(time.time())} from the journal of the search.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def headline(s: Mapping[str, Any]) -> str:
    """What came of the search, in a few words."""
    if s["baseline"] is None:
        return "nothing has been scored yet"
    if s["gain"] is None:
        return "nothing kept" if s["tried"] else "only the starting point has been measured"
    if s["claim"] and (result := s["claim"]["result"]):
        claimed = 100 * result["effect"] / result["baseline"]
        sure = result["interval"][0] > 0
        return f"{claimed:.2f}% fewer bits per byte on unseen data" if sure else "no gain on unseen data"
    share = 100 * s["gain"]["relative"]
    return f"{share:.2f}% fewer bits per byte" if share > 0 else "no gain"


def _lead(s: Mapping[str, Any]) -> str:
    running = "" if s["finished"] else " The search has not ended; this is how it stands."
    if s["baseline"] is None:
        return "No training has ended with a score, so there is nothing to compare." + running
    base, noise = s["baseline"], s["noise"]["sd"]
    spread = "not measured" if noise is None else f"{noise:.4f} (one standard deviation between seeds)"
    if s["gain"] is None:
        none = (
            f"None of {s['tried']} changes beat the starting point" if s["tried"] else "Nothing was tried yet"
        )
        return (
            f"{none}: {base['mean']:.4f} bits per byte over {count(base['runs'], 'run')}; noise {spread}."
            + running
        )
    gain, interval = s["gain"]["absolute"], s["gain"]["interval"]
    text = (
        f"Validation went from **{base['mean']:.4f}** to **{s['best']['mean']:.4f}** bits per byte "
        f"(lower is better): a gain of **{gain:.4f}**"
    )
    if interval:
        text += f", 95% interval {interval[0]:.4f} to {interval[1]:.4f}"
        text += ". The interval includes zero: this may be noise" if interval[0] <= 0 else ""
    return (
        f"{text}. Kept: {s['verdicts']['keep']} of {count(s['tried'], 'change')}. Noise: {spread}." + running
    )


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
