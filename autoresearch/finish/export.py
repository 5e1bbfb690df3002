"""A whole search in one file, and back: journal, messages, losses, report, commits with their history.

The file is a zip:

    search.json        format, name, version of the tool, refs
    search/...         the folder of the search without what it can make again; databases as they are now
    commits.bundle     its branches and candidates, as `git bundle` writes them

It opens in any repository, or in a new one. It may come from somebody else: only files with known names are
taken out of it, each below the folder of the search; git checks every object; no ref and no folder that is
there is overwritten; the report is left inside, a person writes a new one. Settings in it can name programs
to run, so a person is told to look at them before the search goes on. Not covered: prepared data, which are
prepared again from their source, and MLflow, which `sync` fills.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from autoresearch import __version__
from autoresearch.errors import UserError
from autoresearch.report.page import write_page
from autoresearch.store.connection import JOURNAL, open_read_only
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.types import Plain

FORMAT = 1
ABOUT, FOLDER, COMMITS = "search.json", "search", "commits.bundle"

DATABASES = (JOURNAL, "inbox.db", "calls.db")
"""Copied by SQLite, so that the copy is whole while a search runs."""

TAKEN = re.compile(
    r"(journal|inbox|calls)\.db|study\.log|(losses|claims)(/\w[\w.-]*)+\.npy"
    r"|report/\w[\w.-]*\.(html|md|png|svg|json)"
)
"""Files of a search's folder that belong into the file, relative to it; no part begins with a dot."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
REF = re.compile(r"refs/(heads/autoresearch/(?P<branch>[\w.-]+)|autoresearch/(?P<name>[\w.-]+)(/[\w.-]+)+)")
COMMIT = re.compile(r"[0-9a-f]{40,64}")
MOST_BYTES = 64 << 30
"""A file that unpacks to more is refused."""


@dataclass(frozen=True)
class About(Plain):
    """What the file says of itself.

    Attributes:
        format: Version of its form.
        name: Of the search.
        version: Of the tool that wrote it.
        base: The commit that the search began with.
        refs: Names of the refs of its commits.
    """

    format: int
    name: str
    version: str
    base: str
    refs: tuple[str, ...]


def export_search(folder: Path, repository: Repository, target: Path) -> int:
    """Write a search into one file; it may run meanwhile.

    Args:
        folder: Of the search.
        repository: With its commits.
        target: The file, which must not exist.

    Returns:
        Its size in bytes.

    Raises:
        UserError: If the file exists, or git has lost the branch.
    """
    if target.exists():
        raise UserError(f"{target} exists already.", "Name another file: --to FILE")
    with Journal.of(folder) as journal:
        write_page(journal, repository)
        info = journal.info()
    refs = sorted(_refs(repository, info.name))
    if not refs:
        raise UserError(
            f"Git has no commit of {info.name}.",
            f"Try something first, or make lost commits again: autoresearch sync --git name={info.name}",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as name:
        place = Path(name)
        repository.bundle(place / COMMITS, refs)
        about = About(FORMAT, info.name, __version__, info.base_commit, tuple(refs))
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as file:
            file.writestr(ABOUT, json.dumps(asdict(about), indent=1) + "\n")
            file.write(place / COMMITS, COMMITS)
            for path in _belonging(folder):
                source = (
                    _copied(folder / path, place / path.name) if path.name in DATABASES else folder / path
                )
                file.write(source, f"{FOLDER}/{path.as_posix()}")
    partial.rename(target)
    return target.stat().st_size


def _refs(repository: Repository, name: str) -> dict[str, str]:
    """The branch and the candidates of a search."""
    return repository.refs(f"refs/heads/autoresearch/{name}") | repository.refs(f"refs/autoresearch/{name}")


def _belonging(folder: Path) -> Iterator[PurePosixPath]:
    """Files of a search that belong into the file."""
    for path in sorted(folder.rglob("*")):
        inside = PurePosixPath(path.relative_to(folder))
        if TAKEN.fullmatch(str(inside)) and path.is_file() and not path.is_symlink():
            yield inside


def _copied(database: Path, target: Path) -> Path:
    """A whole copy of a database that others may write meanwhile."""
    with open_read_only(database) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    return target


def read_about(path: Path) -> About:
    """What an exported file says of itself.

    Raises:
        UserError: If it is none, or was written by a newer version.
    """
    try:
        with zipfile.ZipFile(path) as file:
            about = About.from_dict(json.loads(file.read(ABOUT)))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} is no exported search: {why}.", "autoresearch export writes one.") from None
    if about.format > FORMAT:
        raise UserError(f"{path} was written by autoresearch {about.version}.", "Upgrade this one.")
    refs = [REF.fullmatch(ref) for ref in about.refs]
    ours = all(ref and about.name in (ref["branch"], ref["name"]) and ".." not in ref[0] for ref in refs)
    if not (NAME.fullmatch(about.name) and COMMIT.fullmatch(about.base) and refs and ours):
        raise UserError(f"{path} names what is not of its search.", "Ask for it to be exported again.")
    return about


def unpack(path: Path, folder: Path) -> None:
    """Take the files of a search out of an exported file into a new folder; the report stays inside.

    Raises:
        UserError: If the folder exists, or the file unpacks to too much.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already.", "Choose another folder of searches: runs=FOLDER")
    with zipfile.ZipFile(path) as file:
        found = {entry: entry.filename.removeprefix(f"{FOLDER}/") for entry in file.infolist()}
        wanted = {
            entry: name
            for entry, name in found.items()
            if name != entry.filename and TAKEN.fullmatch(name) and not name.startswith("report/")
        }
        if sum(entry.file_size for entry in wanted) > MOST_BYTES:
            raise UserError(
                f"{path} unpacks to more than {MOST_BYTES >> 30} GB.", "It is no exported search."
            )
        try:
            for entry, name in wanted.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(entry) as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
        except (OSError, zipfile.BadZipFile, EOFError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"{path} cannot be unpacked: {error}.", "Copy it again.", code=3) from None


def import_search(path: Path, repository: Repository, runs: Path) -> Path:
    """Open an exported search in a repository.

    Args:
        path: The exported file.
        repository: Gets its commits, under the names that they had.
        runs: Gets its folder.

    Returns:
        The folder of the search.

    Raises:
        UserError: If a search or refs of its name are there already, or the file is damaged.
    """
    about = read_about(path)
    place = runs / about.name
    if _refs(repository, about.name) or place.exists():
        raise UserError(
            f"There is a search {about.name} here already.",
            f"Open it in a new folder: autoresearch import {path.name} --into FOLDER",
        )
    with _bundle(path) as bundle:
        repository.fetch(bundle, {ref: ref for ref in about.refs})
    try:
        unpack(path, place)
        with Journal.of(place) as journal:
            journal.set("lease", "")  # the process that ran it did so elsewhere
    except BaseException:
        repository.update_refs(dict.fromkeys(about.refs))
        shutil.rmtree(place, ignore_errors=True)
        raise
    return place


def new_repository(path: Path, folder: Path) -> Repository:
    """A new repository to open an exported search in; what the search began with is checked out.

    Raises:
        UserError: If the folder is not empty, or git cannot read the file.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty.", "Name a new folder: --into FOLDER")
    about = read_about(path)
    with _bundle(path) as bundle:
        return Repository.create(folder, bundle, about.refs[0], about.base)


@contextmanager
def _bundle(path: Path) -> Iterator[Path]:
    """The commits of an exported file, as a file of their own.

    Raises:
        UserError: If they cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as name:
        try:
            with zipfile.ZipFile(path) as file:
                bundle = Path(file.extract(COMMITS, name))
        except (KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} has no commits: {error}.", "Copy it again.", code=3) from None
        yield bundle
