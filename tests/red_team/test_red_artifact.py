"""Attacks on the trust `artifact` of the task `command`: by what a candidate leaves, and before that.

An attack pays if its score is better than any honest one. Each is made with its protection, and (as a soak
test) with the protection taken away, where it must pay: else it would prove nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from autoresearch.execute.sandbox import Jail, Sandbox
from autoresearch.tasks.command import processes, stages
from autoresearch.types import Outcome
from tests.support import command_task as support
from tests.support.command_task import Arena

pytestmark = pytest.mark.slow

ANSWERS = 'str(pathlib.Path(os.environ["AUTORESEARCH_DATA"]).parent / "validation" / "y.json")'
WRITE = '(out / "predictions.json").write_text(json.dumps([LEVEL + noise for _ in inputs]))\n'
PAYING = 'print("METRIC error=0"); print("METRIC accuracy=1")'
LISTING = support.SCORE + 'print("files:", *os.listdir(os.environ["AUTORESEARCH_OUT"]))\n'
UNPICKLING = "import pickle\n" + support.SCORE.replace("said = json.loads(", "said = pickle.loads(").replace(
    '"predictions.json").read_text())', '"predictions.json").read_bytes())'
)
Take = Callable[[Arena, pytest.MonkeyPatch], None]


def copied_blindly(arena: Arena, patch: pytest.MonkeyPatch) -> None:
    """What is left is copied as it is."""

    def copy(source: Path, target: Path, most: int) -> int:
        shutil.copytree(source, target, symlinks=True, copy_function=shutil.copy2)
        return 1

    patch.setattr(stages, "collect", copy)


def scored_in_the_candidate_s_tree(arena: Arena, patch: pytest.MonkeyPatch) -> None:
    made = arena.measurer.stages
    patch.setattr(
        made, "commands", replace(made.commands, trusted=arena.folder / "scratch1" / "train" / "work")
    )


def imported_from_what_was_left(arena: Arena, patch: pytest.MonkeyPatch) -> None:
    made = arena.measurer.stages
    variables = {"PYTHONPATH": str(arena.folder / "scratch1" / "artifact")}
    patch.setattr(made, "_around", replace(made._around, variables=variables))


def programs_of_what_was_left(arena: Arena, patch: pytest.MonkeyPatch) -> None:
    copied_blindly(arena, patch)
    made = arena.measurer.stages
    programs = (arena.folder / "scratch1" / "artifact", *made._around.programs)
    patch.setattr(made, "_around", replace(made._around, programs=programs))


def scored_while_it_lives(arena: Arena, patch: pytest.MonkeyPatch) -> None:
    """The program's children live on when it has ended, and the scorer reads where they write."""
    patch.setattr(stages, "collect", lambda source, target, most: target.symlink_to(source) or 1)
    patch.setattr(processes, "start", Unwatched)


class Unwatched:
    """A command in its jail, of which only the first process is ended, as `start` gives it otherwise."""

    breach, peak_memory, cpu_seconds, waited_seconds = "", 0, 0.0, None

    def __init__(self, sandbox: Sandbox, argv: list[str], jail: Jail, **streams: int) -> None:
        if "score.py" not in argv[-1]:  # else the daemon would end with its namespace
            made = {"env": dict(jail.env), "cwd": jail.cwd}
        else:
            argv, made = sandbox.wrap(argv, jail), {"env": {}, "cwd": "/"}
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **made, **streams)  # type: ignore[call-overload]

    def __enter__(self) -> Unwatched:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def kill(self, *, empty: bool = True) -> None:
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Attack:
    """A change of `train.py`, another scorer, further settings, and what takes the protection away.

    `without` is a function, or other settings, or "none" for a trial without a sandbox.
    """

    change: tuple[str, str]
    without: Take | tuple[str, ...] | str
    score: str = support.SCORE
    settings: tuple[str, ...] = ()


ATTACKS = {
    "a link to the answers": Attack(
        (WRITE, f'(out / "predictions.json").symlink_to({ANSWERS})\n'), copied_blindly
    ),
    "a folder that is a link": Attack(
        (
            WRITE,
            f"out.rmdir(); out.symlink_to(pathlib.Path({ANSWERS}).parent)\n",
        ),
        copied_blindly,
        score=support.SCORE.replace("predictions.json", "y.json"),
    ),
    "answers read in training": Attack(
        (WRITE, f'(out / "predictions.json").write_text(open({ANSWERS}).read())\n'), "none"
    ),
    "answers that were committed": Attack(
        (WRITE, '(out / "predictions.json").write_text(open("answers/y.json").read())\n'),
        ("task.held_out=[]",),
        settings=("task.held_out=[answers]",),
    ),
    "the metric printed and written": Attack(
        (
            WRITE,
            f'{WRITE}{PAYING}\nfor name in ("result.json", "items.npy"):\n'
            '    (out / name).write_text(json.dumps({"error": 0}))\n',
        ),
        ("task.score=null", "task.items=false", "task.splits=[validation]"),
    ),
    "another scorer in its own copy": Attack(
        (
            WRITE,
            f"{WRITE}open('score.py', 'w').write('''import os, numpy\n{PAYING}\n"
            "numpy.save(os.environ[\"AUTORESEARCH_ITEMS\"], [0.0])''')\n",
        ),
        scored_in_the_candidate_s_tree,
    ),
    "sitecustomize among what it leaves": Attack(
        (
            WRITE,
            f"{WRITE}(out / 'sitecustomize.py').write_text('''import os\n"
            'if "AUTORESEARCH_ITEMS" in os.environ:\n    import numpy\n'
            f'    numpy.save(os.environ["AUTORESEARCH_ITEMS"], [0.0])\n    {PAYING}\n'
            "    import sys; sys.stdout.flush(); os._exit(0)''')\n",
        ),
        imported_from_what_was_left,
    ),
    "a program called python among what it leaves": Attack(
        (
            WRITE,
            f"{WRITE}(out / 'python').write_text('''#!/bin/sh\necho METRIC error=0\necho METRIC accuracy=1\n"
            "''')\n(out / 'python').chmod(0o755)\n",
        ),
        programs_of_what_was_left,
        settings=("task.items=false",),
    ),
    "a name that says a metric": Attack(
        (WRITE, f"{WRITE}(out / 'x\\nMETRIC error=0').write_text('')\n"),
        copied_blindly,
        score=LISTING,
        settings=("task.metrics='regex:METRIC error=(\\S+)'", "task.items=false"),
    ),
    "a better file when its time is over": Attack(
        (
            WRITE,
            f"{WRITE}import time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(0.5)\n"
            "    (out / 'better').write_text(json.dumps([0.7 for _ in inputs]))\n"
            "    (out / 'better').rename(out / 'predictions.json')\n    os._exit(0)\n",
        ),
        scored_while_it_lives,
        score="import time; time.sleep(1)\n" + support.SCORE,
    ),
    "code in what it leaves": Attack(
        (
            WRITE,
            "import pickle\nclass Code:\n    def __reduce__(self):\n"
            "        return exec, ('''import os, numpy, sys\n"
            f'numpy.save(os.environ["AUTORESEARCH_ITEMS"], [0.0])\n{PAYING}\nsys.stdout.flush(); os._exit(0)'
            "''',)\n(out / 'predictions.json').write_bytes(pickle.dumps(Code()))\n",
        ),
        ("score.py unpickles",),
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def arena_of(attack: Attack, folder: Path, *, protected: bool) -> Arena:
    bare = attack.without == "none" and not protected
    unpickles = attack.without == ("score.py unpickles",)
    more = attack.without if isinstance(attack.without, tuple) and not protected and not unpickles else ()
    score = UNPICKLING if unpickles and not protected else attack.score
    root = support.write_artifact(folder / "repository", score_py=score)
    support.write(root, {"answers/y.json": "[0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]"})
    settings = (*support.ARTIFACT_SETTINGS, *attack.settings, *more)
    return Arena(root, folder / "arena", *settings, sandbox="none" if bare else "auto")


def attacked(attack: Attack) -> dict[str, str]:
    old, new = attack.change
    assert old in support.TRAIN
    return {"train.py": support.TRAIN.replace(old, new)}


def children() -> set[psutil.Process]:
    """Processes below this one; other tests may have left some."""
    return set(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_pays(folder: Path, name: str) -> None:
    arena = arena_of(ATTACKS[name], folder, protected=True)
    before = children()
    done = arena.measure(attacked(ATTACKS[name]))
    assert done.score is None or done.score > 0.15, done
    assert not children() - before


@pytest.mark.soak
@pytest.mark.parametrize("name", ATTACKS)
def test_each_pays_without_its_protection(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = ATTACKS[name]
    arena = arena_of(attack, folder, protected=False)
    if callable(attack.without):
        attack.without(arena, monkeypatch)
    done = arena.measure(attacked(attack))
    assert done.score is not None and done.score < 0.01, (done, arena.said)


def test_a_scorer_that_unpickles_is_named_before_anything_runs(folder: Path) -> None:
    arena = arena_of(ATTACKS["code in what it leaves"], folder, protected=False)
    (said,) = [line for line in arena.task.warnings(arena.data) if "may run code" in line]
    assert said.startswith("score.py, line ") and "no more than a printed one" in said


def honest_arena(folder: Path, *settings: str, sandbox: str = "auto") -> Arena:
    root = support.write_artifact(folder / "repository")
    return Arena(root, folder / "arena", *support.ARTIFACT_SETTINGS, *settings, sandbox=sandbox)


def test_nothing_it_starts_is_there_while_it_is_scored(folder: Path) -> None:
    daemon = (
        "if os.fork() == 0:\n    os.setsid()\n    import time\n    end = time.monotonic() + 60\n"
        "    while time.monotonic() < end:\n        (out / 'predictions.json').write_text('[9, 9]')\n"
        "        time.sleep(0.01)\n"
    )
    arena, others = honest_arena(folder), children()
    done = arena.measure({"train.py": support.TRAIN + daemon + "import time; time.sleep(0.3)\n" + WRITE})
    out = arena.folder / "scratch1" / "train" / "out" / "predictions.json"
    before = out.stat().st_mtime_ns
    time.sleep(0.1)
    assert out.stat().st_mtime_ns == before and not children() - others
    assert done.score is None or done.score > 0.15


@pytest.mark.parametrize("kind", ["os.mkfifo(path)", "os.mknod(path, 0o600 | 0o20000, os.makedev(1, 5))"])
def test_pipes_and_devices_are_not_opened(folder: Path, kind: str) -> None:
    arena = honest_arena(folder, "budget.score_seconds=5")
    done = arena.measure(
        {"train.py": support.TRAIN.replace(WRITE, f"path = out / 'predictions.json'\n{kind}\n")}
    )
    assert done.score is None and done.outcome in (Outcome.INVALID, Outcome.CRASH)
    assert "timeout" not in done.reason


@pytest.mark.soak
def test_a_pipe_would_hold_the_scorer_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arena = honest_arena(folder, "budget.score_seconds=2")

    def links(source: Path, target: Path, most: int) -> int:
        target.mkdir()
        os.mkfifo(target / "predictions.json")
        return 1

    monkeypatch.setattr(stages, "collect", links)
    assert "timeout" in arena.measure().reason


@pytest.mark.parametrize(
    "how", ["(out / 'x').write_bytes(bytes(2_000_000))", "os.truncate(open(out / 'x', 'w').name, 1 << 33)"]
)
def test_more_than_is_allowed_is_refused(folder: Path, how: str) -> None:
    arena = honest_arena(folder, "task.output_mb=1")
    done = arena.measure({"train.py": support.TRAIN + how + "\n"})
    assert done.score is None, done
    assert not (arena.folder / "scratch1" / "artifact" / "x").exists()


NOTE = """
import pathlib
places = ("/tmp/note-red", "note", os.environ["HOME"] + "/note", str(out / "note"))
found = [p for p in places if os.path.exists(p)]
for p in places:
    try:
        open(p, "w").write("1")
    except OSError:
        pass
print("FOUND", found)
"""


def test_a_trial_leaves_no_note_for_the_next(folder: Path) -> None:
    arena = honest_arena(folder)
    for _ in range(2):
        assert "FOUND []" in arena.measure({"train.py": support.TRAIN + NOTE}).log


@pytest.mark.soak
def test_without_a_sandbox_it_does(folder: Path) -> None:
    arena = honest_arena(folder, sandbox="none")
    try:
        logs = [arena.measure({"train.py": support.TRAIN + NOTE}).log for _ in range(2)]
    finally:
        Path("/tmp/note-red").unlink(missing_ok=True)
    assert "FOUND ['/tmp/note-red']" in logs[1]


def test_more_time_than_the_start_had_is_not_given(folder: Path) -> None:
    arena = honest_arena(folder)
    done = arena.measure(
        {"train.py": support.TRAIN + "import time; time.sleep(60)\n"}, baseline={"train_seconds": 0.5}
    )
    assert done.outcome is Outcome.CRASH and done.reason.startswith("timeout")


def test_variables_of_its_own_reach_no_scorer(folder: Path) -> None:
    """And none of the host's reach either, but those that are passed by name."""
    arena = honest_arena(folder)
    change = "os.environ['PYTHONSTARTUP'] = os.environ['PYTHONPATH'] = str(out)\nos.putenv('METRIC', '0')\n"
    root = arena.root
    show = "import os\nnames = {'PYTHONPATH', 'PYTHONSTARTUP', 'METRIC'} & {*os.environ}\n"
    show += "print('VARIABLES', sorted(names))\n"
    support.write(root, {"score.py": show + "raise SystemExit(3)\n"})
    again = Arena(root, arena.folder / "again", *support.ARTIFACT_SETTINGS)
    again.measure({"train.py": support.TRAIN + change})
    assert any("VARIABLES []" in line for line in again.said), again.said
