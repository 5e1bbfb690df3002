"""Where attacks are fought: the real runner, sandbox, servers and scorer, on a host with things to lose.

Every attack is a small change of `tests/support/honest.py`. After each one the arena checks what must hold
whatever the candidate did: the trial ended, nothing of it is alive, and nothing of the host's was touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from autoresearch.execute.sandbox import Limits, Sandbox
from autoresearch.tasks.gpt.measurer import GptMeasurer
from autoresearch.tasks.gpt.scorer import Scorer
from autoresearch.types import Measurement
from tests.support import toy
from tests.support.gpt import make_measurer, measure
from tests.support.toy import TRAIN

LIMITS = Limits(memory_gb=2.0, processes=48, file_gb=0.2, open_files=128)
OPTIONS: dict[str, Any] = {
    "limits": LIMITS,
    "startup_seconds": 60.0,
    "max_seconds": 30.0,
    "score_seconds": 30.0,
}


def honest(*edits: tuple[str, str]) -> str:
    """The honest script with passages replaced; each must be there."""
    source = TRAIN
    for old, new in edits:
        assert old in source, old
        source = source.replace(old, new)
    return source


def one_by_default(attacks: Iterable[str]) -> list[Any]:
    """Parameters of a test: the first of some variants of an attack, and the others as soak tests."""
    first, *others = attacks
    return [first, *(pytest.param(other, marks=pytest.mark.soak) for other in others)]


@dataclass
class Arena:
    """A host, and the runners on it.

    Attributes:
        root: Where everything lies.
        cache: The prepared data.
        treasure: Files of the host that no candidate may read, change, or add to.
        scorer: Of the first runner; all that run the same trusted tree share it, since each loads torch.
    """

    root: Path
    cache: Path
    treasure: dict[Path, bytes]
    runners: dict[Any, GptMeasurer] = field(default_factory=dict)
    scorer: Scorer | None = None
    trials: int = 0

    @classmethod
    def build(cls, root: Path) -> Arena:
        """A host with a home, a journal, a repository, another run, and a compile cache."""
        cache = toy.write_cache(root / "cache", train=50_000, validation=3_001)
        treasure = {}
        for name in (
            "home/.ssh/id",
            "runs/journal.db",
            "repository/.git/HEAD",
            "runs/other/train/weights.pt",
        ):
            treasure[root / name] = b"treasure of " + name.encode()
        treasure[root / "compile-cache/kernel.so"] = b"executable treasure"
        for path, content in treasure.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        treasure |= {path: path.read_bytes() for path in cache.iterdir()}
        return cls(root, cache, treasure)

    def runner(self, sandbox: Sandbox, **changes: Any) -> GptMeasurer:
        """The runner for these options; made once."""
        key = (sandbox, *sorted(changes.items()))
        if key not in self.runners:
            runner = self.runners[key] = make_measurer(self.cache, sandbox, **{**OPTIONS, **changes})
            if "trusted" not in changes:
                self.scorer = self.scorer or runner._resources.scorer
                runner._resources = replace(runner._resources, scorer=self.scorer)
        return self.runners[key]

    def fight(
        self,
        source: str,
        sandbox: Sandbox,
        *,
        blind: bool = False,
        submission: Path | None = None,
        **changes: Any,
    ) -> Measurement:
        """Run one candidate; the host must come out of it as it was.

        Args:
            source: Its script.
            sandbox: How it is confined.
            blind: Whether it is asked blind questions as well.
            submission: Keeps its weights; if there are some, they are scored, and nothing is trained.
            changes: Other options of the runner.
        """
        self.trials += 1
        place = self.root / f"trial{self.trials}"
        code = toy.write_code(place / "code", source)
        before = self.inventory()
        descriptors = open_descriptors()
        runner = self.runner(sandbox, **changes)
        kept = str(submission or "")
        done = measure(runner, code, place / "scratch", blind=blind, submission=kept)
        assert self.inventory() == before, "the host was touched"
        assert survivors(place) == [], "something of the candidate lives on"
        waiting = 8 if changes.get("standby") else 0  # the next trial's processes hold some
        assert open_descriptors() <= descriptors + 8 + waiting, "descriptors were lost"
        return done

    def inventory(self) -> dict[str, tuple[bytes, int]]:
        """Content and mode of every file of the host but the trials' own."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and not path.relative_to(self.root).parts[0].startswith("trial"):
                found[str(path)] = (path.read_bytes(), path.stat().st_mode)
        return found

    def scratch(self) -> Path:
        """Scratch folder of the latest trial."""
        return self.root / f"trial{self.trials}" / "scratch"

    def close(self) -> None:
        """End all scorers."""
        for runner in self.runners.values():
            runner.close()


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def survivors(place: Path) -> list[int]:
    """Processes that run a candidate's code from this place."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        path = (process.info["environ"] or {}).get("PYTHONPATH", "")
        if path.startswith(str(place)) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


@contextmanager
def mutated(tree: Path, *edits: tuple[str, str, str]) -> Iterator[Path]:
    """A trusted tree with a protection taken out: (file, old text, new text)."""
    code = toy.write_code(tree, TRAIN)
    for file, old, new in edits:
        path = code / "nanomodel" / file
        text = path.read_text()
        assert old in text, f"{file} has changed: {old!r} is not in it any more"
        path.write_text(text.replace(old, new))
    yield code
