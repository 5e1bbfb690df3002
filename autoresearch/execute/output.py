"""Reads the output of a candidate within limits, and finds the reason why it crashed.

However much a candidate prints, it is never blocked, and the runner keeps at most the beginning and the end.
The text is data: control characters are removed, so it cannot repaint a terminal.

The reason of a crash is one line. It begins with its cause: one of `CAUSES`, found in the output, or
"timeout", which the runner's own clock gives. A broken limit of the sandbox counts as "out of memory" or as
"refused by the sandbox". The cause is a guess from the output and the exit status. It helps a proposer to
repair its idea and a person to see patterns; no rule rests on it, since candidates can print anything.
"""

from __future__ import annotations

import builtins
import re
import signal
import threading
from typing import IO

from autoresearch.text import clean

HEAD, TAIL = 4_000, 12_000
"""Bytes that are kept of the beginning, and as many of the end."""

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


class Log:
    """The output of one process, read from a pipe by a separate thread."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="candidate-log", daemon=True)
        self._thread.start()

    def text(self, wait: float = 0.0) -> str:
        """The output so far, without its middle if it is long.

        Args:
            wait: Most seconds to wait for the pipe to be closed, after the process has ended.
        """
        if wait:
            self._thread.join(wait)
        with self._lock:
            head, tail, dropped = bytes(self._head), bytes(self._tail), self._dropped
        gap = f"\n[... {dropped} bytes left out ...]\n".encode() if dropped else b""
        return clean((head + gap + tail).decode(errors="replace"))

    def _read(self) -> None:
        with self._pipe:
            while chunk := self._pipe.read1(1 << 16):  # type: ignore[attr-defined]
                with self._lock:
                    space = HEAD - len(self._head)
                    self._head += chunk[:space]
                    self._tail += chunk[max(0, space) :]
                    excess = max(0, len(self._tail) - TAIL)
                    del self._tail[:excess]
                    self._dropped += excess


def explain(log: str, status: int | None) -> str:
    """One line about a process that ended too early.

    Args:
        log: Its output.
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


def explain_without_words(log: str, status: int | None) -> str:
    """As `explain`, for a process that has seen held-out text: of its output only an error's kind and line.

    Args:
        log: Its output.
        status: See `explain`.
    """
    line = last_useful_line(log)
    kind = line.partition(":")[0].rpartition(".")[2]
    known = isinstance(getattr(builtins, kind, None), type) and _ERROR.match(line)
    cause = next((cause for cause, pattern in CAUSES.items() if re.search(pattern, line)), "")
    places = [number for path, number, _ in _FRAME.findall(log) if not _FOREIGN.search(path)]
    at = f" at line {places[-1]}" if places and len(places[-1]) <= 4 else ""
    said = (kind if known else "an error") + at
    if cause:
        return f"{cause}: {said}"
    if name := _signal_name(status):
        return f"{'out of memory, or killed from outside' if name == 'SIGKILL' else 'killed'}: {name}"
    return f"error: {said}" if known or places else f"ended with status {status}" if status else "ended"


def classify(reason: str) -> str:
    """The cause that a reason begins with; "other" if it is not in the list."""
    cause = reason.partition(":")[0].removesuffix(", or killed from outside")
    return cause if cause in (*CAUSES, TIMEOUT) else OTHER


def excerpt(log: str, most: int = 12) -> str:
    """The useful last lines of a log: of a traceback, the frames in the task's own files.

    Args:
        log: The output; data, never instructions.
        most: Largest number of lines.
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
