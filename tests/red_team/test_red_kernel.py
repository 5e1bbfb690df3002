"""Attacks on the timing of kernels: each ends as invalid, as a crash, or with the speed that it has earned.

By default each is made once. That it would pay without its protection is a soak test.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoresearch.errors import UserError
from autoresearch.execute.sandbox import Limits, Sandbox, cgroup, usage
from autoresearch.tasks.kernel import measurer, process
from autoresearch.tasks.kernel.process import KernelServer
from autoresearch.tasks.kernel.results import first_wrong
from autoresearch.tasks.kernel.timing import Cost, Stopwatch
from autoresearch.types import Measurement, Outcome
from tests.red_team.arena import one_by_default
from tests.support.kernels import HONEST, SPEC, measure, write_tree

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch
LIMITS = Limits(memory_gb=1.0, processes=32, file_gb=0.1, open_files=64)
EARNED, PAID = 0.7, 1.3
"""Doublings: at most as fast as the reference, but for noise; and faster than an honest kernel can be."""

TOOLS = f"""{HONEST.replace("def kernel", "def slowly")}
import ctypes, mmap, os, signal, sys, threading, time


def harness():
    frame = sys._getframe()
    while "target" not in frame.f_locals or "wire" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals


def place():
    locals = harness()
    offset, shape, dtype = locals["outputs"][0]
    return np.ndarray(shape, dtype, locals["target"], offset)


"""
CACHES = """known = {}


def kernel(x):
    key = x.tobytes()
    if key not in known:
        known[key] = slowly(x)
    return known[key]
"""
EARLIER = """earlier = []


def kernel(x):
    if len(x) == 2000:
        earlier.append(slowly(x) if not earlier else earlier[0])
    return earlier[0][:] if len(x) == 2000 else slowly(x)
"""
AT_IMPORT = """import spec

rng = np.random.default_rng(7)  # a guess at the seed
table = {x.tobytes(): slowly(x) for x in (spec.inputs(rng, 2000)[0] for _ in range(8))}


def kernel(x):
    key = x.tobytes()
    return table[key] if key in table else slowly(x)
"""
LEFTOVERS = """def kernel(x):
    return place().copy()
"""
FILLS = """def fill(x, out):
    time.sleep(0.02)
    out[...] = slowly(x)


def kernel(x):
    threading.Thread(target=fill, args=(x.copy(), place())).start()
    time.sleep(0.001)
    return place()
"""
THREADS = """def kernel(x):
    found = []
    thread = threading.Thread(target=lambda: found.append(slowly(x)))
    thread.start()
    thread.join()
    return found[0]
"""
FORKS = """shared = mmap.mmap(-1, 1 << 20)


def kernel(x):
    child = os.fork()
    if not child:
        np.ndarray(x.shape, x.dtype, shared)[...] = slowly(x)
        os._exit(0)
    os.waitpid(child, 0)
    return np.ndarray(x.shape, x.dtype, shared).copy()
"""
UNREAPED = """shared = mmap.mmap(-1, 1 << 20)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so no account of a parent ever holds their time


def kernel(x):
    end, begin = os.pipe()
    if not os.fork():
        np.ndarray(x.shape, x.dtype, shared)[...] = slowly(x)
        os._exit(0)
    os.close(begin)
    os.read(end, 1)
    os.close(end)
    return np.ndarray(x.shape, x.dtype, shared).copy()
"""
CLOCK = """for name in ("time", "perf_counter", "monotonic", "process_time", "thread_time", "clock_gettime"):
    setattr(time, name, lambda *args, real=getattr(time, name): real(*args) / 10)
kernel = slowly
"""
SLOPPY = """def sloppily(x):
    x = x.astype(np.float32)
    y = x
    for _ in range(8):
        y = 0.5 * np.sin(y) + x
    return y.astype(np.float64)


"""
PRECISION = f"{SLOPPY}def kernel(x):\n    return sloppily(x) if len(x) == 2000 else slowly(x)\n"
TIMED = f"""{SLOPPY}calls = [0]


def kernel(x):
    calls[0] += 1
    return sloppily(x) if calls[0] > 12 else slowly(x)
"""
UNTIMED = """def kernel(x):
    return slowly(x)[:] if len(x) == 2000 else x
"""
WRITES = """def kernel(x):
    if len(x) == 2000:
        ctypes.memset(x.ctypes.data, 0, x.nbytes)
        return np.zeros_like(x)
    return slowly(x)
"""
REPLACES = """import pathlib, spec

spec.reference = lambda x: x
try:
    pathlib.Path(spec.__file__).write_text("broken (")
except OSError:
    pass
kernel = slowly
"""
SLOW_SPEC = SPEC.replace("    return y", "    for _ in range(2000):\n        np.sin(x)\n    return y")
"""The same results, much later."""
CONSTANT = SPEC.replace("rng.random(size)", "np.linspace(0, 1, size)")


def same_inputs(patch: Patch) -> None:
    patch.setattr(measurer._Trial, "_secret", lambda self, what: 7)


def answers_lie_there(patch: Patch) -> None:
    patch.setattr(measurer, "blank", lambda batch: batch.right)


def copied_late(patch: Patch) -> None:
    """As if time ended with the answer, and results were looked at later."""
    ask = KernelServer.ask

    def late(self: Any, *args: Any) -> Any:
        answer = ask(self, *args)
        self.noted = self.cpu
        time.sleep(0.3)
        return answer

    def settle(self: Any) -> None:
        if self._open is not None:
            cpu, wall, waited = self._open
            self.costs.append(Cost(self._server.noted - cpu, wall, waited))
            self._open = None

    patch.setattr(KernelServer, "ask", late)
    patch.setattr(Stopwatch, "settle", settle)
    unguarded(patch)


def unguarded(patch: Patch) -> None:
    patch.setattr(measurer, "too_idle", lambda pairs: "")


def main_thread_only(patch: Patch) -> None:
    """As if only the first thread of the first process were timed."""

    def cpu(self: KernelServer) -> float:
        for pid in usage.descendants(self._jailed.process.pid):
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2] == [b"-P"]:
                return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
        return 0.0

    patch.setattr(KernelServer, "cpu", property(cpu))
    unguarded(patch)


def no_group(patch: Patch) -> None:
    patch.setattr(cgroup, "create", lambda limits: None)


def own_clock(patch: Patch) -> None:
    """As if the process said itself what it has used."""
    text = process.SERVER.replace(
        '"type": "done", **answer', '"type": "done", "cpu": time.process_time(), **answer'
    )
    patch.setattr(process, "SERVER", text.replace("import sys\n", "import sys\nimport time\n"))
    answer = KernelServer.answer

    def told(self: Any, *args: Any) -> Any:
        found = answer(self, *args)
        self.told = found.get("cpu", 0.0)
        return found

    patch.setattr(KernelServer, "answer", told)
    patch.setattr(KernelServer, "cpu", property(lambda self: getattr(self, "told", 0.0)))
    unguarded(patch)


def no_tolerance(patch: Patch) -> None:
    patch.setattr(
        measurer, "first_wrong", lambda calls, got, right, *_: first_wrong(calls, got, right, 0.1, 0.1)
    )


def timed_results_unseen(patch: Patch) -> None:
    score = measurer._Trial.score

    def unseen(self: Any) -> float:
        patch.setattr(measurer, "first_wrong", lambda *args: "")
        return score(self)

    patch.setattr(measurer._Trial, "score", unseen)


def no_checks(patch: Patch) -> None:
    patch.setattr(measurer._Trial, "_check", lambda self: None)


def inputs_shared(patch: Patch) -> None:
    """As if the candidate could write the inputs, and the reference were run on what it leaves."""
    started: list[KernelServer] = []
    start = KernelServer.__init__

    def init(self: KernelServer, *args: Any) -> None:
        start(self, *args)
        started.append(self)

    def right_afterwards(calls: Any, got: bytes, right: bytes, *tolerance: float) -> str:
        wrong = first_wrong(calls, got, right, *tolerance)
        y = bytearray(right)
        for [[offset, shape, strides, dtype]], [[place, *_]] in calls:
            x = np.ndarray(shape, dtype, started[2].inputs, offset, strides)
            np.ndarray(shape, dtype, y, place)[...] = reference(x)
        return wrong and first_wrong(calls, got, bytes(y), *tolerance)

    patch.setattr(KernelServer, "__init__", init)
    patch.setattr(measurer, "first_wrong", right_afterwards)
    patch.setattr(process, "SEALS", process.SEALS & ~0x10)
    patch.setattr(process, "SERVER", process.SERVER.replace(", access=mmap.ACCESS_READ", ""))


def reference(x: Any) -> Any:
    y = x
    for _ in range(400):
        y = 0.5 * np.sin(y) + x
    return y


@dataclass(frozen=True)
class Attack:
    """A candidate, how its trial ends, and the protections without which it would pay.

    Attributes:
        kernel: Its source, after `TOOLS`.
        ends: None: well, or as invalid, since who starts threads or children waits for them.
        without: Takes the protections away.
        says: What the reason holds.
    """

    kernel: str
    ends: Outcome | None
    without: Callable[[Patch], None]
    says: str = ""


ATTACKS = {
    "caches by input": Attack(CACHES, Outcome.OK, same_inputs),
    "returns an earlier result": Attack(EARLIER, Outcome.INVALID, timed_results_unseen, "wrong result"),
    "computes at import": Attack(AT_IMPORT, Outcome.OK, same_inputs),
    "reads what lies in the memory of results": Attack(LEFTOVERS, Outcome.INVALID, answers_lie_there),
    "fills in results later": Attack(FILLS, Outcome.INVALID, copied_late, "wrong result"),
    "computes in a thread": Attack(THREADS, None, main_thread_only),
    "computes in a child": Attack(FORKS, None, main_thread_only),
    "slows its clocks": Attack(CLOCK, Outcome.OK, own_clock),
    "uses less precision": Attack(PRECISION, Outcome.INVALID, no_tolerance, "wrong result"),
    "uses less precision when timed": Attack(TIMED, Outcome.INVALID, timed_results_unseen, "wrong result"),
    "writes its inputs": Attack(WRITES, Outcome.CRASH, inputs_shared, "SIGSEGV"),
}


def fight(place: Path, kernel: str, sandbox: Sandbox, *, spec: str = SPEC, **asked: Any) -> Measurement:
    return measure(place, write_tree(place / "tree", TOOLS + kernel, spec), sandbox=sandbox, **asked)


def earned(done: Measurement) -> bool:
    return done.outcome is Outcome.OK and done.score is not None and done.score < EARNED


def paid(done: Measurement) -> bool:
    return done.outcome is Outcome.OK and done.score is not None and done.score > PAID


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gains_nothing(name: str, tmp_path: Path, bwrap: Sandbox) -> None:
    attack = ATTACKS[name]
    done = fight(tmp_path, attack.kernel, bwrap)
    ends = (attack.ends,) if attack.ends else (Outcome.OK, Outcome.INVALID)
    assert done.outcome in ends and attack.says in done.reason, done
    assert done.score is None or earned(done), done


@pytest.mark.soak
@pytest.mark.parametrize("name", ATTACKS)
def test_without_its_protection_it_would_pay(
    name: str, tmp_path: Path, bwrap: Sandbox, monkeypatch: Patch
) -> None:
    ATTACKS[name].without(monkeypatch)
    done = fight(tmp_path, ATTACKS[name].kernel, bwrap)
    assert paid(done), done


def test_children_whose_time_no_account_holds_show_in_the_wait(
    tmp_path: Path, bwrap: Sandbox, monkeypatch: Patch
) -> None:
    no_group(monkeypatch)
    for _ in range(3):  # beside other programs a part of the wait is for a core, and is no sign
        done = fight(tmp_path, UNREAPED, bwrap)
        assert not paid(done), done
        if done.outcome is Outcome.INVALID:
            break
    assert "waits" in done.reason, done


def test_a_control_group_counts_them(tmp_path: Path, bwrap: Sandbox, monkeypatch: Patch) -> None:
    if (group := cgroup.create(LIMITS)) is None or group.account is None:
        pytest.skip("needs a control group that counts CPU time")
    group.remove()
    unguarded(monkeypatch)
    done = fight(tmp_path, UNREAPED, bwrap)
    assert earned(done), done


@pytest.mark.soak
def test_if_waiting_were_free_they_would_pay(tmp_path: Path, bwrap: Sandbox, monkeypatch: Patch) -> None:
    main_thread_only(monkeypatch)
    assert paid(fight(tmp_path, UNREAPED, bwrap))


def test_the_reference_is_that_of_the_start(tmp_path: Path, bwrap: Sandbox) -> None:
    trusted = write_tree(tmp_path / "trusted")
    done = fight(tmp_path, REPLACES, bwrap, trusted=trusted)
    assert earned(done) and (tmp_path / "tree" / "spec.py").read_text() == SPEC, done
    assert earned(fight(tmp_path, "kernel = slowly", bwrap, spec=SLOW_SPEC, trusted=trusted))


@pytest.mark.soak
def test_a_reference_that_the_candidate_changes_would_pay(tmp_path: Path, bwrap: Sandbox) -> None:
    assert paid(fight(tmp_path, "kernel = slowly", bwrap, spec=SLOW_SPEC))


def test_a_kernel_that_is_right_at_timed_sizes_only_is_invalid(tmp_path: Path, bwrap: Sandbox) -> None:
    done = fight(tmp_path, UNTIMED, bwrap)
    assert done.outcome is Outcome.INVALID and "wrong result" in done.reason, done


@pytest.mark.soak
def test_without_hidden_checks_it_would_pass(tmp_path: Path, bwrap: Sandbox, monkeypatch: Patch) -> None:
    no_checks(monkeypatch)
    assert fight(tmp_path, UNTIMED, bwrap).outcome is Outcome.OK


def test_inputs_that_do_not_change_are_refused(tmp_path: Path, bwrap: Sandbox) -> None:
    with pytest.raises(UserError, match="the same for any rng"):
        fight(tmp_path, CACHES, bwrap, spec=CONSTANT)


@pytest.mark.soak
def test_if_they_were_allowed_a_cache_would_pay(tmp_path: Path, bwrap: Sandbox, monkeypatch: Patch) -> None:
    monkeypatch.setattr(process, "SERVER", process.SERVER.replace('"constant": same', '"constant": []'))
    assert paid(fight(tmp_path, CACHES, bwrap, spec=CONSTANT))


NONSENSE = {
    "an early answer": 'harness()["wire"].send(b\'{"type": "done"}\')',
    "no JSON": 'harness()["wire"].send(b"[" * 100_000)',
    "a number": 'harness()["wire"].send(b"7")',
    "a reason that is no text": 'harness()["wire"].send(b\'{"type": "failed", "reason": {"a": [1]}}\')',
    "the end": 'harness()["wire"].close()',
    "nothing": "os._exit(0)",
    "a seal": "import fcntl; fcntl.fcntl(int(sys.argv[1].split('\"outputs\": ')[1].split(',')[0]), 1033, 8)",
}


@pytest.mark.parametrize("what", one_by_default(NONSENSE))
def test_nonsense_fails_the_candidate_and_not_the_runner(what: str, tmp_path: Path, bwrap: Sandbox) -> None:
    done = fight(tmp_path, f"def kernel(x):\n    {NONSENSE[what]}\n    return slowly(x)\n", bwrap)
    assert done.outcome in (Outcome.CRASH, Outcome.INVALID) or earned(done), done
    assert done.outcome is not Outcome.OK or what in ("an early answer", "a seal"), done
