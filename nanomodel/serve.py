"""The model server: runs the candidate's model on tokens that the scorer chooses.

    server -> {"type": "hello", "protocol": 1}      it runs
    server -> {"type": "warm"}                      torch is loaded; no candidate code has run yet
    scorer -> {"type": "load", vocab, context, rows, length, device, threads} + [weights, memory]
    server -> {"type": "loaded"}
    scorer -> {"type": "forward"}                   tokens lie in memory, int64 [rows, length]
    server -> {"type": "logits", "dtype": "float32" | "bfloat16"}       logits lie there too
    server -> {"type": "failed", "stage": "load" | "forward", "reason"}     instead of either answer

It can start early: until it gets weights it is idle, and runs only this package's own code.
"""

from __future__ import annotations

import os

from nanomodel.standby import uncollected
from nanomodel.wire import PROTOCOL, Wire


def main() -> None:
    """Serve the other end of $HARNESS_FD until it closes the socket."""
    wire = Wire.from_fd(int(os.environ["HARNESS_FD"]))
    wire.send({"type": "hello", "protocol": PROTOCOL})
    with uncollected():
        from nanomodel.scoring.server import serve  # loads torch; the hello must not wait for it

    wire.send({"type": "warm"})
    serve(wire)


if __name__ == "__main__":
    main()
