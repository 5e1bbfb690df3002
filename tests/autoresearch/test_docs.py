"""Every command in README and docs is one that there is, and those that only read are run as written."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from autoresearch.cli import app
from autoresearch.config.explain import keys
from tests.support.cli import inside

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

READING = (
    "list",
    "status",
    "log",
    "show",
    "diff",
    "report",
    "compare",
    "branch",
    "export",
    "trace",
    "config",
)
"""Commands that need nothing but a search."""

OWN_KEYS = ("task.env", "proposer.argv")
"""Keys whose values are mappings or lists that a shipped file leaves out."""


def commands(page: Path) -> Iterator[str]:
    """What follows `autoresearch` in blocks of code, and in code within a sentence."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.M | re.S)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\|", line.partition("#")[0]):
            yield from re.findall(r"^\s*(?:\.venv/bin/|python -m )?autoresearch\s+(\S.*)", part)
    yield from re.findall(r"`autoresearch ([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


EVERY = sorted({(page.name, " ".join(command.split())) for page in PAGES for command in commands(page)})


@pytest.mark.parametrize(("page", "command"), EVERY)
def test_a_command_exists_with_its_options_and_keys(page: str, command: str) -> None:
    words = [word for word in shlex.split(command) if word not in ("...", "…")]
    if not words[0].islower() or words[0].startswith("-"):
        return  # a place holder, or an option of the whole
    group = typer.main.get_command(app)
    while words and hasattr(group, "commands"):
        assert words[0] in group.commands, f"{page}: autoresearch {command}"
        group, words = group.commands[words[0]], words[1:]
    known = {option for parameter in group.params for option in parameter.opts} | {"--help", "-h"}
    wrong = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
    assert not wrong, f"{page}: autoresearch {command}"
    given = (re.match(r"[a-z][\w.]*(?==)", word) for word in words)
    strange = [key[0] for key in given if key and key[0] not in keys() and not key[0].startswith(OWN_KEYS)]
    assert not strange, f"{page}: autoresearch {command}"


def test_those_that_read_run_as_written(done: Path) -> None:
    root = done.parent.parent
    found = {" ".join(shlex.split(command)[:3]) for page, command in EVERY if page == "README.md"}
    asked = sorted(command for command in found if command.split()[0] in READING and "FILE" not in command)
    assert len(asked) > 8
    for command in asked:
        inside(root, *command.replace(" 7", " 3").split())
