"""Documents out of files, good and bad."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanomodel.data import DataError, DataSpec
from nanomodel.data import readers as readers_module
from nanomodel.data.corpora import open_corpus
from nanomodel.data.readers import BLOCK, STRETCH, read_files


def read(*files: Path, column: str = "text", size: int = 0) -> list[str]:
    return [raw.decode() for raw in read_files(files, column, size, lambda *_: None)]


def local(path: object, column: str = "text") -> list[str]:
    spec = DataSpec("file", 256, 0.1, 0.1, 1, 1, 1, str(path), column, document_bytes=256)
    return [raw.decode() for raw in open_corpus(spec, Path()).documents(lambda *_: None)]


def test_a_text_file_is_a_document(tmp_path: Path):
    for n in range(3):
        (tmp_path / f"{n}.txt").write_bytes(f"text {n}\r\n\r\nmore é\n".encode())
    assert read(*(tmp_path / f"{n}.txt" for n in range(3)), size=256) == [
        f"text {n}\r\n\r\nmore é\n" for n in range(3)
    ]


def test_a_byte_order_mark_is_dropped(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfHello")
    assert read(tmp_path / "a.txt") == read(tmp_path / "a.txt", size=256) == ["Hello"]


def test_a_single_text_file_is_cut_at_blank_lines(tmp_path: Path):
    paragraphs = [f"Paragraph {n}. " + "word " * (n % 60) for n in range(500)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    pieces = read(tmp_path / "a.txt", size=1000)
    assert "".join(pieces) == "\n\n".join(paragraphs)
    assert all(piece.startswith("Paragraph") for piece in pieces)
    assert all(1000 <= len(piece) <= STRETCH * 1000 for piece in pieces[:-1])


@given(st.lists(st.sampled_from(["\n\n", "\n", " ", "\r\n \r\n", "é", "𝄞", "word", "x" * 700]), max_size=400))
def test_cutting_loses_nothing_and_never_cuts_a_character(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
):
    path = tmp_path_factory.mktemp("cut") / "a.txt"
    path.write_bytes("".join(parts).encode())
    whole = b"".join(raw for raw, _ in readers_module._paragraphs(path, 256))
    assert whole == path.read_bytes()
    for raw, _ in readers_module._paragraphs(path, 256):
        assert len(raw) <= STRETCH * 256 + 4


def test_cutting_across_blocks(tmp_path: Path):
    text = "".join(f"{n} is a number, é\n" + "\n" * (n % 7 == 0) for n in range(200_000))
    (tmp_path / "a.txt").write_text(text)
    assert len(text) > 3 * BLOCK
    assert "".join(read(tmp_path / "a.txt", size=5000)) == text


def test_text_without_any_space_is_cut_too(tmp_path: Path):
    (tmp_path / "a.txt").write_text("語" * 10_000)
    pieces = read(tmp_path / "a.txt", size=512)
    assert "".join(pieces) == "語" * 10_000 and len(pieces) > 10


def test_a_long_text_among_few_is_cut_and_one_among_many_is_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = [tmp_path / f"{n}.txt" for n in range(3)]
    for file, count in zip(files, (1, 70, 1000), strict=True):
        file.write_text("a paragraph.\n\n" * count)
    pieces = read(*files, size=256)
    assert pieces[:2] == [file.read_text() for file in files[:2]], "no longer than a piece may be"
    assert len(pieces) > 10 and "".join(pieces[2:]) == files[2].read_text()
    monkeypatch.setattr(readers_module, "FEW", 3)
    assert len(read(*files, size=256)) == 3


def test_a_huge_text_file_among_others_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readers_module, "WHOLE_FILE", 2000)
    (tmp_path / "a.txt").write_text("short")
    (tmp_path / "b.txt").write_text("long enough\n\n" * 1000)
    assert len(read(tmp_path / "a.txt", tmp_path / "b.txt", size=256)) > 10


def test_json_lines(tmp_path: Path):
    rows = [{"body": "one"}, {"body": ""}, {"body": None}, {"body": "zwei\n€"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert read(tmp_path / "a.jsonl", column="body") == ["one", "zwei\n€"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path: Path, kind: pa.DataType):
    values = [f"document {n} ü" if n % 5 else None for n in range(1000)]
    table = pa.table({"id": range(1000), "body": pa.array(values, pa.string()).cast(kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    assert read(tmp_path / "a.parquet", column="body") == [v for v in values if v]


def test_folders_globs_and_kinds_mix_in_a_fixed_order(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("from b")
    (tmp_path / "sub" / "a.jsonl").write_text('{"text": "from a"}\n')
    (tmp_path / "c.TXT").write_text("from c")
    (tmp_path / "notes.md").write_text("not read")
    assert local(tmp_path) == ["from b", "from c", "from a"]
    assert local(tmp_path / "**" / "*.jsonl") == ["from a"]
    assert local(f"{tmp_path}/?.txt") == ["from b"]


def broken(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    if name == "short.parquet":
        pq.write_table(pa.table({"text": ["x" * 100] * 1000}), path)
        path.write_bytes(path.read_bytes()[:-50])
    elif name == "bytes.parquet":
        bad = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
        pq.write_table(pa.table({"text": bad}), path)
    elif name == "numbers.parquet":
        pq.write_table(pa.table({"text": [1, 2], "body": ["a", "b"]}), path)
    elif name == "column.parquet":
        pq.write_table(pa.table({"title": ["a"], "body": ["b"]}), path)
    elif name == "twice.parquet":
        pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), path)
    else:
        path.write_bytes(BROKEN[name])
    return path


BROKEN = {
    "latin1.txt": b"A good beginning\nand then a caf\xe9\n",
    "zeros.txt": b"MZ\0\0\0 program",
    "latin1.jsonl": b'{"text": "fine"}\n{"text": "caf\xe9"}\n',
    "half.jsonl": b'{"text": "fine"}\n{"text": "\\ud800"}\n',
    "cut.jsonl": b'{"text": "fine"}\n{"text": "no en',
    "list.jsonl": b'"text"\n',
    "array.jsonl": b'[{"text": "a"}, {"text": "b"}]\n',
    "deep.jsonl": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "many.jsonl": b'{"text": "a"}\n' + b'{"other": 1}\n' * 101,
    "number.jsonl": b'{"text": 3, "body": "x"}\n',
    "column.jsonl": b'{"title": "a", "body": "b"}\n',
}


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("latin1.txt", r"latin1\.txt, at byte 31, is not UTF-8", "iconv"),
        ("zeros.txt", r"zeros\.txt has NUL bytes", "plain text"),
        ("latin1.jsonl", r"line 2 of .*latin1\.jsonl is not UTF-8", "iconv"),
        ("half.jsonl", r"line 2 of .*half\.jsonl is not UTF-8", "iconv"),
        ("cut.jsonl", r"Not JSON, line 2 of .*cut\.jsonl", "text"),
        ("list.jsonl", r"Not a JSON object, line 1 of .*list\.jsonl", "text"),
        ("array.jsonl", r"A JSON array, not an object, is in line 1 of .*array\.jsonl", "jq"),
        ("deep.jsonl", r"line 1 of .*deep\.jsonl is nested too deep", "Take that line out"),
        ("many.jsonl", r"no column 'text' in line 2 of .*many\.jsonl", "other"),
        ("twice.parquet", r"twice\.parquet has 2 columns called 'text'", "names that differ"),
        ("number.jsonl", r"'text' in line 1 of .*number\.jsonl is not text", "one of: body"),
        ("column.jsonl", r"no column 'text' in line 1 of .*column\.jsonl", "title, body"),
        ("short.parquet", r"short\.parquet is not a whole \.parquet file", "cut short"),
        ("bytes.parquet", r"bytes\.parquet, at row 2, is not UTF-8", "iconv"),
        ("numbers.parquet", r"'text' of .*numbers\.parquet holds int64, not text", "one of: body"),
        ("column.parquet", r"no column 'text' in .*column\.parquet", "title, body"),
    ],
)
def test_bad_files_are_refused_with_their_name_and_place(tmp_path: Path, name: str, message: str, hint: str):
    with pytest.raises(DataError, match=message) as caught:
        read(broken(tmp_path, name))
    assert hint in caught.value.hint


def test_lines_without_the_field_are_left_out_and_counted(tmp_path: Path):
    rows = [{"text": "first"}, {"meta": 1}, {"text": "third"}, {"text": None}]
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, rows)))
    said: list[str] = []
    texts = list(read_files([tmp_path / "a.jsonl"], "text", 0, lambda phase, *_: said.append(phase)))
    assert texts == [b"first", b"third"]
    assert "a.jsonl: 1 of 4 lines have no 'text'; they are left out" in said


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_every_kind_of_text_column_is_read(tmp_path: Path, kind: pa.DataType):
    column = pa.array(["one", None, "zwei", "one"]).cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["one", "zwei", "one"]


def test_bad_text_is_refused_deep_inside_a_cut_file(tmp_path: Path):
    good = "All is well here.\n\n" * 100_000
    (tmp_path / "a.txt").write_bytes(good.encode() + b"\xff" + good.encode())
    with pytest.raises(DataError, match=f"at byte {len(good)},"):
        read(tmp_path / "a.txt", size=256)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.txt", "no file"),
        ("*.txt", "no file"),
        ("empty", "There is no .txt"),
        ("a.pdf", "no kind that can"),
    ],
)
def test_nothing_to_read(tmp_path: Path, path: str, message: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.pdf").write_text("")
    with pytest.raises(DataError, match=message) as caught:
        local(tmp_path / path)
    assert caught.value.hint


def test_a_file_that_vanishes(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(DataError, match=r"no file|Cannot read"):
        local(tmp_path / "loop.txt")
