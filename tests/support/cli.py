"""The command line inside the process of the tests, which has imported everything already."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from autoresearch.cli import main


def environment() -> dict[str, str]:
    """Ours, without a key, and without the store of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if k not in ("ANTHROPIC_API_KEY", "MLFLOW_TRACKING_URI")}
    return {**kept, "COLUMNS": "100", "NO_COLOR": "1"}


def inside(folder: Path, *arguments: str, code: int = 0) -> str:
    """What a command prints that is run in a folder; it must end with the given exit code."""
    ended, said = outcome(folder, *arguments)
    assert ended == code, said
    return said


def outcome(folder: Path, *arguments: str) -> tuple[object, str]:
    """The exit code of a command that is run in a folder, and what it prints."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["autoresearch", *arguments])
        for key in {*os.environ} - {*environment()}:
            patch.delenv(key)
        try:
            main()
        except SystemExit as exit:
            return exit.code, said.getvalue()
    return 0, said.getvalue()
