import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.tasks.command.metrics import Guard, MetricError, check_source, read_metrics

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def read(text: str, source: str = "lines", folder: Path = Path("/nowhere")) -> dict[str, float]:
    return read_metrics(source, "loss", text, folder)


@given(FINITE, FINITE)
def test_what_is_said_is_read(loss: float, other: float) -> None:
    said = f"step 1 of 2\nMETRIC loss={loss!r}\nMETRIC  other = {other!r}\nbye METRIC loss=9\n"
    assert read(said) == {"loss": loss, "other": other}
    assert read(f"val loss {loss!r} at 1\nval loss {other!r} at 2", "regex:val loss (\\S+)") == {
        "loss": other
    }


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "no loss was said"),
        ("METRIC accuracy=1", "no loss was said"),
        ("METRIC loss=1\nMETRIC loss=2", "more than once: 1, then 2"),
        ("METRIC loss=nan", "loss is nan"),
        ("METRIC loss=-inf", "loss is -inf"),
        ("METRIC loss=low", "no number: 'low'"),
        ("METRIC loss=1\nMETRIC other=nan", "other is nan"),
    ],
)
def test_what_is_no_score_is_said(said: str, why: str) -> None:
    with pytest.raises(MetricError, match=why):
        read(said)


def test_a_json_file_may_hold_more_than_numbers(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"loss": 0.25, "accuracy": 1, "words": "no", "flag": true, "a b": 1}')
    assert read("", "json:m.json", tmp_path) == {"loss": 0.25, "accuracy": 1.0}


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{", '{"loss": NaN}', '{"loss": "x"}', '{"accuracy": 1}', "[" * 100_000, "1" * (2 << 20)],
)
def test_a_json_file_without_a_score_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(MetricError):
        read("", "json:m.json", tmp_path)


def test_a_metric_file_that_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(json.dumps({"loss": 0}))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.json").symlink_to(tmp_path / "secret")
    os.mkfifo(inside / "pipe.json")
    (inside / "folder").symlink_to(tmp_path)
    for name in ("link.json", "pipe.json", "folder/secret", "none.json"):
        with pytest.raises(MetricError):
            read("", f"json:{name}", inside)


@pytest.mark.parametrize("source", ["lines", "json:a/b.json", "regex:(x)"])
def test_sources(source: str) -> None:
    assert check_source(source) == source


@pytest.mark.parametrize(
    "source", ["", "json:", "json:/etc/passwd", "json:../x", "regex:x", "regex:(", "csv"]
)
def test_no_sources(source: str) -> None:
    with pytest.raises(ValueError):
        check_source(source)


def test_a_guard_compares_with_the_mean_of_the_baseline() -> None:
    guard = Guard.parse("accuracy >= baseline - 0.002")
    baseline = [{"accuracy": 0.9}, {"accuracy": 0.902}]
    assert not guard.broken({"accuracy": 0.8991}, baseline)
    assert "0.8989" in guard.broken({"accuracy": 0.8989}, baseline)
    assert "does not say accuracy" in guard.broken({}, baseline)
    assert not guard.broken({"accuracy": 0.0}, []), "the baseline itself has nothing to compare with"
    assert Guard.parse("size<=10").broken({"size": 11}, []) and not Guard.parse("size<=10").broken(
        {"size": 10}, []
    )


@given(st.booleans(), st.booleans(), st.floats(-1e6, 1e6).map(lambda x: round(x, 3)))
def test_a_guard_reads_what_it_writes(least: bool, relative: bool, bound: float) -> None:
    guard = Guard("size_kb", least, relative, float(f"{bound:g}"))
    assert Guard.parse(str(guard)) == guard


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy > 1", "accuracy >=", "accuracy >= much", "a >= baseline * 2"]
)
def test_no_guards(text: str) -> None:
    with pytest.raises(ValueError):
        Guard.parse(text)
