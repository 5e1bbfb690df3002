"""Work before the clock and after the deadline, and telling a trainer, a server and the witness apart.

The clock stands still while a candidate starts, and while its weights are loaded and scored. What it computes
then has a price: the runner counts CPU time from outside, and the guards hold it against the baseline.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from autoresearch.execute.sandbox import Sandbox
from autoresearch.judge.limits.resources import GUARDS, broken_guard
from autoresearch.tasks.gpt import scoring
from autoresearch.tasks.gpt.processes import FOLDERS
from autoresearch.types import Measurement, Outcome
from tests.red_team.arena import Arena, honest
from tests.support.toy import TRAIN

pytestmark = pytest.mark.slow

SECONDS = 3.0
BURN = f"""
    import os, time
    end = time.process_time() + {SECONDS}
    while time.process_time() < end:
        sum(range(1000))
"""
CHILD = f"""
    import os, subprocess, sys
    burn = "import time\\nwhile time.process_time() < {SECONDS}: sum(range(1000))"
    subprocess.run([sys.executable, "-I", "-S", "-c", burn])
"""
SHORT = f"""
    import os, time
    while sum(os.times()[2:4]) < {SECONDS}:
        if not os.fork():
            end = time.process_time() + 0.02
            while time.process_time() < end:
                pass
            os._exit(0)
        os.wait()
"""
RETURN = "    return Model(vocab, context)"
FORWARD = "        x = self.embed(tokens)\n"
BEFORE = {
    "before the clock": ("    run.start()\n", BURN + "    run.start()\n"),
    "before the clock, in a child": ("    run.start()\n", CHILD + "    run.start()\n"),
    "before the clock, in children of 20 ms": ("    run.start()\n", SHORT + "    run.start()\n"),
}
AFTER = {
    "while the weights are loaded": (
        RETURN,
        '    if __name__ != "__main__":' + BURN.replace("\n    ", "\n        ") + RETURN,
    ),
    "with the first request": (
        FORWARD,
        "        if not self.training and not hasattr(self, 'asked'):\n            self.asked = True"
        + BURN.replace("\n    ", "\n            ")
        + FORWARD,
    ),
}


@pytest.fixture(scope="module")
def usual(arena: Arena, bwrap: Sandbox) -> Measurement:
    return arena.fight(TRAIN, bwrap)


@pytest.mark.soak
@pytest.mark.parametrize("when", BEFORE)
def test_time_before_the_clock_has_a_price(
    when: str, arena: Arena, bwrap: Sandbox, usual: Measurement
) -> None:
    name = "startup_cpu_seconds"
    done = arena.fight(honest(BEFORE[when]), bwrap)
    assert done.outcome is Outcome.OK, f"{done.reason}\n{done.log}"
    assert done.metrics[name] >= SECONDS
    assert broken_guard(usual.metrics, [usual.metrics], {name: 2.0}) == ""
    quiet = {name: done.metrics[name] - SECONDS}  # what it would have been without the detour
    assert f"guard: {GUARDS[name].what}" in broken_guard(done.metrics, [quiet], {name: 1.0})


@pytest.mark.soak
@pytest.mark.parametrize("when", AFTER)
def test_time_after_the_deadline_has_a_price(
    when: str, arena: Arena, bwrap: Sandbox, usual: Measurement
) -> None:
    done = arena.fight(honest(AFTER[when]), bwrap)
    assert done.outcome is Outcome.OK, f"{done.reason}\n{done.log}"
    assert done.metrics["score_cpu_seconds"] >= 2 * SECONDS, "the model's server and the witness's"
    assert usual.metrics["score_cpu_seconds"] < 2 * SECONDS or usual.metrics["score_seconds"] > 2 * SECONDS


ROLE = """    if __name__ != "__main__":
        import json, os, sys
        facts = {"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "files": os.listdir()}
        numbers = (0, 1, 2, int(os.environ["HARNESS_FD"]))
        facts["descriptors"] = [os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in numbers]
        open("role", "w").write(json.dumps(facts))
"""


def test_nothing_tells_the_model_s_server_from_the_witness_s(
    arena: Arena, either: Sandbox, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "remove_tree", lambda folder: None)  # what each has written is read below
    with ExitStack() as stack:  # the lowest free number would be another one for each process
        for _ in range(100):
            stack.callback(os.close, os.dup(0))
        done = arena.fight(honest((RETURN, ROLE + RETURN)), either, submission=trained / "weights")
    assert done.outcome is Outcome.OK, f"{done.reason}\n{done.log}"
    written = ((arena.scratch() / name / "role").read_text() for name in ("model", "witness"))
    model, witness = (re.sub(r"/[0-9a-f]{12}\b", "/*", text) for text in written)
    assert model == witness and "/*" in model
    assert not any(f"/{name}" in model for name in FOLDERS)
