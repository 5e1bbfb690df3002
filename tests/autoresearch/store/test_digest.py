from pathlib import Path

import pytest

from autoresearch.store.files import digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("A = 1\n")
    (tmp_path / "pkg" / "b.py").write_text("B = 1\n")
    return tmp_path


def test_the_same_tree_has_the_same_digest(tree: Path) -> None:
    assert digest(tree) == digest(tree)


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename", "link", "folder"])
def test_any_change_is_seen(tree: Path, change: str) -> None:
    before, file = digest(tree), tree / "pkg" / "a.py"
    if change == "edit":
        file.write_text("A = 2\n")
    elif change == "add":
        (tree / "pkg" / "c.py").touch()
    elif change == "remove":
        file.unlink()
    elif change == "rename":
        file.rename(tree / "pkg" / "z.py")
    elif change == "link":
        file.unlink()
        file.symlink_to("b.py")
    else:
        (tree / "empty").mkdir()
    assert digest(tree) != before
