"""Makes text safe to show, quotes it for a model, removes secrets, and puts verdicts and durations in words.

After this, text from a candidate or a proposer cannot move a terminal's cursor, reverse the direction of
writing, or carry a secret of this process into a page or a tracking store. A candidate's output reaches a
language model only through `quoted`, and every model is told what that mark means. Not covered: escaping for
a format (HTML, Markdown, Rich markup, TeX), which the writer of that format does.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from autoresearch.types import Experiment, Metric, Tuning, Verdict, VerdictKind

_SECRET_WORD = re.compile(
    r"key|pat|pass|passwd|passphrase|pwd|credentials?|auth|authorization|bearer|jwt|dsn|cookie|webhook|sas"
    r"|.*(apikey|secret|token|password)"
)
_ABOUT = re.compile(r"variable|file|path|name|dir|sock|type|algorithm|length|limit|bytes|count")
"""Last words of names that hold no secret but something about one, such as `key_variable`."""
_NEVER = ("key", "pwd", "oldpwd")
_SECRET_VALUE = re.compile(
    r"sk-[\w-]{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_\w{16,}|xox[abprs]-[\w-]{10,}"
    r"|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,}|npm_\w{30,}|pypi-[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"
)
"""Values whose form says that they are secrets, whatever the variable is called."""
MIN_SECRET = 8
"""Shorter values are too common in any text."""
_USERINFO = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)", re.DOTALL)
_LINE_ENDS = re.compile("\r\n|[\r\u2028\u2029]")
_KEPT = "\n\t"
_OUR_TAG = re.compile(r"<(?=\s*/?\s*(experiment|data|diff|script|brief|note|idea)\b|\|)", re.IGNORECASE)
_CHAT = re.compile(r"\[(/?(?:INST|SYS|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)/?)\]", re.IGNORECASE)
"""Tokens of chat templates that have no angle brackets."""


def clean(text: str) -> str:
    """Text without control, bidirectional and other invisible characters; newlines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    text = _ANSI.sub("", _LINE_ENDS.sub("\n", text))
    # Cc control, Cf format (bidi overrides, zero width), Cs lone surrogates, Co/Cn private and unassigned.
    return "".join(c for c in text if c in _KEPT or unicodedata.category(c)[0] != "C")


def visible(text: str) -> str:
    """Text with every character that `clean` removes written as an escape, for a diff on a terminal.

    Ends of lines stay as they are, so that a diff without such characters is still a patch.
    """
    parts = re.split(r"(\r\n)", text)
    return "".join(part if part == "\r\n" else "".join(map(_shown, part)) for part in parts)


def _shown(sign: str) -> str:
    hidden = unicodedata.category(sign)[0] == "C" or sign in "\u2028\u2029"
    return sign.encode("unicode_escape").decode() if hidden and sign not in _KEPT else sign


def one_line(text: str, limit: int = 200) -> str:
    """Clean text on one line of at most `limit` characters; an ellipsis shows that something was cut."""
    line = " ".join(clean(text).split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    head, space, tail = cut.rpartition(" ")
    return (head if space and len(tail) < limit // 4 else cut).rstrip() + "…"


def spelled(text: str, encoding: str) -> str:
    """Text that an encoding can write: missing − and ± become - and +/-, other missing signs become ?."""
    for sign, plain in (("−", "-"), ("±", "+/-")):
        if sign in text and sign.encode(encoding, "replace") == b"?":
            text = text.replace(sign, plain)
    return text.encode(encoding, "replace").decode(encoding, "replace")


def quoted(text: str) -> str:
    """Text from a candidate, marked as data so that a model cannot take it for instructions.

    The name of the mark is a hash of the text, so no text can hold its own mark, and the same text has the
    same one. Nothing in it can be a tag, or a token of a chat template, of any model.
    """
    shown = _CHAT.sub(r"(\1)", clean(text).replace("<", "‹").replace(">", "›"))
    mark = f"data-{hashlib.sha256(shown.encode()).hexdigest()[:16]}"
    return f"<{mark}>\n{shown}\n</{mark}>"


def escape_tags(text: str) -> str:
    """Clean text that can neither open nor close a tag of our prompts, nor be a token of a chat template."""
    return _OUR_TAG.sub("‹", clean(text))


def is_secret(name: str, value: str) -> bool:
    """Whether a variable or a setting holds a secret, by its name or by the form of its value."""
    if _SECRET_VALUE.fullmatch(value.strip()):
        return True
    words = re.findall(r"[a-z0-9]+", name.lower())
    named = any(_SECRET_WORD.fullmatch(word) for word in words)
    return named and not _ABOUT.fullmatch(words[-1]) and name.lower() not in _NEVER


def named_secrets(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variable -> value, of everything in the environment that must not be written anywhere."""
    environment = os.environ if environment is None else environment
    return {
        name: value.strip()
        for name, value in environment.items()
        if len(value.strip()) >= MIN_SECRET and is_secret(name, value) and not _is_path(value)
    }


def secrets(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Values in the environment that must not be written anywhere, longest first."""
    return tuple(sorted(set(named_secrets(environment).values()), key=len, reverse=True))


def held_secret(text: str, known: str = "", environment: Mapping[str, str] | None = None) -> str:
    """Name of the variable whose secret value a text holds; empty if it holds none.

    Quotes, blanks and line breaks within the value do not hide it.

    Args:
        text: Any text.
        known: A text that may hold it.
        environment: Of the process by default.
    """
    bare = _bare(text)
    for name, value in named_secrets(environment).items():
        short = _bare(value)
        found = value in text or (len(short) >= MIN_SECRET and short in bare)
        if found and value not in known and (len(short) < MIN_SECRET or short not in _bare(known)):
            return name
    return ""


def _bare(text: str) -> str:
    """Letters, digits and the signs that keys are made of."""
    return re.sub(r"[^\w/=.-]|\\\n", "", text)


def _is_path(value: str) -> bool:
    """Whether a value names a file of this machine: where a secret lies is none."""
    try:
        return value.startswith(("/", "~")) and Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def scrub(text: str, hidden: tuple[str, ...] | None = None) -> str:
    """Text with passwords in URLs and the values of secret environment variables replaced by "[secret]"."""
    for secret in secrets() if hidden is None else hidden:
        text = text.replace(secret, "[secret]")
    return _USERINFO.sub("[secret]", text)


def public(tree: object) -> object:
    """A configuration tree without secrets: passwords in URLs and values of secret keys are removed."""
    if isinstance(tree, Mapping):
        return {
            str(k): "[secret]" if isinstance(v, str) and v and is_secret(str(k), v) else public(v)
            for k, v in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [public(v) for v in tree]
    return scrub(tree) if isinstance(tree, str) else tree


def flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, with dotted keys: {"budget": {"amount": 5}} -> {"budget.amount": 5}."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def duration(seconds: float) -> str:
    """Seconds in words: "42 s", "3 min 20 s", "5 h 12 min", "2 d 3 h"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for (size, name), (lesser, lesser_name) in pairwise(units):
        if whole >= size:
            rest = whole % size // lesser
            return f"{whole // size} {name}" + (f" {rest} {lesser_name}" if rest else "")
    return f"{whole} s"


LOPSIDED = 0.1
"""An interval is told by its ends if the estimate is off its middle by more than this share of half of it."""

SEEDS_SHOWN = 8
"""So many common seeds are told one by one."""


def verdict_text(verdict: Verdict, metric: Metric) -> str:
    """A verdict in a few words: "keep: −0.0042 ± 0.0011 over 4 paired seeds"."""
    measured = change_text(verdict, metric)
    return f"{verdict.kind.value}: {measured}" if measured else verdict.kind.value


def change_text(verdict: Verdict, metric: Metric) -> str:
    """How the candidate changed the score: "−0.0042 ± 0.0011 over 4 paired seeds"; empty if not measured.

    A gain is negative if the metric is minimised, positive if it is maximised. After ± stands half of the 95%
    interval, not the standard error. There are more decimals than usual where the uncertainty would be
    printed as 0. A seed is paired if the incumbent was run on it too.
    """
    if verdict.effect is None:
        return ""
    half = (verdict.interval[1] - verdict.interval[0]) / 2 if verdict.interval else None
    digits = metric.digits
    if half is not None and 1e-9 < half < math.inf:
        digits = min(9, max(digits, 1 - math.floor(math.log10(half))))
    text = _signed(metric.change(verdict.effect), digits)
    if verdict.interval is not None and half is not None:
        middle = sum(verdict.interval) / 2
        if abs(verdict.effect - middle) <= LOPSIDED * half:
            text += f" ± {half:.{digits}f}"
        else:  # an estimate after selection, whose interval may end at 0
            ends = sorted(map(metric.change, verdict.interval))
            text += f" (95%: {_signed(ends[0], digits)} to {_signed(ends[1], digits)})"
    if not verdict.trials:
        return text
    word = "seed" if verdict.trials == 1 else "seeds"
    if 0 < verdict.paired < verdict.trials:
        return f"{text} over {verdict.trials} {word}, {verdict.paired} of them paired"
    return f"{text} over {verdict.trials} {'paired ' if verdict.paired else ''}{word}"


def pairs_text(verdict: Verdict, metric: Metric) -> str:
    """What was measured, before any correction: "seed 0: 1.7887 to 1.7765 (−0.0122); mean −0.0122".

    Empty if no seed is common to incumbent and candidate. The estimate differs from this mean where the judge
    corrects for selection, or uses runs on other seeds too.
    """
    if not verdict.pairs:
        return ""
    digits = metric.digits
    seeds = [
        f"seed {seed}: {metric.text(before)} to {metric.text(after)} ({_signed(after - before, digits)})"
        for seed, before, after in verdict.pairs[:SEEDS_SHOWN]
    ]
    more = len(verdict.pairs) - SEEDS_SHOWN
    mean = sum(after - before for _, before, after in verdict.pairs) / len(verdict.pairs)
    hidden = [f"{more} more"] if more > 0 else []
    return "; ".join([*seeds, *hidden, f"mean {_signed(mean, digits)}"])


def bars_text(first: float, three: float | None, ever: float, metric: Metric) -> str:
    """What a gain must be to be kept, as three numbers.

    Args:
        first: A first training that gains less is the last.
        three: The least gain that is kept after three trainings; None if none is.
        ever: The least gain that is kept at all.
        metric: Of the gains.
    """
    soon = "" if three is None else f"confirmed in three trainings from about {metric.text(three)} on; "
    return (
        f"{soon}none below about {metric.text(ever)} can be kept; a first training that gains less than about"
        f" {metric.text(first)} is the last"
    )


def tunings(experiments: Iterable[Experiment]) -> list[list[tuple[Experiment, Tuning]]]:
    """The experiments that are points of a tuning or sweep, grouped by it, in the order of the points."""
    found: dict[str, list[tuple[Experiment, Tuning]]] = {}
    for experiment in experiments:
        if experiment.proposal and (tuning := experiment.proposal.tuning):
            found.setdefault(tuning.name, []).append((experiment, tuning))
    return [sorted(points, key=lambda pair: pair[1].point) for points in found.values()]


def tuning_text(points: Sequence[tuple[Experiment, Tuning]], metric: Metric) -> str:
    """What a tuning found, as measured: "LR 0.02: +0.0012 (#7); LR 0.03: −0.0040 (#9, keep)".

    The numbers are raw differences to the incumbent of their time: the mean over paired seeds, or what the
    judge estimates where no seed is paired. They are not corrected for choosing the best of them.
    """
    rows = []
    for experiment, tuning in points:
        verdict, where = experiment.verdict, one_line(tuning.where)
        if verdict is None:
            rows.append(f"{where}: open (#{experiment.number})")
            continue
        gain = raw_gain(verdict, metric)
        came = "no score" if gain is None else _signed(metric.change(gain), metric.digits)
        kind = "" if gain is not None and verdict.kind is VerdictKind.DISCARD else f", {verdict.kind}"
        rows.append(f"{where}: {came} (#{experiment.number}{kind})")
    return "; ".join(rows)


def raw_gain(verdict: Verdict, metric: Metric) -> float | None:
    """The mean gain over paired seeds as measured, or the judge's estimate without any; None: no score."""
    if not verdict.pairs:
        return verdict.effect
    return sum(metric.gain(before, after) for _, before, after in verdict.pairs) / len(verdict.pairs)


def _signed(value: float, digits: int) -> str:
    if value == 0:  # also the -0.0 at which an interval may end
        return f"{0:.{digits}f}"
    return f"{value:+.{digits}f}".replace("-", "−")


def evidence_text(verdict: Verdict) -> str:
    """The judge's test statistic, a z value unless the judge says otherwise; empty if it has none."""
    return "" if verdict.evidence is None else f"{verdict.evidence:.2f}"


def guards_text(verdict: Verdict) -> str:
    """What a change does to the guards that were measured: "rare +0.0012, late lost -0.03"."""
    known = [gain for gain in verdict.guards if gain.gain is not None]
    return ", ".join(f"{g.guard} {'lost ' if g.lost else ''}{g.gain:+.4g}" for g in known)


def count(number: int, noun: str) -> str:
    """A number and its noun: "1 run", "2 runs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def times(number: int) -> str:
    """How often: "once", "2 times"."""
    return "once" if number == 1 else f"{number} times"
