"""What candidates leave behind: weights that nobody can change any more, and the compile cache."""

import os

import pytest

from autoresearch.execute.base import TrialEnded
from autoresearch.tasks.gpt.data import submitted_weights
from autoresearch.types import Outcome
from tests.support import toy
from tests.support.gpt import make_measurer, measure

SCRIPT = "nanomodel/train.py"
LOOK = """
    import os, pathlib
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        folder = pathlib.Path(os.environ[name])
        print("found", *(path.read_text() for path in folder.glob("*/kernel")), flush=True)
        (folder / "a").mkdir(parents=True, exist_ok=True)
        (folder / "a/kernel").write_text("by WHO")
        (folder / "a").chmod(0o500)
"""


def script(who):
    start = "    run = harness.connect()\n"
    return toy.TRAIN.replace(start, start + LOOK.replace("WHO", who))


@pytest.mark.soak
@pytest.mark.parametrize("standby", [True, False])
def test_the_start_s_cache_is_lent_and_nobody_else_s(tmp_path, standby):
    cache = toy.write_cache(tmp_path / "cache", train=50_000, validation=1_501)
    places = {"standby": tmp_path / "standby", "editable": (SCRIPT,)} if standby else {}
    trusted = toy.write_code(tmp_path / "trusted", script("the start"))
    compiled = tmp_path / "compiled"
    (tmp_path / "compiled.half/inductor").mkdir(parents=True)
    runner = make_measurer(cache, trusted=trusted, compiled=compiled, compile=True, **places)

    def found(who, number):
        code = toy.write_code(tmp_path / f"{number}/code", script(who))
        done = measure(runner, code, tmp_path / f"{number}/scratch")
        assert done.outcome is Outcome.OK, done
        return [line.removeprefix("found ") for line in done.log.splitlines() if line.startswith("found")]

    assert not (tmp_path / "compiled.half").exists(), "what a killed runner had begun to keep"
    try:
        assert found("a candidate", 1) == ["found", "found"] and not compiled.exists()
        assert found("the start", 2) == ["found", "found"] and compiled.exists()
        assert found("a thief", 3) == ["by the start"] * 2
        assert found("a candidate", 4) == ["by the start"] * 2
    finally:
        runner.close()
    assert {path.read_text() for path in compiled.glob("*/a/kernel")} == {"by the start"}


def test_weights_are_sealed_and_belong_to_nobody_else(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"x" * 9_000_000)
    with submitted_weights(tmp_path, 10_000_000) as fd:
        (tmp_path / "weights.pt").write_bytes(b"changed")
        assert os.pread(fd, 10_000_000, 0) == b"x" * 9_000_000
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"y", 0)
    (tmp_path / "again").hardlink_to(tmp_path / "weights.pt")
    with pytest.raises(TrialEnded, match="of its own"):
        submitted_weights(tmp_path, 10_000_000)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.touch(),
        lambda path: path.write_bytes(b"x" * 101),
    ],
    ids=["missing", "folder", "fifo", "empty", "large"],
)
def test_weights_must_be_a_plain_file(tmp_path, make):
    make(tmp_path / "weights.pt")
    with pytest.raises(TrialEnded) as caught:
        submitted_weights(tmp_path, 100)
    assert caught.value.outcome is Outcome.INVALID


def test_a_scratch_folder_turned_into_a_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/weights.pt").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(TrialEnded):
        submitted_weights(tmp_path / "link", 100)
