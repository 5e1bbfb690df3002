"""What a shell offers after Tab: keys and choices of settings, names of searches, numbers of experiments.

Answers in a fraction of a second, so it reads names of files and one column of a journal, and composes
nothing. It never fails: where nothing is known, nothing is offered. bash cuts words at "=", so the value of a
key may come as a word of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import typer

FIRST = ("name", "runs", "experiments", "brief")
"""Keys that are offered first."""


def settings(args: list[str], incomplete: str) -> list[str]:
    """Completions of `key=value`; Typer calls this with the words before, and the word so far."""
    key, equals, value = incomplete.partition("=")
    prefix = f"{key}="
    if incomplete == "=" and args:  # bash, right after the sign
        key, equals, value, prefix = args[-1], "=", "", ""
    elif args[-1:] == ["="] and len(args) > 1:
        key, equals, value, prefix = args[-2], "=", incomplete, ""
    if equals:
        return [f"{prefix}{known}" for known in _values(key) if known.startswith(value)]
    from autoresearch.config.explain import keys

    every = [*FIRST, *(k for k in keys() if k not in FIRST)]
    return [f"{known}=" for known in every if known.startswith(key)]


def experiments(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Numbers of the experiments of the search that is named, or of the one that changed last."""
    words = "".join(f" {word}" for word in args).replace(" = ", "=").split()
    name = next((word.removeprefix("name=") for word in reversed(words) if word.startswith("name=")), "")
    found = [path for path in _journals() if not name or path.parent.name == name]
    if not found:
        return []
    latest = max(found, key=lambda path: path.stat().st_mtime)
    try:
        with closing(sqlite3.connect(f"{latest.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as db:
            rows = db.execute("SELECT number FROM experiments ORDER BY number").fetchall()
    except sqlite3.Error:
        return []
    return [str(number) for (number,) in rows if str(number).startswith(incomplete)]


def numbered(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Numbers of experiments, then settings."""
    return [*experiments(ctx, args, incomplete), *settings(args, incomplete)]


def searches(incomplete: str) -> list[str]:
    """Names of searches."""
    return sorted(path.parent.name for path in _journals() if path.parent.name.startswith(incomplete))


def _values(key: str) -> Iterable[str]:
    """What a key may be set to, where that is a list."""
    from autoresearch.config.files import CONFIGS, folders

    if key == "name":
        return searches("")
    if key == "brief":
        return sorted({path.stem for folder in folders() for path in (folder / "briefs").glob("*.md")})
    if (CONFIGS / key).is_dir() and "." not in key:
        return sorted({path.stem for folder in folders() for path in (folder / key).glob("*.yaml")})
    return ()


def _journals() -> Iterator[Path]:
    """Journals of the usual folder of searches, at the top of the repository."""
    here = Path.cwd()
    top = next((path for path in (here, *here.parents) if (path / ".git").exists()), here)
    return (top / "runs").glob("*/journal.db")
