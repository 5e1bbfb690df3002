import os
from pathlib import Path

import pytest

from autoresearch.tasks.command.artifact import ArtifactError, collect, pack, unpack


@pytest.fixture
def left(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "weights.npz").write_bytes(b"12345")
    (folder / "deep" / "er" / "né 1.txt").write_text("x")
    return folder


def test_plain_files_are_copied_and_kept_in_one_file(left: Path, tmp_path: Path) -> None:
    assert collect(left, tmp_path / "copy", 100) == 6
    pack(tmp_path / "copy", tmp_path / "kept.weights")
    unpack(tmp_path / "kept.weights", tmp_path / "again")
    for folder in ("copy", "again"):
        found = {
            p.relative_to(tmp_path / folder).as_posix() for p in (tmp_path / folder).rglob("*") if p.is_file()
        }
        assert found == {"weights.npz", "deep/er/né 1.txt"}
        assert (tmp_path / folder / "weights.npz").read_bytes() == b"12345"


def spoil(left: Path, how: str) -> None:
    match how:
        case "link":
            (left / "x").symlink_to("/etc/passwd")
        case "folder link":
            (left / "x").symlink_to("/etc", target_is_directory=True)
        case "pipe":
            os.mkfifo(left / "x")
        case "socket":
            import socket

            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(left / "x"))
        case "newline":
            (left / "a\nMETRIC loss=0").write_text("")
        case "escape":
            (left / "a\x1b[2J").write_text("")
        case "no text":
            Path(os.fsdecode(os.fsencode(left) + b"/\xff")).write_text("")
        case "large":
            (left / "x").write_bytes(bytes(101))
        case "sparse":
            with (left / "x").open("wb") as file:
                file.truncate(1 << 40)
        case "many":
            for number in range(10_001):
                (left / str(number)).touch()
        case "deep":
            (left / "/".join("d" * 20)).mkdir(parents=True)


@pytest.mark.parametrize(
    "how",
    [
        "link",
        "folder link",
        "pipe",
        "socket",
        "newline",
        "escape",
        "no text",
        "large",
        "sparse",
        "many",
        "deep",
    ],
)
def test_anything_else_is_refused(left: Path, tmp_path: Path, how: str) -> None:
    spoil(left, how)
    with pytest.raises(ArtifactError) as refused:
        collect(left, tmp_path / "copy", 100)
    assert "\n" not in str(refused.value) and not refused.value.absent


def test_what_is_left_is_a_folder_with_something_in_it(left: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(left, target_is_directory=True)
    (tmp_path / "empty").mkdir()
    for number, name in enumerate(("link", "empty", "none")):
        with pytest.raises(ArtifactError) as refused:
            collect(tmp_path / name, tmp_path / f"copy{number}", 100)
        assert refused.value.absent
