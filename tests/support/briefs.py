"""Briefs whose worth is planted: a scripted model raises the toy task's level by what the brief says.

A brief with the line `Step: 0.3` leads to gains of about 0.03 for each kept change; without one to none.
With roles, a scout whose instructions hold such a line names it, and a critic objects to every first answer.
Asked to improve a brief, the model tries a sentence that changes nothing, then a larger step (`BETTER`).
Inner searches run in a thread of this process with a working folder of its own, not in a process of theirs.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autoresearch.finish.claim import make_claim
from autoresearch.search.setup.open import open_search
from autoresearch.tasks.brief import process
from tests.support import toy_task
from tests.support.messages_server import Behaviour, MessagesServer, proposal
from tests.support.messages_server import text as prose
from tests.support.stub import git

CLONE_FS = 0x200
KEY = "sk-test-0123456789"
BETTER = "Step: 0.5"
INNER = ("task=toy", "judge=greedy", "baselines=2", "claim=2", "executor.device=cpu", "diagnoses=0")


def brief(step: float | None, words: str = "Improve it.") -> str:
    """A brief that is worth so much."""
    return f"# Brief: {words}\n\n## Goal\n\n- Raise the level.\n" + (f"Step: {step}\n" if step else "")


class Researcher(MessagesServer):
    """Answers as the brief of each request says."""

    def __init__(self, spread: float = 0.2) -> None:
        super().__init__()
        self.spread, self.asked_for_briefs = spread, 0
        self.draw = random.Random(5)

    def _next(self, request: dict[str, Any], headers: dict[str, str]) -> tuple[Behaviour, bytes]:
        told = "\n".join(block["text"] for block in request["system"])
        said = "\n".join(
            block["text"] for turn in request["messages"] for block in turn["content"] if "text" in block
        )
        said = re.sub(r"# The proposal\n.*", "", said, flags=re.DOTALL)  # it may hold anything
        with self._lock:
            if part := re.search(r"# Your part\nYou .*?You are the (scout|critic)(.*)", said, re.DOTALL):
                answer = self._role(part[1], part[2])
            elif "You improve a brief" in told:
                answer = self._better(said)
            else:
                answer = self._step(told, said)
            self.script = [answer]
        return super()._next(request, headers)

    def _role(self, role: str, said: str) -> Behaviour:
        if role == "critic":
            return prose("REVISE: be bolder.")
        step = re.search(r"Step: [\d.]+", said)
        return prose(f"One idea. {step[0] if step else ''}")

    def _step(self, told: str, said: str) -> Behaviour:
        level = re.findall(r"\| (LEVEL = ([-\d.]+).*)", said)[0]
        named = re.findall(r"Step: ([\d.]+)", said.partition("# Ideas of the scout")[2])
        step = re.search(r"Step: ([\d.]+)", f"Step: {named[0]}" if named else told)
        more = float(step[1]) * self.draw.uniform(1 - self.spread, 1 + self.spread) if step else 0.0
        if more:
            edit = (level[0], f"LEVEL = {float(level[1]) + more:.6f}  # 0..2")
        else:
            edit = (re.findall(r"\| (OTHER = .*)", said)[0], f"OTHER = {self.draw.random():.6f}")
        fields = {"instruction": "Raise the level."} if more else {}
        return proposal(
            *edit, toy_task.PATH, category="schedule", hypothesis=f"{edit[1]} {self.draw.random()}", **fields
        )

    def _better(self, said: str) -> Behaviour:
        self.asked_for_briefs += 1
        if self.asked_for_briefs == 1:
            return proposal(
                "- Raise the level.", "- Raise the level, with care.", "brief.md", hypothesis="care"
            )
        line = re.findall(r"\| (Step: .*)", said)
        return proposal(line[0], BETTER, "brief.md", hypothesis="a larger step")


def model(url: str) -> tuple[str, ...]:
    """The settings by which a search asks the server."""
    prices = "proposer.prices={claude-sonnet-5-5: {input: 2, output: 10, cache_write: 4, cache_read: 0.2}}"
    return (
        "proposer=anthropic",
        f"proposer.base_url={url}",
        "proposer.retries=0",
        "proposer.fallback=null",
        prices,
    )


def repository(root: Path, **briefs: str) -> Path:
    """The toy task's repository with briefs in it: name -> text of `name.md`."""
    toy_task.make_repository(root)
    for name, text in briefs.items():
        (root / f"{name}.md").write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "briefs")
    return root


def run_here(
    code: Path, overrides: Sequence[str], log: Path, tick: Callable[[], None], claims: bool = True
) -> int:
    """As `process.run_search`, in a thread of this process that has a working folder of its own."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_FS):
                raise OSError(ctypes.get_errno(), "unshare")
            os.chdir(code)
            os.environ.setdefault("ANTHROPIC_API_KEY", KEY)
            with open_search(list(overrides), "quiet") as search:
                if search.run() and claims and any(e.kept for e in search.journal.experiments()):
                    make_claim(search, search.config.claim)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        tick()
    if failed:
        log.write_text(repr(failed[0]))
        raise failed[0]
    return 0


@contextmanager
def researcher(monkeypatch: pytest.MonkeyPatch, site: Path, **options: Any) -> Iterator[Researcher]:
    """A scripted model and the toy task; inner searches run in this process."""
    toy_task.install(monkeypatch, site)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(process, "run_search", run_here)
    with Researcher(**options) as server:
        yield server


def listed(settings: Sequence[str]) -> str:
    """Settings as a list for an override."""
    return json.dumps(list(settings))
