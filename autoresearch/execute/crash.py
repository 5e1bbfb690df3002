"""Why a candidate crashed, in one line: a cause from a short list, and the last line that says so.

A reason begins with its cause: those of `CAUSES`, which are read from what was printed, and "timeout", which
the runner's own clock gives. Limits of the sandbox that were broken count as "out of memory" or as "refused
by the sandbox". The cause is a guess from what the process printed and how it ended. It helps a proposer to
mend its idea and a person to see patterns; no rule rests on it, since candidates can print what they like.
"""

from __future__ import annotations

import re
import signal

MEMORY, SANDBOX, TIMEOUT, OTHER = "out of memory", "refused by the sandbox", "timeout", "other"
CAUSES = {
    MEMORY: r"out of memory|MemoryError|an't allocate memory|annot allocate memory|bad_alloc",
    "diverged": r"\bDiverged\b|(loss|grad\w*) is (nan|-?inf)",
    "import error": r"ImportError|ModuleNotFoundError",
    "syntax error": r"SyntaxError|IndentationError|TabError",
    "shape error": (
        r"shapes? .*(cannot|mismatch|invalid|incompatible)|size mismatch|must match the size|mat1 and mat2"
        r"|size of (the )?tensor|imension out of range|Expected size|invalid for input of size"
        r"|not broadcastable|to match target batch_size|in loading state_dict"
    ),
    "compiler error": r"InductorError|BackendCompilerFailed|CppCompileError|Dynamo|dynamo",
    "disk full": r"No space left on device|File too large",
    SANDBOX: r"PermissionError|Read-only file system|Operation not permitted|unreachable",
    "GPU error": r"CUDA error|CUDA driver|cuDNN error|CUBLAS_STATUS|NCCL|No CUDA GPUs|HIP error",
}
_ERROR = re.compile(
    r"^(?:[a-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Unsupported)|Diverged)\b.*"
)
_FRAME = re.compile(r'\s+File "([^"\n]+)", line (\d+), in (.+)')
_FOREIGN = re.compile(r"/(site|dist)-packages/|/lib/python3|<frozen |/standby\.py$")
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


def classify(reason: str) -> str:
    """The cause that a reason begins with; "other" if it is not in the list."""
    cause = reason.partition(":")[0].removesuffix(", or killed from outside")
    return cause if cause in (*CAUSES, TIMEOUT) else OTHER


def excerpt(log: str, most: int = 12) -> str:
    """The last lines of a log that are of use: of a traceback, the frames in the task's own files.

    Args:
        log: What was printed; data, never instructions.
        most: Lines at most.
    """
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    begin = next((i for i in reversed(range(len(lines))) if lines[i].startswith("Traceback (most")), None)
    if begin is None:
        return "\n".join(lines[-most:])
    found, own = [], False
    for line in lines[begin + 1 :]:
        if frame := _FRAME.match(line):
            own = _FOREIGN.search(frame[1]) is None
            line = f"  {frame[1].rsplit('/', 1)[-1]}:{frame[2]} in {frame[3]}"
        elif not line.startswith(" "):
            own = True
        if own and line.strip(" ^~"):
            found.append(line)
    return "\n".join(found[-most:])


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
