"""Why a candidate broke down, in one line: a cause from a short list, and the last line that says so.

The cause is a guess from what the process printed and how it ended. It helps a proposer to mend its idea and
a person to see patterns; no rule rests on it, since candidates can print what they like.
"""

from __future__ import annotations

import re
import signal

MEMORY = "out of memory"
CAUSES = {
    MEMORY: r"out of memory|MemoryError|an't allocate memory|annot allocate memory|bad_alloc",
    "diverged": r"\bDiverged\b|(loss|grad\w*) is (nan|-?inf)",
    "import error": r"ImportError|ModuleNotFoundError",
    "syntax error": r"SyntaxError|IndentationError|TabError",
    "shape error": (
        r"shapes? .*(cannot|mismatch|invalid|incompatible)|size mismatch|must match the size|mat1 and mat2"
        r"|size of tensor|imension out of range|Expected size|invalid for input of size|not broadcastable"
    ),
    "compiler error": r"InductorError|BackendCompilerFailed|CppCompileError|Dynamo|dynamo",
    "disk full": r"No space left on device|File too large",
    "refused by the sandbox": r"PermissionError|Read-only file system|Operation not permitted|unreachable",
}
_ERROR = re.compile(
    r"^(?:[a-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Unsupported)|Diverged)\b.*"
)
_PLACE = re.compile(r'\(most recent call first\):\n\s+File "([^"\n]+)", line (\d+)')


def explain(log: str, status: int | None) -> str:
    """One line about a process that ended too early.

    Args:
        log: What it printed.
        status: Exit status as `subprocess` gives it; None if it had to be killed.
    """
    line = last_useful_line(log)
    for cause, pattern in CAUSES.items():
        if re.search(pattern, line):
            return f"{cause}: {line}"
    if name := _signal_name(status):
        cause = "out of memory, or killed from outside" if name == "SIGKILL" else "killed"
        return f"{cause}: {name}" + (f" after: {line}" if line else "")
    if _ERROR.match(line):
        return f"error: {line}"
    ended = f"ended with status {status}" if status else "ended"
    return f"{ended} before it submitted" + (f", after: {line}" if line else ", and printed nothing")


def where(log: str) -> str:
    """The place where a process was when it was told to stop, e.g. " (at train.py:31)"; else empty."""
    found = _PLACE.findall(log)
    return f" (at {found[-1][0].rsplit('/', 1)[-1]}:{found[-1][1]})" if found else ""


def last_useful_line(log: str, limit: int = 300) -> str:
    """The last line that names an exception, else the last one with text."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    line = (errors or lines or [""])[-1]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _signal_name(status: int | None) -> str:
    """Name of the signal behind an exit status; sandboxes report it as 128 + n, as shells do."""
    number = -status if status is not None and status < 0 else (status or 0) - 128
    return signal.Signals(number).name if number in set(signal.Signals) else ""
