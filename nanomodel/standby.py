"""A process that waits for a training script to come: Python, torch and the harness are loaded already.

    HARNESS_FD=n python -m nanomodel.standby nanomodel.train

    standby -> {"type": "standby"}      everything is loaded; no candidate code has run yet
    runner  -> {"type": "go"}           the script is in its place: run it, as `python -m` would

Invariant: until it is told to go, this process runs nothing but this package's frozen code and its libraries,
and touches no device; it serves one script and ends with it. What the script finds is what it would find in
a process of its own: no random generator is used here, and the harness seeds them all. Not covered: the
model servers, which wait by themselves (`serve`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import runpy
import sys
from collections.abc import Iterator

from nanomodel.wire import Closed, Wire

LIBRARIES = ("torch", "torch._dynamo", "nanomodel.harness")
"""What nearly every script needs; optimizers load the compiler's front end, whether they compile or not."""


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Load libraries without looking for garbage, a quarter of the time; what they made stays exempt."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main() -> None:
    """Load, wait for the word, and become the script that the command line names."""
    module = sys.argv[1]
    wire = Wire.from_fd(int(os.environ["HARNESS_FD"]))
    with uncollected():
        for name in LIBRARIES:
            with contextlib.suppress(ImportError):  # the script will say what it misses
                importlib.import_module(name)
    wire.send({"type": "standby"})
    try:
        wire.recv()
    except Closed:
        return
    os.environ["HARNESS_FD"] = str(wire.release())
    importlib.invalidate_caches()  # the script's file is newer than the last look into its folder
    del sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
