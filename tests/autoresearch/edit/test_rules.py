"""A candidate passes only if it is a different, permitted, well-formed program."""

import pytest

from autoresearch.edit.rules import check
from autoresearch.errors import Refused

TRAIN = '''"""A tiny script."""
import torch

SEED = 1
LR = 0.02  # x4


def main(seed=0):
    """Train."""
    torch.manual_seed(seed)
    x = torch.zeros(3)
    return train(x, lr=LR, seed=SEED)


def train(x, lr, seed):
    # a comment
    return x * lr
'''


def accept(new, parent=TRAIN):
    check({"train.py": parent}, {"train.py": new}, ["train.py"])


def refusal(new, parent=TRAIN):
    with pytest.raises(Refused) as refused:
        accept(new, parent)
    return str(refused.value)


def test_a_real_change_passes():
    accept(TRAIN.replace("0.02", "0.03"))


def test_nothing_changed():
    assert "changes nothing" in refusal(TRAIN)


@pytest.mark.parametrize(
    "old, new",
    [("# a comment", "# another"), ('"""Train."""', '"""Train it."""'), ('    """Train."""\n', ""),
     ("return x * lr", "return (x   *  lr)"), ("0.02", "0.0200"), ("    # a comment\n", "    'text'\n"),
     ("import torch\n", "import torch\n\n\n")],
)  # fmt: skip
def test_comments_docstrings_and_layout_are_no_change(old, new):
    assert old in TRAIN
    assert "only comments, docstrings or layout" in refusal(TRAIN.replace(old, new))


@pytest.mark.parametrize(
    "old, new",
    [("SEED = 1", "SEED = 7"), ("torch.manual_seed(seed)", "torch.manual_seed(seed + 1)"),
     ("    torch.manual_seed(seed)\n", ""), ("seed=SEED", "seed=12"), ("SEED = 1", "SEED: int = 3"),
     ("    x = torch", "    torch.cuda.manual_seed_all(3)\n    x = torch"),
     ("SEED = 1", "SEED = 1\nSEED += 4")],
)  # fmt: skip
def test_another_seed_is_no_change(old, new):
    assert old in TRAIN
    assert "random seed" in refusal(TRAIN.replace(old, new))


STREAMS = """
import random
import numpy as np
import torch

RNG = 1
OTHER = RNG + 2
WIDTH = 8


def main(start=3, rows=4):
    rng = np.random.default_rng(1)
    old = np.random.RandomState(start)
    coin = random.Random(2)
    torch.manual_seed(OTHER)
    torch.cuda.manual_seed(WIDTH)
    return rng.random(WIDTH), old.rand(rows), coin.random()
"""


@pytest.mark.parametrize(
    "old, new",
    [("default_rng(1)", "default_rng(2)"), ("RNG = 1", "RNG = 2"), ("RNG + 2", "RNG * 7"),
     ("start=3", "start=9"), ("Random(2)", "Random(5)"), ("RandomState(start)", "RandomState(start + 1)"),
     ("    return", "    torch.rand(1)\n    return"), ("    return", "    _ = rng.normal()\n    return"),
     ("    rng = ", "    np.random.seed(3)\n    rng = ")],
)  # fmt: skip
def test_other_random_numbers_are_no_change(old, new):
    assert old in STREAMS
    assert "random seed" in refusal(STREAMS.replace(old, new), STREAMS)


@pytest.mark.parametrize(
    "old, new",
    [("WIDTH = 8", "WIDTH = 9"), ("rows=4", "rows=5"), ("rng.random(WIDTH)", "rng.normal(WIDTH)"),
     ("    return", "    x = torch.rand(1)\n    print(x)\n    return"),
     ("    return", "    torch.nn.init.normal_(rows)\n    return")],
)  # fmt: skip
def test_what_random_numbers_are_drawn_for_is_a_change(old, new):
    """A number that is a seed and a width as well is a width."""
    assert old in STREAMS
    accept(STREAMS.replace(old, new), STREAMS)


def test_a_seed_with_a_real_change_passes():
    accept(TRAIN.replace("SEED = 1", "SEED = 7").replace("0.02", "0.03"))


def test_syntax_errors_name_the_line():
    message = refusal(TRAIN.replace("return x * lr", "return x *"))
    assert "train.py, line 17" in message and "invalid syntax" in message
    assert "line 5" in refusal(TRAIN.replace("LR = 0.02", "return 1"))
    assert "U+0000" in refusal(TRAIN + "\0")


@pytest.mark.parametrize("text", ["(" * 9999, "x" + ".a" * 50_000, "-" * 99_999 + "1", "# " + "x" * 300_000])
def test_monstrous_text_is_refused_not_fatal(text):
    refusal(text)


def test_undefined_names_are_listed_with_lines():
    message = refusal(TRAIN.replace("x * lr", "x * lr * scale + bias"))
    assert "'scale' (line 17)" in message and "'bias' (line 17)" in message
    assert "'y' (line 17)" in refusal(
        TRAIN.replace("return x * lr", "y += lr\n    return y").replace("lr, seed", "lr")
    )


def test_what_the_parent_used_already_is_not_held_against_the_child():
    parent = TRAIN.replace("x * lr", "x * lr * magic")
    accept(parent.replace("0.02", "0.03"), parent)
    accept(TRAIN.replace("x * lr", "x * lr if __name__ else __file__"))


def test_only_editable_files():
    with pytest.raises(Refused, match=r"score\.py must not be changed; only train\.py"):
        check(
            {"train.py": TRAIN, "score.py": "a = 1"},
            {"train.py": TRAIN, "score.py": "a = 2"},
            ["train.py"],
        )
    with pytest.raises(Refused, match=r"os\.py must not be changed"):
        check({"train.py": TRAIN}, {"train.py": TRAIN, "os.py": "a = 2"}, ["train.py"])
    with pytest.raises(Refused, match="deleted"):
        check({"train.py": TRAIN}, {}, ["train.py"])


def test_files_that_are_not_python_are_not_parsed():
    check({"a.txt": "x"}, {"a.txt": "y("}, ["a.txt"])


HIDDEN = {
    "lone carriage return": "# note\rWIDTH = 9\n",
    "coding cookie": "# note \\u000aWIDTH = 9\n",
}
"""Lines that look like comments, and set WIDTH when Python reads them from a file."""


@pytest.mark.parametrize("trick", HIDDEN)
def test_a_comment_that_python_runs_is_refused(trick):
    cookie = "# -*- coding: raw_unicode_escape -*-\n" if "cookie" in trick else ""
    source = f"{cookie}{TRAIN}{HIDDEN[trick]}"
    names = {"__name__": "script"}
    exec(compile(source.encode().replace(b"import torch", b""), "train.py", "exec"), names)
    assert names["WIDTH"] == 9, "Python runs it"
    assert ("encoded as 'raw_unicode_escape'" if cookie else "U+000D") in refusal(source)


@pytest.mark.parametrize(
    "sign",
    ["\x00", "\x07", "\x0b", "\x0c", "\x1b", "\x7f", "\x85", "\x9b", "\xad", "\u200b", "\u200e", "\u2028",
     "\u2029", "\u202e", "\u2066", "\u3164", "\ufe0f", "\ufeff", "\U000e0041"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["# a{} comment", "x = 'a{}b'"])
def test_hidden_characters_are_refused_and_named(sign, place):
    message = refusal(TRAIN.replace("0.02", "0.03") + place.format(sign) + "\n")
    assert f"train.py, line 18: the character U+{ord(sign):04X}" in message and sign not in message


@pytest.mark.parametrize("words", ["été, 中文, Ω, 🙂", "é as two: e\u0301", "tabs\t and ‘quotes’ – fine"])
def test_text_that_can_be_seen_is_allowed(words):
    accept(TRAIN.replace("0.02", "0.03") + f"# {words}\nx = '{words}'\n")


@pytest.mark.parametrize(
    "line",
    [
        "r\u0430te = 0.03",  # a Cyrillic letter: another name than rate
        "x = \U0001d41e\U0001d42f\U0001d41a\U0001d425('1')",  # Python reads eval
        "x = f'{\U0001d41e\U0001d42f\U0001d41a\U0001d425(\"1\")}'",
    ],
)
def test_names_in_other_letters_are_refused(line):
    message = refusal(TRAIN.replace("0.02", "0.03") + line + "\n")
    assert "line 18" in message and message.isascii()
    accept(TRAIN.replace("0.02", "0.04") + line + "\n", TRAIN + line + "\n")
    accept(TRAIN.replace("0.02", "0.03") + "x = f'\u00e9 {1 + 1} \u00e9'  # \u0430\n")


def test_what_the_parent_holds_may_stay_but_not_be_added_to():
    parent = TRAIN + "# a\fform feed, and \ufeffanother\n"
    accept(parent.replace("0.02", "0.03"), parent)
    assert "U+000C" in refusal(parent.replace("0.02", "0.03") + "# \f\n", parent)


def test_line_ends_of_dos_are_allowed():
    parent = TRAIN.replace("\n", "\r\n")
    accept(parent.replace("0.02", "0.03"), parent)
    assert "U+000D" in refusal(parent.replace("0.02", "0.03") + "# a\rb\r\n", parent)


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf_8"])
def test_a_cookie_that_says_utf_8_is_allowed(name):
    accept(f"# vim: set fileencoding={name} :\n{TRAIN.replace('0.02', '0.03')}")


@pytest.mark.parametrize("name", ["latin-1", "utf-7", "rot13", "utf-8-sig", "unicode_escape"])
@pytest.mark.parametrize("before", ["", "#!/usr/bin/python\n"])
def test_any_other_cookie_is_refused(name, before):
    assert "only UTF-8" in refusal(f"{before}# coding: {name}\n{TRAIN.replace('0.02', '0.03')}")


@pytest.mark.parametrize("huge", ["#" * 200_001, "\n" * 10_001])
def test_files_that_are_too_large_are_refused(huge):
    assert "are allowed" in refusal(TRAIN + huge)
