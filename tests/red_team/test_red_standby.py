"""Attacks on the processes that wait for the next trial, from the trial before, with its model being scored.

Where they wait can be guessed: a candidate's own folders have been such a place. The next candidate must find
nothing of the one before, whatever that one tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoresearch.execute.sandbox import Sandbox
from autoresearch.execute.sandbox.plain import PlainSandbox
from autoresearch.tasks.gpt.processes import Standby
from autoresearch.types import Outcome
from tests.red_team.arena import Arena, honest
from tests.support import toy
from tests.support.toy import TRAIN

pytestmark = pytest.mark.slow

HEAD = "return self.head(F.relu(self.up(x)))"
POISON = """self.poison()
        return self.head(F.relu(self.up(x)))

    def poison(self):
        import glob, os, signal
        place = os.environ["PYTHONPATH"].removesuffix("/code")
        own = int(os.path.basename(place))
        for number in {*range(own - 3, own + 9)} - {own}:
            other = f"{os.path.dirname(place)}/{number}"
            paths = [f"{other}/code/nanomodel/harness.py", f"{other}/code/x.py"]
            for path in [*paths, *(f"{found}/torch.py" for found in glob.glob(f"{other}/scratch/*"))]:
                try:
                    open(path, "a").write("raise SystemExit('mine')")
                    print("poisoned", path, flush=True)
                except OSError:
                    pass
            if os.path.isdir(f"{other}/code"):
                print("in sight", other, flush=True)
        try:
            names = os.listdir("/proc")
        except OSError:  # closed, but numbers can be guessed
            names = map(str, range(max(1, os.getpid() - 99), os.getpid() + 9))
        for name in names:
            try:
                if name.isdigit() and "nanomodel.standby" in open(f"/proc/{name}/cmdline").read():
                    if int(name) not in (os.getpid(), os.getppid()):
                        print("found", name, flush=True)
            except OSError:
                pass"""
SUBMIT = "    run.submit(model)\n"
LINGER = """    import time
    for _ in range(20):  # the next one's processes start near the end, when the runner hears how far it is
        time.sleep(0.15)
        run.log(step, loss=loss)
        model.poison()
    run.submit(model)
"""
ATTACK = honest((HEAD, POISON), (SUBMIT, LINGER))


@pytest.fixture
def options(arena: Arena, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A runner whose trials wait for each other, on the arena's host."""
    trusted = toy.write_code(tmp_path / "trusted", TRAIN)
    found = {"trusted": trusted, "standby": tmp_path / "standby", "editable": ("nanomodel/train.py",)}
    yield found
    for key in [key for key in arena.runners if ("trusted", trusted) in key]:
        arena.runners.pop(key).close()


def prepare(arena: Arena, sandbox: Sandbox, options: dict[str, Any]) -> Standby:
    """Have processes kept ready for the next fight."""
    standby = arena.runner(sandbox, **options)._resources.standby
    assert standby is not None
    standby.prepare()
    return standby


def test_a_candidate_reaches_no_process_of_the_next_trial(
    arena: Arena,
    sandbox: Sandbox,
    honest_score: float,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    standby = prepare(arena, sandbox, options)
    attack = arena.fight(ATTACK, sandbox, **options)  # the next one's processes are started
    monkeypatch.setattr(standby, "prepare", lambda: None)  # those after the last would be in vain
    after = arena.fight(TRAIN, sandbox, **options)
    assert "poisoned" not in attack.log and "found" not in attack.log, attack.log
    if not sandbox.name.startswith("landlock"):  # there names can be guessed, see the threat model
        assert "in sight" not in attack.log
    assert attack.outcome is Outcome.OK, attack
    assert (after.outcome, after.score) == (Outcome.OK, honest_score), after


SPOILS = """    run = harness.connect()
    import os, pathlib
    own = pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    print("lent:", (own / "kernel.so").read_text(), flush=True)
    for file in (own / "kernel.so", own / "more.so", pathlib.Path(LENT, "inductor/kernel.so")):
        try:
            file.write_text("poison")
            print("spoilt", file, flush=True)
        except OSError:
            pass
"""


@pytest.mark.soak
def test_what_is_lent_is_a_copy(
    arena: Arena, either: Sandbox, honest_score: float, options: dict[str, Any]
) -> None:
    """Compiled code runs in whoever loads it: a candidate may spoil its own, and nobody else's."""
    lent = arena.root / "lent"
    (lent / "inductor").mkdir(parents=True, exist_ok=True)
    (lent / "inductor/kernel.so").write_text("executable treasure")
    attack = honest(("    run = harness.connect()\n", SPOILS.replace("LENT", repr(str(lent)))))
    places = {"trusted": options["trusted"], "compiled": lent}
    done = arena.fight(attack, either, compile=True, **places)  # which looks whether the host's has changed
    assert "lent: executable treasure" in done.log and done.log.count("spoilt") == 2, done.log
    assert str(lent) not in done.log
    assert (done.outcome, done.score) == (Outcome.OK, honest_score), done


class Unconfined(PlainSandbox):
    """No sandbox that says it is one, so that processes wait all the same."""

    @property
    def name(self) -> str:
        return "unconfined"


@pytest.mark.soak
def test_without_a_sandbox_waiting_processes_would_be_reached(arena: Arena, options: dict[str, Any]) -> None:
    prepare(arena, Unconfined(), options)
    attack = arena.fight(ATTACK, Unconfined(), **options)
    poisoned = [line for line in attack.log.splitlines() if line.startswith("poisoned")]
    assert any("/scratch/" in line and line.endswith("/torch.py") for line in poisoned), attack


def test_without_a_sandbox_no_processes_are_kept_ready(arena: Arena, options: dict[str, Any]) -> None:
    assert arena.runner(PlainSandbox(), **options)._resources.standby is None
