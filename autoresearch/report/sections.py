"""The parts of the report, each as Markdown made from a summary.

A part is a list of paragraphs, empty where there is nothing to say. Everything written by candidates or
proposers is escaped. Not covered: their order, and what is said at the top (`report`).
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.report.guard_text import guarded
from autoresearch.report.page import code, escape, fence, table
from autoresearch.text import duration, flatten

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


def cost(s: Mapping[str, Any]) -> str:
    """What the search cost."""
    spent, trials = s["cost"], s["trials"]
    rows = [
        ["Experiments", f"{s['tried']} ({_verdicts(s)})"],
        ["Trials", f"{trials['total']} trainings, {trials['ok']} of them scored"],
        ["Device time", f"{duration(spent['device_seconds'])} on {escape(s['device'])}"],
        ["From start to end", duration(s["wall_seconds"])],
    ]
    if (busy := s.get("time", {}).get("busy")) is not None:
        rows.append(["Device busy training", f"{busy:.0%}"])
    if spent["llm_calls"]:
        used = f"{spent['input_tokens']:,} tokens in, {spent['output_tokens']:,} out, ${spent['dollars']:.2f}"
        rows.append(["Proposals", f"{count(spent['llm_calls'], 'call')}: {used}"])
    if spent["device_seconds_per_keep"]:
        per = duration(spent["device_seconds_per_keep"])
        rows.append(
            ["Per kept change", per + (f", ${spent['dollars_per_keep']:.2f}" if spent["dollars"] else "")]
        )
    return table(["Cost", ""], rows)


def proposers(s: Mapping[str, Any]) -> str:
    """Who proposed what, where several did."""
    if len(s["proposers"]) < 2:
        return ""
    rows = [
        [
            escape(name, 60),
            str(row["tried"]),
            str(row["kept"]),
            f"{row['gain']:+.4f}",
            f"${row['dollars']:.2f}",
        ]
        for name, row in s["proposers"].items()
    ]
    return table(["Proposer", "Tried", "Kept", "Gain", "Cost"], rows, numeric=(1, 2, 3, 4))


def kept(s: Mapping[str, Any]) -> list[str]:
    """What was kept, and what the guards say."""
    keeps = [e for e in s["experiments"] if e["verdict"] == "keep"]
    if not keeps:
        return []
    rows = [
        [
            str(e["number"]),
            escape(e["hypothesis"]),
            e["change"] or "–",
            _evidence(e),
            _score(e),
            code(e["commit"][:10]),
        ]
        for e in keeps
    ]
    head = ["#", "Change", "Change of val_bpb", "Evidence", "val_bpb", "Commit"]
    return ["## What was kept", table(head, rows, numeric=(0, 2, 3, 4)), guarded(s)]


def take(s: Mapping[str, Any]) -> list[str]:
    """How to take it over."""
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


def change(diff: str, s: Mapping[str, Any]) -> list[str]:
    """Everything that was kept, as one diff."""
    if not diff.strip() or s["gain"] is None:
        return []
    lines = diff.splitlines()
    cut = f"\n\nCut after {DIFF_LINES} of {len(lines)} lines." if len(lines) > DIFF_LINES else ""
    return ["## The whole change", fence("\n".join(lines[:DIFF_LINES]), "diff") + cut]


def failures(s: Mapping[str, Any]) -> list[str]:
    """What failed, by cause."""
    if not s["failures"]:
        return []
    rows = [
        [f["kind"], str(f["count"]), escape(f["cause"]), _numbers(f["experiments"])] for f in s["failures"]
    ]
    return ["## What failed, by cause", table(["Kind", "Times", "Cause", "Experiments"], rows, numeric=(1,))]


def everything(s: Mapping[str, Any]) -> list[str]:
    """Every experiment in a row."""
    tried = [e for e in s["experiments"] if e["number"] > 0]
    if not tried:
        return []
    rows = [
        [
            str(e["number"]),
            e["verdict"] or "open",
            _score(e),
            e["change"] or "–",
            _evidence(e),
            escape(e["category"] or ""),
            escape(e["hypothesis"]),
            escape(e["reason"], 160),
        ]
        for e in tried
    ]
    head = ["#", "Verdict", "val_bpb", "Change of val_bpb", "Evidence", "Kind", "Change", "Why"]
    return ["## Everything that was tried", table(head, rows, numeric=(0, 2, 3, 4))]


def time_spent(s: Mapping[str, Any]) -> list[str]:
    """Where the time went."""
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


def method(s: Mapping[str, Any]) -> list[str]:
    """How it was measured, and how to do it again."""
    noise, base, best = s["noise"], s["baseline"], s["best"]
    text = (
        "Every score is validation bits per byte, computed outside the training process from the submitted "
        "weights, under the same budget for every trial. A change is against the incumbent of its moment, "
        "and less is better; after ± stands half of its 95% interval. Evidence is the judge's test "
        "statistic: z, or where the strict judge keeps, an e-value."
    )
    if noise["sd"] is not None:
        text += (
            " Noise is pooled over repeated trainings of the same script with different seeds "
            f"({noise['degrees_of_freedom']} degrees of freedom)."
        )
    if s["gain"] is not None:
        text += (
            f" The headline compares {count(base['runs'], 'run')} of the starting point with "
            f"{count(best['runs'], 'run')} of the result, "
        )
        text += (
            "as the judge estimates them: what selection is expected to have added is taken out, runs from "
            "before a change of the machine do not count, and the interval knows of the validation set."
            if s["gain"]["judged"]
            else "by Student's t with the pooled noise; runs that only screened a candidate do not count. "
            "The runs that confirmed the last change also chose it, so expect the true gain to be slightly "
            "smaller."
        )
        text += (
            " What may be claimed comes from other seeds and other documents."
            if s["claim"]
            else " The sealed test split was not used."
        )
    config, data = s["config"], s["data"]
    rows = [["task, brief", f"{code(s['task'])}, {code(s['brief'])}"], ["device", code(s["device"])]]
    for edit in s["brief_changes"]:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(edit["time"]))
        rows.append(["brief changed", f"{when}, {code(edit['name'])}: {escape(edit['text'], 120)}"])
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


def _evidence(row: Mapping[str, Any]) -> str:
    return "–" if row["evidence"] is None else f"{row['evidence']:.2f}"


def _score(row: Mapping[str, Any]) -> str:
    return "–" if row["score"] is None else f"{row['score']:.4f}"


def _verdicts(s: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {SAID[name]}" for name, count in s["verdicts"].items() if count) or "none"


def _numbers(numbers: Sequence[int], most: int = 12) -> str:
    shown = ", ".join(str(n) for n in numbers[:most])
    return shown + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def count(number: int, noun: str) -> str:
    """A number and its noun: "1 run", "2 runs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
