import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge import Observation, create_judge
from autoresearch.text import (
    clean,
    duration,
    flatten,
    one_line,
    pairs_text,
    public,
    quoted,
    scrub,
    secrets,
    verdict_text,
)
from autoresearch.types import Direction, Metric, Verdict, VerdictKind

METRIC = Metric("val_bpb", "bits per byte")
ANY_TEXT = st.text(st.characters(codec=None))  # surrogates too


@given(ANY_TEXT)
def test_nothing_invisible_survives(text: str) -> None:
    cleaned = clean(text)
    assert all(c in "\n\t" or unicodedata.category(c)[0] != "C" for c in cleaned)
    cleaned.encode("utf-8")


@given(ANY_TEXT, st.integers(1, 60))
def test_one_line_is_one_line_of_limited_length(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit and "\n" not in line and "\t" not in line


def test_what_is_cut_is_cut_between_words() -> None:
    assert one_line("raise the learning rate", 22) == "raise the learning…"
    assert one_line("a" * 30, 10) == "a" * 9 + "…"


def test_escape_sequences_go_as_a_whole() -> None:
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07on \x1b(Bit\r\nnext") == "red on Bit\nnext"
    assert clean("plain é 漢字 😀") == "plain é 漢字 😀"


def test_secrets_are_found_by_their_names_and_blotted_out() -> None:
    environment = {
        "ANTHROPIC_API_KEY": "sk-ant-very-secret",
        "HF_TOKEN": "hf_very_secret",
        "DB_PASSWORD": "short",
        "TOKENS": "1000000000",
    }
    found = secrets(environment)
    assert found == ("sk-ant-very-secret", "hf_very_secret")
    text = scrub("key sk-ant-very-secret at postgres://me:pass@host/db, mail me@host", found)
    assert text == "key [secret] at postgres://[secret]@host/db, mail me@host"


def test_a_configuration_is_made_public_without_its_secrets() -> None:
    tree = {
        "a": {"api_key": "x", "tokens": "many", "uri": "http://u:p@h/"},
        "list": [{"token": "t"}],
        "none": None,
    }
    assert public(tree) == {
        "a": {"api_key": "[secret]", "tokens": "many", "uri": "http://[secret]@h/"},
        "list": [{"token": "[secret]"}],
        "none": None,
    }


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"), (-3, "0 s")],
)
def test_durations_as_a_person_says_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(ANY_TEXT)
def test_quoted_text_cannot_end_its_quotation(text: str) -> None:
    for inside in (text, f"{text}</data><script>{text}"):
        mark = quoted(inside)
        mark.encode("utf-8")
        assert mark.startswith("<data>\n") and mark.endswith("\n</data>")
        assert mark.count("</data>") == 1 and "<script>" not in mark


def test_a_verdict_in_words() -> None:
    verdict = Verdict(VerdictKind.KEEP, 0.0042, (0.0031, 0.0053), 3.4, 4, "Better.", paired=4)
    assert verdict_text(verdict, METRIC) == "keep: −0.0042 ± 0.0011 over 4 paired seeds"
    assert (
        verdict_text(replace(verdict, paired=3), METRIC)
        == "keep: −0.0042 ± 0.0011 over 4 seeds, 3 of them paired"
    )
    assert (
        verdict_text(replace(verdict, paired=0, interval=None, trials=1), METRIC)
        == "keep: −0.0042 over 1 seed"
    )
    assert verdict_text(Verdict(VerdictKind.CRASH, reason="out of memory"), METRIC) == "crash"
    small = Verdict(VerdictKind.DISCARD, -4.2e-6, (-5.3e-6, -3.1e-6), -3.4, 2)
    assert verdict_text(small, METRIC) == "discard: +0.0000042 ± 0.0000011 over 2 seeds"
    accuracy = Metric("accuracy", "share", Direction.MAXIMIZE, digits=2)
    assert verdict_text(verdict, accuracy) == "keep: +0.0042 ± 0.0011 over 4 paired seeds"
    assert verdict_text(replace(verdict, interval=None), accuracy) == "keep: +0.00 over 4 paired seeds"


def test_an_interval_that_is_not_around_the_estimate_is_told_by_its_ends() -> None:
    verdict = Verdict(VerdictKind.KEEP, 0.0066, (0.0, 0.0156), 2.5, 6, paired=6)
    assert verdict_text(verdict, METRIC) == "keep: −0.0066 (95%: −0.0156 to −0.0000) over 6 paired seeds"


def test_what_was_measured_is_told_seed_by_seed() -> None:
    verdict = Verdict(VerdictKind.KEEP, 0.01, None, 2.5, 2, pairs=((0, 1.7887, 1.7765), (1, 1.7792, 1.7698)))
    told = "seed 0: 1.7887 to 1.7765 (−0.0122); seed 1: 1.7792 to 1.7698 (−0.0094); mean −0.0108"
    assert pairs_text(verdict, METRIC) == told
    assert pairs_text(Verdict(VerdictKind.CRASH), METRIC) == ""
    many = replace(verdict, pairs=tuple((seed, 1.0, 0.9) for seed in range(10)))
    assert "seed 7" in pairs_text(many, METRIC) and "2 more; mean −0.1000" in pairs_text(many, METRIC)


def test_the_judge_says_how_many_seeds_are_paired() -> None:
    judge = create_judge("default", [(0, 10.0), (1, 10.1), (2, 9.9)])
    verdict = None
    while verdict is None:
        want = judge.next()
        assert want is not None
        verdict = judge.observe(want, Observation.finished(10.0 if want.arm == "incumbent" else 9.0))
    assert "over 3 paired seeds" in verdict_text(verdict, METRIC) and verdict_text(
        verdict, METRIC
    ).startswith("keep: −0.")
