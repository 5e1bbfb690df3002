"""Looks at a repository, guesses what a task in it would be, and writes that down for a person to correct.

Guesses come from names and texts of committed files; nothing is run. What cannot be guessed is left to be
asked. The comments of the file that is written are those of `configs/task/command.yaml`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from autoresearch.config import CONFIGS
from autoresearch.edit.knobs import read_values
from autoresearch.edit.python import UNPARSABLE
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.command.review import HIGHER, LOWER

RUNNERS = {".py": "python", ".sh": "sh", ".R": "Rscript", ".jl": "julia", ".js": "node", ".rb": "ruby"}
"""Ending of a script -> the program that runs it."""
LIKELY = ("train", "main", "run", "fit", "experiment", "bench", "makemore", "plot", "example")
"""Beginnings of the names of scripts that are worth running, most likely first."""
HELD, KINDS = (
    "val(?:id|idation)?|test|dev|eval",
    "loss|bpb|nll|perplexity|error|rmse|mse|acc(?:uracy)?|auc|f1",
)
SAID = re.compile(rf"((?:{HELD})?[ _]?(?:{KINDS}|score))(\s*[:=]?\s*)\{{", re.IGNORECASE)
"""A metric in an f-string or format string, and what stands before its value."""
ENVIRONMENTS = (".venv", "venv", "env")
OWN_SEED = re.compile(r"""["']--seed["']""")
TAKEN_AS_KNOB = re.compile(
    r"^(?!.*(seed|iter|step|epoch|interval|log|device|dim|size$))[A-Za-z]\w*$", re.IGNORECASE
)


KNOBS = """
The line `knobs:` above names the constants that `proposer=optuna` may tune, from a quarter to four times
their value. Say more in the script: `LR = 0.01  # 0.001..0.1 log`. Other proposers may change anything.
"""
BRIEF = """{front}# Brief: a {better} {metric}

## Goal

Make {metric} {better}. Files that may change: {files}. Of two changes with the same gain, prefer the smaller.
{scope}
## Where gains may be

- (what you would try first)
- (what was tried already)

## What must stay

- (what a change must not touch)
"""


@dataclass(frozen=True)
class Guess:
    """What a task in a repository might be.

    Attributes:
        scripts: Candidates for the program, most likely first.
        editable: Files that may change.
        run: The command.
        score: The command that scores what it leaves; empty if there is none.
        metric: Name of the metric; empty if not known.
        metrics: How it is said, as `task.metrics`.
        direction: "min", "max", or empty if not known.
        python: Environment of the repository; empty if it has none.
        knobs: Constants at the top of the script that could be tuned.
    """

    scripts: tuple[str, ...] = ()
    editable: tuple[str, ...] = ()
    run: str = ""
    score: str = ""
    metric: str = ""
    metrics: str = "lines"
    direction: str = ""
    python: str = ""
    knobs: tuple[str, ...] = ()


def look(repository: Repository) -> Guess:
    """What the latest commit of a repository looks like."""
    files = repository.files("HEAD", ["."])
    scripts = sorted((p for p in files if PurePosixPath(p).suffix in RUNNERS), key=_unlikely)
    scripts = [path for path in scripts if _unlikely(path)[0] < len(LIKELY)] or scripts
    python = next((name for name in ENVIRONMENTS if (repository.root / name / "bin/python").exists()), "")
    found = Guess(tuple(scripts[:8]), python=python)
    return with_script(repository, found, scripts[0]) if scripts else found


def with_script(repository: Repository, guess: Guess, script: str) -> Guess:
    """The guess with a script that a person chose: how it is run, and what it says."""
    try:
        source = repository.sources("HEAD", [script])[script]
    except UserError:
        source = ""
    run = f"{RUNNERS.get(PurePosixPath(script).suffix, '')} {script}".strip()
    if OWN_SEED.search(source):
        run += " --seed {seed}"
    metric, metrics = said_metric(source)
    return replace(
        guess,
        editable=(script,),
        run=run,
        metric=metric,
        metrics=metrics,
        direction=usual_direction(metric),
        knobs=_numbers(source) if script.endswith(".py") else (),
    )


def said_metric(source: str) -> tuple[str, str]:
    """Name of the metric that a program seems to say, and how it says it; an empty name if it says none."""
    if found := re.search(r"METRIC (\w+)=", source):
        return found[1], "lines"
    said = [
        found
        for line in source.split("\n")
        if "print" in line or "log" in line
        for found in SAID.finditer(line)
    ]
    if not said:
        return "", "lines"
    held = [found for found in said if re.match(HELD, found[1].strip(), re.I)]
    best = (held or said)[-1]
    words = best[1].strip(" _")
    return re.sub(
        r"\W+", "_", words.lower()
    ), f"regex:{re.escape(words)}{_spaces(best[2])}([-+.\\deE]+|nan|inf)"


def _spaces(between: str) -> str:
    return re.sub(r"\s+", r"\\s*", re.sub(r"[:=]", lambda sign: sign[0], between)) or r"\s*"


def usual_direction(metric: str) -> str:
    """The direction that a metric of this name usually has; empty if that is not known."""
    return "max" if HIGHER.search(metric) else "min" if LOWER.search(metric) else ""


def _unlikely(path: str) -> tuple[int, int, str]:
    """Sorts scripts: likely names first, then those near the top."""
    name = PurePosixPath(path).stem.lower()
    rank = next((i for i, start in enumerate(LIKELY) if name.startswith(start)), len(LIKELY))
    hidden = any(part.startswith(("test", ".")) for part in path.split("/"))
    return rank + (len(LIKELY) if hidden else 0), path.count("/"), path


def _numbers(source: str) -> tuple[str, ...]:
    """Positive numbers at the top of a Python program that might be tuned."""
    with suppress(*UNPARSABLE):
        values = read_values(source, 0)
        tunable = (
            n for n, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool) and v > 0
        )
        return tuple(name for name in tunable if TAKEN_AS_KNOB.match(name))
    return ()


def settings_text(guess: Guess) -> str:
    """The text of an `autoresearch.yaml`: the values of a guess, and every other key with its meaning."""
    values: dict[str, Any] = {
        "editable": list(guess.editable),
        "train": guess.run,
        "score": guess.score or None,
        "metric": guess.metric,
        "unit": guess.metric.replace("_", " "),
        "direction": guess.direction,
        "metrics": guess.metrics,
        "python": guess.python or None,
    }
    head = (
        "# Settings of autoresearch for this repository. They can be overridden: autoresearch run seed=1\n"
        "# Try them out: autoresearch check. What they mean in full: docs/tasks.md of autoresearch.\n"
        "task: command\n"
        "brief: brief.md                # what to look for, in your words\n"
    )
    return head + _filled("task", values) + _filled("budget", {})


def _filled(group: str, values: Mapping[str, object]) -> str:
    """The lines of a shipped choice of a group with other values, as an `autoresearch.yaml` has them."""
    lines = []
    for line in (CONFIGS / group / "command.yaml").read_text("utf-8").splitlines():
        found = re.fullmatch(r"(\w+):( +)(\S.*?)(\s{2,}|\s)(#.*)", line)
        if found and found[1] != "name":
            value = json.dumps(values[found[1]], ensure_ascii=False) if found[1] in values else found[3]
            lines.append(f"{f'{group}.{found[1]}: {value}':30} {found[5]}")
    return "\n".join(lines) + "\n"


def brief_text(guess: Guess) -> str:
    """The text of a brief to be edited."""
    better = "lower" if guess.direction == "min" else "higher"
    front = f"---\nknobs: {', '.join(guess.knobs)}\n---\n" if guess.knobs else ""
    scope = KNOBS if guess.knobs else ""
    return BRIEF.format(
        front=front, scope=scope, better=better, metric=guess.metric, files=", ".join(guess.editable)
    )


def write(root: Path, guess: Guess) -> Sequence[str]:
    """Write the settings, the brief, and a line in `.gitignore`; says what was written.

    Raises:
        UserError: If there are settings already.
    """
    settings = root / "autoresearch.yaml"
    if settings.exists():
        raise UserError(f"{settings} is there already.", "Edit it, or remove it and run init again.")
    settings.write_text(settings_text(guess), encoding="utf-8")
    written = ["autoresearch.yaml"]
    if not (root / "brief.md").exists():
        (root / "brief.md").write_text(brief_text(guess), encoding="utf-8")
        written.append("brief.md")
    ignore = root / ".gitignore"
    text = ignore.read_text(encoding="utf-8") if ignore.exists() else ""
    if "runs/" not in text.splitlines():
        ignore.write_text(
            text + ("" if not text or text.endswith("\n") else "\n") + "runs/\n", encoding="utf-8"
        )
        written.append(".gitignore")
    return written
