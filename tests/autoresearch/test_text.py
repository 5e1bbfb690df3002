import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge import Observation, create_judge
from autoresearch.text import (
    clean,
    duration,
    escape_tags,
    flatten,
    held_secret,
    one_line,
    pairs_text,
    public,
    quoted,
    scrub,
    secrets,
    verdict_text,
    visible,
)
from autoresearch.types import Direction, Metric, Verdict, VerdictKind

METRIC = Metric("val_bpb", "bits per byte")
ANY_TEXT = st.text(st.characters(codec=None))  # surrogates too


@given(ANY_TEXT)
def test_nothing_invisible_survives(text: str) -> None:
    cleaned = clean(text)
    assert all(c in "\n\t" or unicodedata.category(c)[0] != "C" for c in cleaned)
    cleaned.encode("utf-8")


@given(ANY_TEXT)
def test_what_is_made_visible_moves_no_cursor_and_hides_nothing(text: str) -> None:
    shown = visible(text)
    assert all(c in "\n\t" or unicodedata.category(c)[0] != "C" for c in shown.replace("\r\n", "\n"))
    shown.encode("utf-8")
    assert visible("\x1b]52;c;a\x07 \x9b1A a\rb \u202e\u2028\u200b") == (
        "\\x1b]52;c;a\\x07 \\x9b1A a\\rb \\u202e\\u2028\\u200b"
    )
    assert visible("+é 漢 \t\r\n-b\n") == "+é 漢 \t\r\n-b\n"


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


SECRET_NAMES = """
AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_ACCESS_KEY_ID OPENAI_KEY OPENAI_API_KEY OPENAI_API_KEY_2
GITHUB_PAT GH_TOKEN GITHUB_TOKEN HF_TOKEN HUGGING_FACE_HUB_TOKEN NPM_TOKEN SLACK_BOT_TOKEN
SLACK_WEBHOOK_URL AZURE_CLIENT_SECRET AZURE_OPENAI_API_KEY GOOGLE_API_KEY STRIPE_SECRET_KEY
TWILIO_AUTH_TOKEN ANTHROPIC_AUTH_TOKEN ANTHROPIC_API_KEY OPENROUTER_KEY WANDB_API_KEY COMET_API_KEY
MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN PGPASSWORD MYSQL_PWD REDIS_PASSWORD DB_PASS
SSH_PASSPHRASE SENTRY_DSN CI_JOB_JWT VAULT_TOKEN ACTIONS_RUNTIME_TOKEN SECRET_KEY_BASE
DJANGO_SECRET_KEY GITLAB_PRIVATE_TOKEN APIKEY MYAPIKEY REGISTRY_AUTH TOKEN_GITHUB KUBE_TOKEN
AZURE_STORAGE_KEY proposer.api_key http.authorization
"""

HARMLESS_NAMES = """
PATH HOME PWD OLDPWD TOKENS MAX_TOKENS TOKENIZERS_PARALLELISM SSH_AUTH_SOCK KEYBOARD LESSKEY
GOOGLE_APPLICATION_CREDENTIALS_FILE HF_TOKEN_PATH key_variable key MONKEY COMPASS PASSENGERS PATTERN
PATCH AUTHOR XAUTHORITY budget.tokens answer_tokens token_bytes
"""

SECRET_VALUES = [
    "sk-ant-api03-" + "a1B2" * 10, "sk-proj-" + "xY_9" * 12, "ghp_" + "a" * 36, "github_pat_" + "b" * 60,
    "hf_" + "c" * 34, "glpat-" + "d" * 20, "xoxb-123456789012-abcdef", "AKIA" + "ABCD" * 4,
    "AIza" + "e" * 35, "npm_" + "f" * 36,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.c2lnbmF0dXJl",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_real_names_of_secrets_are_known(name: str) -> None:
    assert secrets({name: "v4lue-that-nobody-may-see"}) == ("v4lue-that-nobody-may-see",)
    assert public({name: "short"}) == {name: "[secret]"}


@pytest.mark.parametrize("name", HARMLESS_NAMES.split())
def test_names_of_other_things_are_no_secrets(name: str) -> None:
    assert secrets({name: "a value that is harmless"}) == ()


@pytest.mark.parametrize("value", SECRET_VALUES)
def test_values_that_look_like_keys_are_secret_under_any_name(value: str) -> None:
    assert secrets({"MY_SETTING": value, "OTHER": f" {value}\n"}) == (value,)


def test_where_a_secret_lies_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{}")
    environment = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "credentials.json"),
        "AWS_SECRET_KEY": "/wJalrXUtn/x",
    }
    assert secrets(environment) == ("/wJalrXUtn/x",)


@pytest.mark.parametrize("text", ["{}", "a = '{}'", "x {}.", 'K = ("{0:.9}"\n     "{1}")', "# {0:.5}\n# {1}"])
def test_a_text_that_holds_a_secret_is_noticed_and_the_variable_named(text: str) -> None:
    secret = "very-secret-value-17"
    cut = 9 if ":.9" in text else 5
    held = text.format(secret, secret[cut:])
    assert held_secret(held, environment={"SOME_TOKEN": secret}) == "SOME_TOKEN"
    assert held_secret(held, known=held, environment={"SOME_TOKEN": secret}) == ""
    assert held_secret("nothing of it", environment={"SOME_TOKEN": secret}) == ""


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
        name = mark[1 : mark.index(">")]
        assert re.fullmatch(r"data-[0-9a-f]{16}", name)
        assert mark.startswith(f"<{name}>\n") and mark.endswith(f"\n</{name}>")
        assert mark.count(name) == 2 and mark.count("<") == mark.count(">") == 2
        assert quoted(inside) == mark, "the same bytes each time, for the provider's cache"


TRICKS = [
    "</data>", "</DATA>", "< /data>", "<\t/ data >", "</da\u200bta>", "</data-0123456789abcdef>",
    "<|im_start|>system", "<|im_end|>", "<|eot_id|>", "<start_of_turn>", "</s>", "[INST]", "[/inst]",
    "<<SYS>>", "\x1b[2J", "\u202e", "<DIFF>", "<\u2060script>", "<｜User｜>",
]  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_no_variant_of_a_tag_or_token_passes(trick: str) -> None:
    inside = quoted(f"a {trick} b").split("\n", 1)[1].rsplit("\n", 1)[0]
    assert not re.search(r"[<>\x1b\u202e\u200b\u2060]|\[/?INST\]", inside, re.IGNORECASE)
    escaped = escape_tags(f"a {trick} b")
    assert not re.search(r"<\s*/?\s*(data|diff|script)|<\||[\x1b\u202e\u200b]", escaped, re.IGNORECASE)
    assert escape_tags("if a < b and c <= d: x = y << 2  # <b>") == "if a < b and c <= d: x = y << 2  # <b>"


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
    same = replace(verdict, effect=0.0, interval=(-1e-30, 1e-30))  # all scores so far are equal
    assert verdict_text(same, METRIC).endswith("0.0000 ± 0.0000 over 4 paired seeds")
    assert verdict_text(Verdict(VerdictKind.CRASH, reason="out of memory"), METRIC) == "crash"
    small = Verdict(VerdictKind.DISCARD, -4.2e-6, (-5.3e-6, -3.1e-6), -3.4, 2)
    assert verdict_text(small, METRIC) == "discard: +0.0000042 ± 0.0000011 over 2 seeds"
    accuracy = Metric("accuracy", "share", Direction.MAXIMIZE, digits=2)
    assert verdict_text(verdict, accuracy) == "keep: +0.0042 ± 0.0011 over 4 paired seeds"
    assert verdict_text(replace(verdict, interval=None), accuracy) == "keep: +0.00 over 4 paired seeds"


def test_an_interval_that_is_not_around_the_estimate_is_told_by_its_ends() -> None:
    verdict = Verdict(VerdictKind.KEEP, 0.0066, (0.0, 0.0156), 2.5, 6, paired=6)
    assert verdict_text(verdict, METRIC) == "keep: −0.0066 (95%: −0.0156 to 0.0000) over 6 paired seeds"


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
