"""Settings of every test: no clock decides, since machines are shared; no GPU is seen, whatever there is."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from nanomodel.standby import uncollected

# Before anything loads torch: what it sees decides which column of a script's knobs is tested.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

# Whoever starts the tests in the background of a shell has it ignored, and so would have all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Journals, MLflow and git wait for the disk at each step. In memory they take a third of the time.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4e9:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

SLOW_MODULE = re.compile(r"^pytestmark = .*slow|\b(make_search|open_search|make_plan|inside)\(", re.MULTILINE)
"""Finds the mark, and what runs whole searches or commands, for which git is started a hundred times."""

settings.register_profile("shared", deadline=None, max_examples=100 if "CI" in os.environ else 20)
settings.load_profile("shared")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the tests import stays: the collector need not look through it while they load, nor ever after."""
    with uncollected():
        return (yield)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option behind `make quick`."""
    parser.addoption(
        "--quick", action="store_true", help="leave out slow tests of rooms that were not touched"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--quick`, does not even import a module that is slow as a whole and was not touched."""
    if not config.getoption("--quick") or not collection_path.match("test_*.py"):
        return None
    if not SLOW_MODULE.search(collection_path.read_text("utf-8")):
        return None
    return not _touched(config.rootpath) & _covered(collection_path, config.rootpath) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--quick`, keeps a slow test only if its own file, or the module that it mirrors, was touched."""
    if not config.getoption("--quick"):
        return
    root = config.rootpath
    left_out = [
        item
        for item in items
        if item.get_closest_marker("slow") and not _touched(root) & _covered(item.path, root)
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@cache
def _touched(root: Path) -> set[str]:
    """Files that differ from the last commit, untracked ones included."""
    commands = (["diff", "--name-only", "HEAD"], ["ls-files", "--others", "--exclude-standard"])
    return {
        name
        for command in commands
        for name in subprocess.run(
            ["git", *command], cwd=root, capture_output=True, text=True
        ).stdout.splitlines()
    }


def _covered(path: Path, root: Path) -> set[str]:
    """A file of tests itself, and the module that it mirrors: `tests/X/test_Y.py` mirrors `X/Y.py`."""
    path = path.relative_to(root)
    mirrored = Path(*path.parts[1:-1]) / path.name.removeprefix("test_")
    return {path.as_posix(), mirrored.as_posix()}
