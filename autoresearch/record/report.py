"""The page to read in the morning: how much better, how sure, at what cost, what was kept, how to take it.

Owns the wording of results. What is not known is not said: no gain without an interval where noise was
measured, no success where nothing was kept. Numbers come from `summary`, so that `status --json` agrees.
Everything written by candidates or proposers is escaped.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.record.claimed import section
from autoresearch.record.guarded import guarded
from autoresearch.record.page import code, escape, fence, table, to_html
from autoresearch.record.plot import write_plot
from autoresearch.record.standing import History
from autoresearch.record.summary import summarize
from autoresearch.record.text import duration, flatten, scrub
from autoresearch.record.timeline import use
from autoresearch.record.timeplot import write_timeline

if TYPE_CHECKING:
    from autoresearch.record.file import Span

DIFF_LINES = 3000
"""A longer cumulative diff is cut, and the page says so."""
SAID = {
    "keep": "kept",
    "discard": "discarded",
    "prune": "stopped early",
    "crash": "crashed",
    "invalid": "invalid",
    "open": "unfinished",
}
MEASURED = ("budget", "judge", "sandbox", "executor", "guards", "baselines", "seed")
"""Configuration that decides what a score means."""


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
        _cost(s),
        f"![Progress of the search]({picture})" if picture else missing,
        *_kept(s),
        *section(s),
        *_take(s),
        *_change(diff, s),
        *_failures(s),
        *_everything(s),
        *_time(s),
        *_method(s),
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
            f"{none}: {base['mean']:.4f} bits per byte over {_count(base['runs'], 'run')}; noise {spread}."
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
    kept = s["verdicts"]["keep"]
    return f"{text}. Kept: {kept} of {_count(s['tried'], 'change')}. Noise: {spread}." + running


def _cost(s: Mapping[str, Any]) -> str:
    cost, trials = s["cost"], s["trials"]
    rows = [
        ["Experiments", f"{s['tried']} ({_verdicts(s)})"],
        ["Trials", f"{trials['total']} trainings, {trials['ok']} of them scored"],
        ["Device time", f"{duration(cost['device_seconds'])} on {escape(s['device'])}"],
        ["From start to end", duration(s["wall_seconds"])],
    ]
    if (busy := s.get("time", {}).get("busy")) is not None:
        rows.append(["Device busy training", f"{busy:.0%}"])
    if cost["llm_calls"]:
        used = f"{cost['input_tokens']:,} tokens in, {cost['output_tokens']:,} out, ${cost['dollars']:.2f}"
        rows.append(["Proposals", f"{_count(cost['llm_calls'], 'call')}: {used}"])
    if cost["device_seconds_per_keep"]:
        per = duration(cost["device_seconds_per_keep"])
        rows.append(
            ["Per kept change", per + (f", ${cost['dollars_per_keep']:.2f}" if cost["dollars"] else "")]
        )
    return table(["Cost", ""], rows)


def _kept(s: Mapping[str, Any]) -> list[str]:
    kept = [e for e in s["experiments"] if e["verdict"] == "keep"]
    if not kept:
        return []
    rows = [
        [
            str(e["number"]),
            escape(e["hypothesis"]),
            effect(e),
            _score(e),
            str(e["trials"]),
            code(e["commit"][:10]),
        ]
        for e in kept
    ]
    head = ["#", "Change", "Gain (95% interval)", "val_bpb", "Trials", "Commit"]
    return ["## What was kept", table(head, rows, numeric=(0, 2, 3, 4)), guarded(s)]


def _take(s: Mapping[str, Any]) -> list[str]:
    if s["gain"] is None:
        return []
    branch, base = shlex.quote(s["branch"]), s["base_commit"][:10]
    commands = {
        f"git log --oneline {base}..{branch}": "one commit for each kept change",
        f"git diff {base} {branch}": "all of it at once",
        f"git merge {branch}": "take it",
        f"git switch --detach {branch} && python -m {s['task']}.train": "train it once, by hand",
    }
    width = max(len(command) for command in commands)
    lines = [f"{command:{width}}  # {what}" for command, what in commands.items()]
    return ["## Take it", fence("\n".join(lines), "sh")]


def _change(diff: str, s: Mapping[str, Any]) -> list[str]:
    if not diff.strip() or s["gain"] is None:
        return []
    lines = diff.splitlines()
    cut = f"\n\nCut after {DIFF_LINES} of {len(lines)} lines." if len(lines) > DIFF_LINES else ""
    return ["## The whole change", fence("\n".join(lines[:DIFF_LINES]), "diff") + cut]


def _failures(s: Mapping[str, Any]) -> list[str]:
    if not s["failures"]:
        return []
    rows = [
        [f["kind"], str(f["count"]), escape(f["cause"]), _numbers(f["experiments"])] for f in s["failures"]
    ]
    return ["## What failed, by cause", table(["Kind", "Times", "Cause", "Experiments"], rows, numeric=(1,))]


def _everything(s: Mapping[str, Any]) -> list[str]:
    tried = [e for e in s["experiments"] if e["number"] > 0]
    if not tried:
        return []
    rows = [
        [
            str(e["number"]),
            e["verdict"] or "open",
            _score(e),
            effect(e),
            str(e["trials"]),
            escape(e["category"] or ""),
            escape(e["hypothesis"]),
            escape(e["reason"], 160),
        ]
        for e in tried
    ]
    head = ["#", "Verdict", "val_bpb", "Gain (95% interval)", "Trials", "Kind", "Change", "Why"]
    return ["## Everything that was tried", table(head, rows, numeric=(0, 2, 3, 4))]


def _time(s: Mapping[str, Any]) -> list[str]:
    phases = s.get("time", {}).get("phases")
    if not phases:
        return []
    wall, tried = s["time"]["wall_seconds"], max(1, s["tried"])
    rows = [
        [escape(name), duration(seconds), f"{seconds / wall:.1%}", f"{seconds / tried:.1f} s"]
        for name, seconds in phases.items()
    ]
    head = ["Phase", "Time", "Share", "Per experiment"]
    said = "Proposing beside a trial costs no time, and is not counted."
    name = s["time"].get("picture")
    picture = [f"![Where the time went]({name})"] if name else []
    return ["## Where the time went", *picture, table(head, rows, numeric=(1, 2, 3)), said]


def _method(s: Mapping[str, Any]) -> list[str]:
    noise, base, best = s["noise"], s["baseline"], s["best"]
    text = (
        "Every score is validation bits per byte, computed outside the training process from the submitted "
        "weights, under the same budget for every trial. A gain is against the incumbent of its moment."
    )
    if noise["sd"] is not None:
        text += (
            " Noise is pooled over repeated trainings of the same script with different seeds "
            f"({noise['degrees_of_freedom']} degrees of freedom)."
        )
    if s["gain"] is not None:
        text += (
            f" The headline compares {_count(base['runs'], 'run')} of the starting point with "
            f"{_count(best['runs'], 'run')} of the result, by Student's t with the pooled noise; runs that "
            "only screened a candidate do not count. The runs that confirmed the last change also chose it, "
            "so expect the true gain to be slightly smaller."
        )
        text += (
            " What may be claimed comes from other seeds and other documents."
            if s["claim"]
            else " The sealed test split was not used."
        )
    config, data = s["config"], s["data"]
    rows = [["task, brief", f"{code(s['task'])}, {code(s['brief'])}"], ["device", code(s["device"])]]
    for change in s["brief_changes"]:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(change["time"]))
        rows.append(["brief changed", f"{when}, {code(change['name'])}: {escape(change['text'], 120)}"])
    rows += [["started from", code(s["base_commit"])], ["tip", code(s["tip_commit"])]]
    measured = {k: config[k] for k in MEASURED if k in config}
    rows += [[escape(k), code(str(v))] for k, v in flatten(measured).items()]
    rows += [
        [f"data: {escape(k)}", code(str(v))] for k, v in flatten(data).items() if not isinstance(v, list)
    ]
    again = _again(config)
    return ["## How it was measured", text, table(["", ""], rows), again]


def _again(config: Mapping[str, Any]) -> str:
    overrides = config.get("overrides")
    if not isinstance(overrides, Sequence) or isinstance(overrides, str):
        return ""
    others = [shlex.quote(str(o)) for o in overrides if not str(o).startswith("name=")]
    return "To run the same search again:\n\n" + fence(
        " ".join(["autoresearch run name=NAME", *others]), "sh"
    )


def effect(row: Mapping[str, Any]) -> str:
    """An experiment's gain with its interval: "+0.0123 (+0.0100 to +0.0146)"."""
    if row["effect"] is None:
        return "–"
    text = f"{row['effect']:+.4f}"
    return (
        text
        if row["interval"] is None
        else f"{text} ({row['interval'][0]:+.4f} to {row['interval'][1]:+.4f})"
    )


def _score(row: Mapping[str, Any]) -> str:
    return "–" if row["score"] is None else f"{row['score']:.4f}"


def _verdicts(s: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {SAID[name]}" for name, count in s["verdicts"].items() if count) or "none"


def _numbers(numbers: Sequence[int], most: int = 12) -> str:
    shown = ", ".join(str(n) for n in numbers[:most])
    return shown + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
