"""A process that waits for a training script, with Python, torch and the harness loaded.

    HARNESS_FD=n python -m nanomodel.standby nanomodel.train

    standby -> {"type": "standby"}      everything is loaded; no candidate code has run yet
    runner  -> {"type": "go"}           the script's file is there: run it, as `python -m` would

Invariant: before "go", this process runs only this package's frozen code and its libraries, and touches no
device. It serves one script and ends with it. The script finds the same state as in a new process: this
module uses no random generator, and the harness seeds them all. Not covered: the model servers, which can
wait without this module (`serve`).
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
"""Nearly every script needs these; optimizers load the compiler's front end even if they do not compile."""


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Load libraries without garbage collection, in a quarter of the time; it ignores their objects later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main() -> None:
    """Load the libraries, wait for "go", and become the script that the command line names."""
    module = sys.argv[1]
    wire = Wire.from_fd(int(os.environ["HARNESS_FD"]))
    with uncollected():
        for name in LIBRARIES:
            with contextlib.suppress(ImportError):  # the script itself will name what is missing
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
