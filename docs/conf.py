"""Builds the documentation site from the Markdown pages here: `make docs`. It needs no network.

Two pages are made of the program itself: `commands.md` of the help of each command, `settings.md` of the
comments in `configs/`. On both, a comment `<!-- name -->` says where.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import typer

from autoresearch import __version__
from autoresearch.cli import app as commands
from autoresearch.config.explain import settings as known
from autoresearch.config.files import CONFIGS

project, author, release = "autoresearch", "the authors", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Machine-learning research while you sleep, with results you can believe.",
    "fixed_sidebar": False,
    "page_width": "1080px",
    "body_max_width": "none",
}
html_show_sourcelink = html_copy_source = False
html_css_files = ["site.css"]
html_static_path = ["static"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # shell lines with a place holder are no Python
default_role = "code"  # our docstrings write `name`
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
napoleon_use_ivar = True


def command_pages() -> Iterator[str]:
    """The help of each command, as Markdown."""
    os.environ["COLUMNS"] = "100"
    group: Any = typer.main.get_command(commands)
    for name, command in group.commands.items():
        names = [f"{name} {part}" for part in command.commands] if hasattr(command, "commands") else [name]
        for full in names:
            said = io.StringIO()
            with redirect_stdout(said):
                group.main([*full.split(), "--help"], prog_name="autoresearch", standalone_mode=False)
            yield f"## {full}\n\n```text\n{said.getvalue().strip()}\n```\n"


def setting_rows() -> Iterator[str]:
    """Each setting with its default and its meaning, as rows of a Markdown table."""
    yield "| setting | default | meaning |\n|---|---|---|"
    for setting in known(["name=NAME"]):
        if (choices := CONFIGS / setting.key).is_dir():
            names = ", ".join(f"`{path.stem}`" for path in sorted(choices.glob("*.yaml")))
            yield f"| `{setting.key}` | `{setting.value}` | one of {names} |"
            continue
        value = "" if setting.value is None else str(setting.value)
        cells = (f"`{setting.key}`", f"`{value}`" if value else "", setting.comment)
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


MADE = {"commands": command_pages, "settings": setting_rows}


def fill(app: Any, page: str, source: list[str]) -> None:
    """Put what the program says into the pages that are made of it."""
    if page in MADE:
        source[0] = source[0].replace(f"<!-- {page} -->", "\n".join(MADE[page]()))


def setup(app: Any) -> None:
    """Called by Sphinx."""
    sys.argv[0] = "autoresearch"
    app.connect("source-read", fill)
