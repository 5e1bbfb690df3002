"""Every command in the documentation exists, and runs as written unless the reader is told what it needs."""

import doctest
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import autoresearch
from autoresearch import config
from autoresearch.api import handle
from autoresearch.cli import app
from autoresearch.config.explain import keys
from tests.support.cli import outcome

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").glob("**/*.md")))

READING = ("list", "status", "log", "show", "diff", "report", "config")
"""Commands within a sentence that are run too; the others there are mentions."""

MARK = re.compile(r"\((trains|serves|asks|needs [^)]+)\)")
"""What the comment of a command in a block begins with that a reader cannot run as it stands."""

OWN_KEYS = ("task.env", "proposer.argv")
"""Keys whose values are mappings or lists that a shipped file leaves out."""


def in_blocks(page: Path) -> Iterator[tuple[str, bool]]:
    """What follows `autoresearch` in blocks of code, and whether it is marked."""
    blocks = re.findall(r"^ *```(?:sh)?\n(.*?)^ *```", page.read_text("utf-8"), re.M | re.S)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        code, _, comment = line.partition("#")
        for part in re.split(r"&&|;|\|", code):
            for command in re.findall(r"^\s*(?:\.venv/bin/|python -m )?autoresearch\s+(\S.*)", part):
                yield " ".join(command.split()), bool(MARK.match(comment.strip()))


def in_sentences(page: Path) -> Iterator[str]:
    """What follows `autoresearch` in code within a sentence."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for command in re.findall(r"`(?:\.venv/bin/)?autoresearch\s([^`]+)`", text):
        yield " ".join(command.split())


EVERY = sorted(
    {(page.name, command) for page in PAGES for command, _ in in_blocks(page)}
    | {(page.name, command) for page in PAGES for command in in_sentences(page)}
)


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


def test_commands_without_a_mark_run_as_written(
    documented_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(documented_search, tmp_path / "repo"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    asked = {command for page in PAGES for command, marked in in_blocks(page) if not marked}
    said = {command for page in PAGES for command in in_sentences(page)}
    asked |= {c for c in said if c.split()[0] in READING and not re.search("[A-Z]{3}", c)}
    assert len(asked) > 30 and any(command.startswith("idea add") for command in asked)
    ended = {command: outcome(root, *shlex.split(command)) for command in sorted(asked)}
    wrong = {command: said for command, (code, said) in ended.items() if code}
    assert not wrong, wrong


def test_examples_of_the_python_api_give_what_they_say(
    documented_search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(documented_search, tmp_path / "repo"))
    page = (ROOT / "docs" / "agents.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(code, {})
    assert autoresearch.open().folder.name == "night1"
    found = doctest.DocTestFinder(recurse=False).find(handle.SearchHandle, globs={})
    assert found and not sum(doctest.DocTestRunner().run(test).failed for test in found)


def test_what_may_change_and_what_a_name_may_hold_is_told() -> None:
    page = " ".join((ROOT / "docs" / "using.md").read_text("utf-8").split())
    fixed = page.partition("**What may change")[2].partition("**On a busy machine**")[0]
    for key in config.FIXED:
        assert f"`{key}`" in fixed.partition(" stay")[0]
    for options in config.LIMITS.values():
        assert all(f"`budget.{option}`" in fixed for option in options)
    assert all(f"`{name}`" in page.lower() for name in config.RESERVED)
    names = page.partition("**What a name may hold**")[2]
    assert "64 at most" in names and "{0,63}" in str(config.Config.model_fields["name"].metadata)
