"""A search in one file, opened in another repository and in a new one."""

import json
import shutil
import zipfile
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

import autoresearch
from autoresearch.errors import UserError
from autoresearch.finish.export import COMMITS, import_search, new_repository, read_about
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease
from tests.support.cli import inside
from tests.support.stub import git, make_repository


@pytest.fixture(scope="module")
def exported(finished_search: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file of a copy of the finished search, written as if it ran."""
    root = Path(shutil.copytree(finished_search, tmp_path_factory.mktemp("exported") / "repo"))
    (root / "runs/x/weights").mkdir()
    (root / "runs/x/weights/w").write_bytes(b"x")
    with closing(Journal(root / "runs/x/journal.db")) as journal:
        journal.set("lease", Lease.ours().to_json())
    said = inside(root, "export", "name=x", "--to", "../x.zip")
    assert "autoresearch import x.zip --into FOLDER" in said
    assert "exists already" in inside(root, "export", "name=x", "--to", "../x.zip", code=2)
    return root.parent / "x.zip"


def refs(root: Path) -> str:
    return git(
        root,
        "for-each-ref",
        "--format=%(objectname) %(refname)",
        "refs/autoresearch",
        "refs/heads/autoresearch",
    )


def test_it_opens_in_a_new_folder_with_everything(exported: Path, tmp_path: Path) -> None:
    here = exported.parent / "repo"
    before = refs(here), inside(here, "log", "name=x", "--json"), inside(here, "diff", "name=x")
    losses = sorted(p.relative_to(here) for p in (here / "runs/x/losses").rglob("*.npy"))
    shutil.copy(exported, tmp_path)
    said = inside(tmp_path, "import", "x.zip", "--into", "there")
    there = tmp_path / "there"
    assert (
        "autoresearch report name=x" in said and git(there, "status", "--porcelain", "--", "nanomodel") == ""
    )
    assert (refs(there), inside(there, "log", "name=x", "--json"), inside(there, "diff", "name=x")) == before
    assert sorted(p.relative_to(there) for p in (there / "runs/x/losses").rglob("*.npy")) == losses and losses
    assert not (there / "runs/x/weights").exists()
    with zipfile.ZipFile(exported) as file:
        assert "search/report/report.html" in file.namelist()
    assert "Not running" in inside(there, "status", "name=x")
    assert "2 commits" in inside(there, "branch", "name=x")


def test_it_opens_beside_other_searches_and_overwrites_nothing(exported: Path, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other", "print(1)\n")
    folder = import_search(exported, other, other.root / "runs")
    assert folder == other.root / "runs" / "x"
    before = refs(other.root)
    with pytest.raises(UserError, match="There is a search x here already"):
        import_search(exported, other, other.root / "runs")
    assert refs(other.root) == before
    with pytest.raises(UserError, match="is not empty"):
        new_repository(exported, other.root)


def test_a_notebook_opens_it_as_it_is(exported: Path, tmp_path: Path) -> None:
    frames = autoresearch.open(str(exported))
    assert len(frames.experiments) == 6 and frames.summary.info.name == "x"
    for steer in (lambda: frames.note("hello"), frames.pause, lambda: frames.attempt("wider", "diff")):
        with pytest.raises(UserError, match="read only"):
            steer()


def changed(exported: Path, place: Path, **files: bytes) -> Path:
    """The same file with some of its parts replaced, or added."""
    made = place / "changed.zip"
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            if name not in files:
                new.writestr(name, old.read(name))
        for name, content in files.items():
            new.writestr(name, content)
    return made


def test_what_a_stranger_put_into_it_stays_inside(exported: Path, tmp_path: Path) -> None:
    evil = {
        "search/../../evil": b"x",
        "search/losses/../../evil.npy": b"x",
        "search/report/report.html": b"evil",
    }
    evil |= {"search/trusted/a.py": b"x", "search/losses/.hidden.npy": b"x", "/search/lock": b"x"}
    other = make_repository(tmp_path / "a" / "other", "print(1)\n")
    folder = import_search(changed(exported, tmp_path, **evil), other, other.root / "runs")
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob(".hidden*"))
    assert not (folder / "trusted").exists() and not (folder / "lock").exists()
    assert not (folder / "report").exists()


@pytest.mark.parametrize(
    "about",
    [
        {"name": "../x"},
        {"refs": ["refs/heads/main"]},
        {"refs": ["refs/autoresearch/x/a:refs/heads/main"]},
        {"refs": ["refs/autoresearch/other/0001"]},
        {"refs": ["refs/autoresearch/x/../../heads/main"]},
        {"refs": []},
        {"base": "HEAD"},
        {"format": 99},
        {"unknown": 1},
    ],
)
def test_a_file_that_names_what_is_not_its_own_is_refused(
    exported: Path, tmp_path: Path, about: dict
) -> None:  # type: ignore[type-arg]
    known = {"format": 1, "name": "x", "version": "1", "base": "a" * 40, "refs": ["refs/autoresearch/x/0001"]}
    for changes, right in (({}, True), (about, False)):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
            file.writestr("search.json", json.dumps(known | changes))
        with nullcontext() if right else pytest.raises(UserError):
            read_about(tmp_path / "x.zip")


def test_a_damaged_file_leaves_nothing_behind(exported: Path, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "other", "print(1)\n")
    for files in ({COMMITS: b"no bundle"}, {"search/journal.db": b"no database"}):
        with pytest.raises((UserError, Exception)):
            import_search(changed(exported, tmp_path, **files), other, other.root / "runs")
        assert refs(other.root) == "" and not (other.root / "runs" / "x").exists()
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(UserError, match="is no exported search"):
        read_about(tmp_path / "text.zip")
    assert Repository(other.root).resolve("HEAD")
