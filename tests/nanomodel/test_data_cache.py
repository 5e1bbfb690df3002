"""Prepared folders that are damaged, of another format, or not there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nanomodel.data import DataError, DataSpec, Prepared, open_cache, prepare
from nanomodel.data.__main__ import main as command
from nanomodel.data.staging import locked, staged, sweep


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("cache")
    text = "\n\n".join(" ".join(f"{n * n * k:x}" for k in range(1, 100)) for n in range(1, 400))
    (folder / "text.txt").write_text(text)
    spec = DataSpec("file", 300, 0.1, 0.1, 10**6, 10**6, 10**8, str(folder / "text.txt"), document_bytes=1024)
    return prepare(spec, folder)


@pytest.fixture
def copy(whole: Prepared, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.path, tmp_path / "copied elsewhere"))


def test_a_copy_opens_and_is_whole(copy: Path, whole: Prepared):
    data = open_cache(copy)
    data.verify()
    assert data.key == whole.key and (data.token_bytes == whole.token_bytes).all()


def test_tokens_are_mapped_and_read_only(copy: Path):
    tokens = open_cache(copy).tokens("train")
    assert isinstance(tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_ids_below_the_separator_are_raw_bytes(copy: Path):
    data = open_cache(copy)
    assert data.vocabulary[:255] == tuple(bytes([i]) for i in range(255)) and data.vocabulary[255] == b""
    assert data.token_bytes.dtype == np.uint16 and data.token_bytes[255] == 0
    assert [len(word) for word in data.vocabulary] == data.token_bytes.tolist()
    assert len(set(data.vocabulary)) == data.vocab


@pytest.mark.parametrize("name", ["train.bin", "validation.bin", "test.bin"])
@pytest.mark.parametrize("change", [-2, 3])
def test_a_wrong_size_is_found_when_opening(copy: Path, name: str, change: int):
    raw = (copy / name).read_bytes()
    (copy / name).write_bytes(raw[:change] if change < 0 else raw + b"x" * change)
    with pytest.raises(DataError, match=f"{name} has {len(raw) + change} bytes, not {len(raw)}") as caught:
        open_cache(copy)
    assert "prepare the data again" in caught.value.hint


@pytest.mark.parametrize("name", ["train.bin", "token_bytes.npy", "tokenizer.json"])
def test_a_missing_file_is_found_when_opening(copy: Path, name: str):
    (copy / name).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        open_cache(copy)


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"format": 1}'])
def test_a_damaged_description_is_found_when_opening(copy: Path, damage: str):
    (copy / "meta.json").write_text(damage)
    with pytest.raises(DataError, match="cannot be read"):
        open_cache(copy)


def test_a_tokenizer_of_another_vocabulary_is_found_when_opening(copy: Path):
    np.save(copy / "token_bytes.npy", np.ones(256, np.uint16))
    with pytest.raises(DataError, match="does not fit"):
        open_cache(copy)


def test_changed_contents_are_found_when_verifying(copy: Path):
    raw = bytearray((copy / "test.bin").read_bytes())
    raw[10] ^= 1
    (copy / "test.bin").write_bytes(raw)
    with pytest.raises(DataError, match=r"test\.bin is not what was prepared"):
        open_cache(copy).verify()


def test_a_newer_format_is_refused(copy: Path):
    meta = json.loads((copy / "meta.json").read_text())
    (copy / "meta.json").write_text(json.dumps({**meta, "format": 2}))
    with pytest.raises(DataError, match="format 2; this version reads 1"):
        open_cache(copy)


def test_no_prepared_data(tmp_path: Path):
    with pytest.raises(DataError, match="no prepared data") as caught:
        open_cache(tmp_path / "nothing")
    assert "prepare --cache" in caught.value.hint


def test_there_are_three_splits(copy: Path):
    with pytest.raises(DataError, match="no split 'dev'"):
        open_cache(copy).tokens("dev")


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path):
    with staged(tmp_path, "good") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "good").exists()
    assert (tmp_path / "good" / "file").read_text() == "x"
    with pytest.raises(RuntimeError, match="stop"), staged(tmp_path, "bad"):
        raise RuntimeError("stop")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        ".preparing",
        "good",
        "good/file",
    }


def test_sweeping_takes_the_dead_and_leaves_the_living(tmp_path: Path):
    dead, living = tmp_path / ".preparing" / "dead", tmp_path / ".preparing" / "living"
    dead.mkdir(parents=True)
    (dead / "file").write_text("x")
    with locked(tmp_path, "living", pytest.fail):
        living.mkdir()
        sweep(tmp_path)
        assert living.exists() and not dead.exists()
    sweep(tmp_path)
    assert not living.exists()


def prepared(path: Path | str, vocab: int = 300) -> list[str]:
    return [
        "prepare",
        "--cache=x",
        "--corpus=prepared",
        f"--path={path}",
        f"--vocab={vocab}",
        "--validation-tokens=9",
    ]


def test_a_copied_folder_is_found_without_its_corpus(copy: Path, capsys: pytest.CaptureFixture[str]):
    assert command(prepared(copy)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(copy) and found["vocab"] == 300


@pytest.mark.parametrize(
    ("change", "vocab", "said"),
    [
        ("none", 512, "vocabulary of 300, not 512"),
        ("cut", 300, "is not what was prepared"),
        ("gone", 300, "no prepared"),
    ],
)
def test_a_copy_that_will_not_do_is_refused(
    copy: Path, change: str, vocab: int, said: str, capsys: pytest.CaptureFixture[str]
):
    if change == "cut":
        train = np.memmap(copy / "train.bin", np.uint16, "r+")
        train[5] ^= 1
        train.flush()
    assert command(prepared(copy / "nowhere" if change == "gone" else copy, vocab)) == 2
    assert said in capsys.readouterr().err
