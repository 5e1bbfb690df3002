"""A model that is scored tells another candidate's process what it is shown, while both run.

The way is file locks without the filter that closes them: one that always works. There are others that no
filter closes, so what protects is that no other candidate's process runs meanwhile.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoresearch.config import load
from autoresearch.execute.places import score_alone
from autoresearch.execute.sandbox import Sandbox
from autoresearch.types import Measurement, Outcome
from tests.red_team.arena import honest
from tests.support import toy
from tests.support.gpt import make_measurer, measure
from tests.support.jail import no_seccomp, without

pytestmark = pytest.mark.slow

FILES = """
        import fcntl, os, time
        from pathlib import Path
        sources = sorted(Path(os.__file__).parent.glob("*.py"))[FIRST:][:16]
        files = [os.open(path, os.O_RDONLY) for path in sources]
"""
TELLS = (
    "        x = self.embed(tokens)\n",
    f"""        if not self.training and not hasattr(self, "held"):
            self.tell(tokens)
        x = self.embed(tokens)
        return self.answer(x)

    def tell(self, tokens):{FILES}
        self.held = files
        for number, file in enumerate(files):
            SECRET >> number & 1 and fcntl.flock(file, fcntl.LOCK_SH)
        Path("told").write_text(str(time.time()))
        time.sleep(1)

    def answer(self, x):
""",
)
HEARS = (
    "    run.start()\n",
    f"""    run.start()
    if True:{FILES}
        def listen():
            found = 0
            for number, file in enumerate(files):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.flock(file, fcntl.LOCK_UN)
                except BlockingIOError:
                    found |= 1 << number
            return found

        begun, heard = time.time(), set()
        Path("listening").touch()
        while time.time() < begun + SECONDS and not Path("enough").exists():
            time.sleep(0.02)
            heard.add(listen())
        print("HEARD", begun, time.time(), *heard, flush=True)
""",
)


@dataclass(frozen=True)
class Story:
    """What a model server told, when it did, and what another process heard, and when that listened."""

    told: int
    when: float
    heard: frozenset[int]
    begun: float
    ended: float


def tell(sandbox: Sandbox, place: Path, weights: Path, *, alone: bool, tryout: bool) -> Story:
    """Score a trained model, and meanwhile train another beside it, in a trial elsewhere or in a tryout.

    Unless the model has to be alone, it is scored once the other listens, which does so until then.
    """
    cache = toy.write_cache(place / "cache", train=50_000, validation=3_001)
    weak, secret = without(sandbox, no_seccomp), secrets.randbits(16) | 1  # as good as held-out text
    way = str(secrets.randbelow(100))  # other programs, and other such tests, lock and read the same files
    seconds = "0.5" if alone else "45"
    tells = (TELLS[0], TELLS[1].replace("SECRET", str(secret)).replace("FIRST", way))
    listens = (HEARS[0], HEARS[1].replace("SECONDS", seconds).replace("FIRST", way))
    teller, hearer = (toy.write_code(place / name, honest(e)) for name, e in (("a", tells), ("b", listens)))
    first, other = (make_measurer(cache, weak, score_alone=alone) for _ in range(2))

    def listen() -> Measurement:
        return first.tryout(hearer, place / "two") if tryout else measure(other, hearer, place / "two")

    with ThreadPoolExecutor(2) as threads:
        try:
            if alone:
                telling = threads.submit(measure, first, teller, place / "one", submission=str(weights))
                hearing = threads.submit(listen)
                done = telling.result()
            else:
                hearing = threads.submit(listen)
                while not (ears := [*(place / "two").rglob("listening")]) and not hearing.done():
                    time.sleep(0.05)
                done = measure(first, teller, place / "one", submission=str(weights))
                for ear in ears:
                    ear.with_name("enough").touch()
            heard = hearing.result()
        finally:
            first.close()
            other.close()
    assert (done.outcome, heard.outcome) == (Outcome.OK, Outcome.OK), (done, heard)
    when = float((place / "one" / "witness" / "told").read_text())
    line = next(line.split() for line in heard.log.splitlines() if line.startswith("HEARD "))
    return Story(secret, when, frozenset(map(int, line[3:])), float(line[1]), float(line[2]))


@pytest.mark.parametrize("tryout", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_none_runs_while_a_model_is_scored(
    tryout: bool, sandbox: Sandbox, trained: Path, tmp_path: Path
) -> None:
    story = tell(sandbox, tmp_path, trained / "weights", alone=True, tryout=tryout)
    assert not story.begun < story.when < story.ended, "they ran at the same time"
    assert story.told not in story.heard


@pytest.mark.soak
@pytest.mark.parametrize("tryout", [True, False])
def test_without_it_one_would_hear(tryout: bool, sandbox: Sandbox, trained: Path, tmp_path: Path) -> None:
    for number in range(4):  # a process that gets no core for a second hears only a part
        (place := tmp_path / str(number)).mkdir()
        story = tell(sandbox, place, trained / "weights", alone=False, tryout=tryout)
        if story.told in story.heard:
            break
    assert story.told in story.heard


def test_one_place_is_enough_to_ask_for_it() -> None:
    wanted = {
        (*given,): score_alone(load(["executor.device=cpu", *given], {}))
        for given in (
            ("executor.workers=1",),
            ("executor.workers=2",),
            ("executor.workers=2", "executor.score_alone=true"),
            ("executor.workers=1", "executor.score_alone=false"),
        )
    }
    assert list(wanted.values()) == [True, False, True, False]
