"""Candidates that speak protocol 1 without torch, so that what the runner does with them is tested fast."""

from __future__ import annotations

from pathlib import Path

from tests.support import toy

OPENING = """
import json, os, signal, subprocess, sys, threading, time
from nanomodel.wire import Wire
wire = Wire.from_fd(int(os.environ["HARNESS_FD"]))
"""
HELLO = 'wire.send({"type": "hello", "protocol": 1})\ntask, _ = wire.recv()\n'
READY = 'wire.send({"type": "ready"})\n_, (data,) = wire.recv()\n'
WEIGHTS = 'open("weights.pt", "wb").write(b"weights")\n'
SUBMIT = 'wire.send({"type": "submit", "metrics": {"steps": 3, "tokens": 900}})\ntime.sleep(60)\n'


def write_script(path: Path, *parts: str) -> Path:
    """A candidate's tree whose training script is the given parts, after `OPENING`."""
    return toy.write_code(path, OPENING + "".join(parts))
