"""One repository, several searches, and whatever happens to them: after each step all views tell one story.

Hypothesis draws sequences of commands, kills, full disks, locks, clocks that are set, edits of a person and
moods of a proposer. Real are the command line, git, SQLite and MLflow; a trial costs nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from autoresearch.report import page
from autoresearch.search import lookahead
from autoresearch.store.calls import CallLog
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from tests.support import stateful
from tests.support.cli import outcome
from tests.support.faults import KILLED, in_child
from tests.support.stateful import HELD, HOLD, Moody, contents, number, trouble, ugly
from tests.support.stub import git
from tests.support.toy_task import PATH, write_repository

pytestmark = pytest.mark.slow

BEGIN = ["task=corpus", "data=file", "data.path=corpus.txt", "brief=brief.md", "judge=greedy", "baselines=2"]
BEGIN += ["tracking=none", "sandbox=none", "claim=0", "executor.device=cpu", "budget=smoke", "alarm=null"]
BEGIN += ["proposer=moody"]
ENDS = {"nothing": (0,), "clock": (0,), "lock": (0,), "kill": (0, KILLED), "interrupt": (0, 130)}
ENDS |= {"disk": (0, 3), "objects": (0, 3)}
MOODS = ("better", "worse", "same", "crash", "cheat", "hopeless", "instantly", "evil", "late", "rejected")
NAMES = st.sampled_from(["a", "b", "b", None])
FIXED = ("judge=strict", "baselines=3", "seed=1", "data.path=.gitignore", "executor.device=cuda", "task=toy")
CHANGES = ("dirty", "staged", "commit", "script", "brief", "corpus", "corpus gone", "branch", "hours")


@dataclass
class Known:
    """What must be true of a search.

    Attributes:
        corpus: What it was begun with, as a number.
        born: When, by a clock that only counts on.
        recorded: The rows of its recorded experiments, by number.
        notes: How many notes it was left.
        wish: What it was asked to do last.
        done: Whether it ended by itself.
        exact: Whether git must agree with the journal now; after a kill it may lag behind.
        paid: Dollars.
    """

    corpus: int
    born: float = field(default_factory=time.monotonic)
    recorded: dict[int, dict[str, Any]] = field(default_factory=dict)
    notes: int = 0
    wish: str = "run"
    done: bool = False
    exact: bool = False
    paid: float = 0.0


class Searches(RuleBasedStateMachine):
    """The model, and the checks."""

    def __init__(self, template: Path, root: Path, store: Path | None = None) -> None:
        super().__init__()
        self.store = store
        self.root = Path(shutil.copytree(template, root))
        os.chdir(root)
        self.known: dict[str, Known] = {}
        self.family = set(psutil.Process().children(recursive=True))
        self.count = itertools.count(1)
        self.checkout = self.person_has()
        self.hours = 0.0

    def teardown(self) -> None:
        if self.store and self.root.name.endswith("0"):
            for name in self.known:
                self.mlflow_agrees(name)
        os.chdir(self.root.parent)
        shutil.rmtree(self.root)

    # What happens

    @initialize(moods=st.lists(st.sampled_from(MOODS), max_size=3))
    def begin(self, moods: list[str]) -> None:
        self.run("a", 2, moods, "nothing", 1)

    @rule(
        name=NAMES,
        more=st.integers(0, 2),
        moods=st.lists(st.sampled_from(MOODS), max_size=3),
        kind=st.sampled_from(list(ENDS)),
        at=st.integers(1, 70),
    )
    def run(self, name: str | None, more: int, moods: list[str], kind: str, at: int) -> None:
        target, corpus = name or self.unnamed(), self.root / "corpus.txt"
        known = self.known.get(target)
        asked = more + (len(self.journal(target).experiments()) - 1 if known else 0)
        words = ["run", "--view", "plain", *([f"name={name}"] if name else []), f"experiments={asked}"]
        words += [] if known else BEGIN
        new = known or Known(number(corpus.read_bytes() if corpus.exists() else b""))
        with self.only(target):
            code, said = self.command(*words, kind=kind, at=at, about=target, moods=moods)
        if not known and not corpus.exists():
            assert code in (2, KILLED), said
        else:
            assert code in ENDS[kind], said
        if not self.folder(target).joinpath("journal.db").exists():
            assert code != 0
            return
        self.known[target] = new
        new.wish, new.exact = "run", code == 0
        unsaid = code or kind == "kill"  # trouble may have come after its end; another process told it
        new.done = self.ended(target) if unsaid else "rejected" not in said
        assert not new.done or code or len(self.journal(target).experiments()) - 1 == asked, said
        self.check(target)

    @rule(name=NAMES, what=st.sampled_from(["note", "pause", "resume", "stop"]))
    def steer(self, name: str | None, what: str) -> None:
        target = name or self.latest()
        known, heard = self.known.get(target), what == "note"  # nobody runs it
        words = [what, *(["try fewer heads"] if heard else []), *([f"name={name}"] if name else [])]
        with self.only(target if heard else None):
            code, said = self.command(*words)
        assert code == (0 if known and heard else 2) and (not known or target in said), said
        if known and heard:
            known.notes += 1
            self.check(target)

    @rule(
        name=NAMES, what=st.sampled_from(["status", "log", "diff", "report", "trace", "show 0", "idea list"])
    )
    def look(self, name: str | None, what: str) -> None:
        target = name or self.latest()
        with self.only(None):
            code, said = self.command(*what.split(), *([f"name={name}"] if name else []))
        assert code == (0 if target in self.known else 2) and not ugly(said), said

    @rule(
        name=NAMES,
        what=st.sampled_from(["claim", "audit"]),
        kind=st.sampled_from(list(ENDS)),
        at=st.integers(1, 40),
    )
    def finish(self, name: str | None, what: str, kind: str, at: int) -> None:
        target = name or self.latest()
        known = self.known.get(target)
        least = {"claim": ["claim=2"], "audit": ["--runs", "4"]}
        words = [what, *least[what], *([f"name={name}"] if name else [])]
        with self.only(target):
            code, said = self.command(*words, kind=kind, at=at, about=target)
        kept = sum(row["verdict"] == "keep" for row in known.recorded.values()) if known else 0
        assert code in ENDS[kind] or (code == 2 and kept < len(least[what])), said
        if known:
            known.wish = "run"
            self.check(target)

    @rule(name=NAMES, how=st.sampled_from(["", "--all", "--all --git"]))
    def clean(self, name: str | None, how: str) -> None:
        with self.only(name if name else ...):
            code, said = self.command("clean", "--yes", *how.split(), *([f"name={name}"] if name else []))
        assert code == (2 if name and name not in self.known else 0), said
        for target, known in list(self.known.items()):
            if how and name in (None, target) and known.done:
                assert not self.folder(target).exists() and target in said
                del self.known[target]
                words = ("clean", "--yes", "--all", "--git", f"name={target}")
                if "--git" not in how and words[-1] in said:  # as it says: else the name stays taken
                    assert self.command(*words)[0] == 0
                assert f"autoresearch/{target}\n" not in git(self.root, "for-each-ref") + "\n"
            elif name in (None, target):
                self.check(target)

    @rule(what=st.sampled_from(FIXED), name=st.sampled_from(["a", "b"]))
    def change_what_is_fixed(self, what: str, name: str) -> None:
        if name in self.known:
            with self.only(None):
                code, said = self.command("run", f"name={name}", "experiments=99", what)
            assert code == 2 and "Traceback" not in said, said

    @rule(what=st.sampled_from(CHANGES))
    def person(self, what: str) -> None:
        """A person works in the repository."""
        root, n = self.root, next(self.count)
        if what in ("dirty", "staged"):
            (root / "mine.txt").write_text(f"{n}\n")
        if what == "staged":
            git(root, "add", "mine.txt")
        if what == "script":
            (root / PATH).write_text(f"LEVEL = 1.0  # 0..2\nOTHER = {n}\n")
        if what in ("commit", "script"):
            git(root, "commit", "-qam", f"commit {n}", "--allow-empty")
        if what == "branch":
            git(root, "switch", "-qc", f"branch{n}")
        if what == "brief":
            (root / "brief.md").write_text(f"# Brief {n}\n")
        if what == "corpus":
            (root / "corpus.txt").write_text(f"text {n}")
        if what == "corpus gone":
            (root / "corpus.txt").unlink(missing_ok=True)
        if what == "hours":
            self.hours += 36_000.0
        self.checkout = self.person_has()

    @rule(
        commands=st.lists(
            st.sampled_from(["note", "pause", "stop", "resume", "run", "clean", "status"]), max_size=4
        ),
        end=st.sampled_from(["kill", "go on"]),
    )
    def while_it_runs(self, commands: list[str], end: str) -> None:
        """A search runs in another process, held in a trial; commands without a name mean it."""
        target = next(iter(self.known), "")
        known = self.known.get(target)
        if known is None:
            return
        asked = len(self.journal(target).experiments())
        (self.root / HOLD).touch()
        (self.root / HELD).unlink(missing_ok=True)
        words = ["run", "--view", "plain", f"name={target}", f"experiments={asked}"]
        child = os.fork()
        if child == 0:
            try:
                with trouble("nothing", 1, self.root, self.hours):
                    ended = outcome(self.root, *words)
                (self.root / "runs" / "said").write_text(str(ended))
                os._exit(int(str(ended[0])))
            finally:
                os._exit(1)
        self.family.add(psutil.Process(child))
        try:
            known.wish = "run"
            while not (self.root / HELD).exists():
                assert os.waitpid(child, os.WNOHANG) == (0, 0), (self.root / "runs" / "said").read_text()
                time.sleep(0.01)
            for what in commands:
                self.meanwhile(target, what, words)
            if end != "kill":
                (self.root / HOLD).unlink()
            if end != "kill" and known.wish == "pause":
                time.sleep(0.2)  # its trial ends, and perhaps it was the last
                assert os.waitpid(child, os.WNOHANG) == (0, 0), (self.root / "runs" / "said").read_text()
                self.meanwhile(target, "resume", words)
        finally:
            if end == "kill" or sys.exc_info()[0]:
                os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            (self.root / HOLD).unlink(missing_ok=True)
        assert code == (-9 if end == "kill" else 0), (self.root / "runs" / "said").read_text()
        known.done, known.exact = self.ended(target), end != "kill"
        assert known.done == (end != "kill") or known.wish == "stop"
        self.check(target)
        assert not known.done or len(self.journal(target).experiments()) - 1 == asked

    def meanwhile(self, target: str, what: str, words: list[str]) -> None:
        """A command to a search that runs; without a name it means that one."""
        known = self.known[target]
        given = {"note": ["note", "hello"], "run": words, "clean": ["clean", "--yes", f"name={target}"]}
        with self.only(target if what in ("note", "pause", "stop", "resume") else None):
            code, said = self.command(*given.get(what, [what]))
        assert code == (4 if what == "run" else 0) and target in said, said
        known.notes += what == "note"
        known.wish = {"resume": "run", "pause": "pause", "stop": "stop"}.get(what, known.wish)

    # What must hold

    def check(self, target: str) -> None:
        """All that can be known of one search says the same, and what was recorded stays."""
        known, name = self.known[target], f"name={target}"
        status = json.loads(self.output("status", name, "--json"))
        rows = [json.loads(line) for line in self.output("log", name, "--json").splitlines()]
        journal = self.journal(target)
        info, experiments = journal.info(), journal.experiments()
        assert rows == status["experiments"] and [row["number"] for row in rows] == list(range(len(rows)))
        assert status["runner"] is None and status["tried"] == len(rows) - 1
        verdicts = Counter(row["verdict"] or "open" for row in rows[1:])
        assert verdicts == Counter({k: v for k, v in status["verdicts"].items() if v})
        assert sum(status["verdicts"].values()) == status["tried"]
        # nothing lost, nothing twice
        assert {n: rows[n] for n in known.recorded} == known.recorded
        known.recorded = {row["number"]: row for row in rows[1:] if row["state"] == "recorded"}
        trials = [t for e in experiments for t in e.trials]
        wanted = Counter((t.experiment, t.arm, t.seed, t.commit) for t in trials if t.result)
        assert not wanted or max(wanted.values()) == 1
        programs = [print for print in journal.fingerprints(0).values() if print]
        assert len(set(programs)) == len(programs)
        # what was used is what is recorded
        for t in (t for t in trials if t.result and "program" in t.result.metrics):
            blob = git(self.root, "show", f"{t.commit}:{PATH}") + "\n"
            assert t.result and t.result.metrics["program"] == number(blob)
            assert t.result.metrics["corpus"] == known.corpus
        assert info.data["key"] == str(known.corpus)
        briefs = {number(info.brief_text), *(number(brief["text"]) for brief in status["brief_changes"])}
        for e in experiments[1:]:
            assert e.proposal
            _, brief, _, notes, *_ = e.proposal.hypothesis.split()
            assert int(brief) in briefs and int(notes) <= known.notes
        inbox = Inbox(self.folder(target))
        assert len(inbox.notes()) == known.notes and inbox.wished == known.wish
        # time and money
        lasted = time.monotonic() - known.born
        assert all(0 <= row["seconds"] <= lasted for row in rows)
        assert sum(row["seconds"] for row in rows) <= status["cost"]["device_seconds"] + 1e-6 <= lasted
        assert all(0 <= s.finished - s.started <= lasted for s in journal.timeline())
        assert status["cost"]["dollars"] >= known.paid - 1e-9
        known.paid = status["cost"]["dollars"]
        if known.exact:
            spent = CallLog(self.folder(target)).spent("moody").dollars
            assert known.paid == pytest.approx(spent), (known.paid, spent, status["cost"])
            self.git_agrees(target, rows)
        journal.close()
        # views
        headline = self.output("status", name).splitlines()[0]
        assert self.output("report", name).splitlines()[0] == headline
        assert headline in (self.folder(target) / "report" / "report.md").read_text()
        for row in rows[-2:]:
            assert json.loads(self.output("show", str(row["number"]), name, "--json")) == row
            assert not ugly(self.output("show", str(row["number"]), name))
        assert not ugly(self.output("log", name))
        lines = [
            line for line in self.output("log", name).splitlines() if not line.startswith("A further gain")
        ]
        assert len(lines) == 1 + len(rows), "and what its columns are"

    def git_agrees(self, target: str, rows: list[dict[str, Any]]) -> None:
        refs = git(
            self.root, "for-each-ref", "--format=%(refname) %(objectname)", f"refs/autoresearch/{target}"
        )
        found = dict(line.split() for line in refs.splitlines() if "/audit/" not in line)
        assert found == {
            f"refs/autoresearch/{target}/{row['number']:04d}": row["commit"]
            for row in rows[1:]
            if row["commit"]
        }
        kept = [row["commit"] for row in rows[1:] if row["verdict"] == "keep"]
        branch = git(self.root, "for-each-ref", "--format=%(objectname)", f"refs/heads/autoresearch/{target}")
        assert branch == (kept[-1] if kept else rows[0]["commit"])
        changed = [
            line
            for line in git(self.root, "diff", rows[0]["commit"], branch).splitlines()
            if line[:1] in "+-"
        ]
        assert [
            x for x in self.output("diff", f"name={target}").splitlines() if x[:1] in "+-" and x
        ] == changed
        for row in rows[1:]:
            if row["verdict"]:
                assert f"Verdict: {row['verdict']}" in git(
                    self.root, "log", "-1", "--format=%B", row["commit"]
                )

    def mlflow_agrees(self, target: str) -> None:
        """A real store, filled from the journal, shows each experiment once, with its score and verdict."""
        from mlflow.tracking import MlflowClient

        (self.root / "runs" / "mlflow").mkdir(exist_ok=True)
        if not (database := self.root / "runs" / "mlflow" / "mlflow.db").exists():
            shutil.copy(self.store / "mlflow.db", database)
        self.output("sync", f"name={target}")
        client = MlflowClient(f"sqlite:///{database}")
        found = client.get_experiment_by_name("autoresearch")
        assert found
        runs = client.search_runs([found.experiment_id])
        for row in (json.loads(line) for line in self.output("log", f"name={target}", "--json").splitlines()):
            if row["number"] and row["commit"]:
                (run,) = [r for r in runs if r.data.tags.get("commit") == row["commit"]]
                assert run.data.metrics.get("accuracy") == pytest.approx(row["score"])
                assert run.data.tags.get("verdict") == row["verdict"]

    def person_has(self) -> list[object]:
        """HEAD, index, branches and files of a person."""
        files = {
            path: path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and not {".git", "runs"} & set(path.relative_to(self.root).parts)
        }
        own = [
            r
            for r in git(self.root, "for-each-ref", "refs/heads", "refs/tags", "refs/stash").splitlines()
            if "/autoresearch/" not in r
        ]
        return [(self.root / ".git" / part).read_bytes() for part in ("HEAD", "index", "config")] + [
            own,
            files,
        ]

    # Tools

    def command(
        self, *words: str, kind: str = "nothing", at: int = 1, about: str = "", moods: list[str] | None = None
    ) -> tuple[object, str]:
        """Run a command in trouble; afterwards a person has what they had, and no process is left."""
        Moody.moods = deque(moods or [])
        ended: tuple[object, str] = KILLED, ""

        def run() -> None:
            nonlocal ended
            with trouble(kind, at, self.folder(about) / "journal.db", self.hours):
                ended = outcome(self.root, *words)

        if kind == "kill":
            code = in_child(run)
            assert code in (0, KILLED)
            ended = code, ""
        else:
            run()
        assert self.person_has() == self.checkout
        left = set(psutil.Process().children(recursive=True)) - self.family
        assert kind == "lock" or words[0] != "run" or not left, left
        assert "Traceback" not in ended[1]
        return ended

    def output(self, *words: str) -> str:
        code, said = outcome(self.root, *words)
        assert code == 0, said
        return said

    def only(self, target: object) -> Any:
        """Nothing but one search may change meanwhile; `...` means that all may."""
        from contextlib import contextmanager

        @contextmanager
        def watched() -> Iterator[None]:
            before = {name: self.dump(name) for name in self.known if target not in (name, ...)}
            yield
            for name, what in before.items():
                assert self.dump(name) == what, f"{name} has changed"

        return watched()

    def dump(self, name: str) -> list[str]:
        refs = git(self.root, "for-each-ref", f"refs/autoresearch/{name}", f"refs/heads/autoresearch/{name}")
        return [*contents(self.folder(name) / "journal.db"), *contents(self.folder(name) / "inbox.db"), refs]

    def folder(self, name: str) -> Path:
        return self.root / "runs" / name

    def journal(self, name: str) -> Journal:
        return Journal(self.folder(name) / "journal.db")

    def ended(self, name: str) -> bool:
        """Whether the journal says that a search ended by itself."""
        journal = self.journal(name)
        return journal.info().finished is not None and not journal.get("stopped")

    def latest(self) -> str:
        """The search begun last."""
        return next(reversed(self.known), "")

    def unnamed(self) -> str:
        """The search that `run` means without a name."""
        latest, day = self.latest(), time.strftime("%b%d").lower()
        if latest and not self.known[latest].done:
            return latest
        taken = {day for day in self.known if self.known[day].done}
        return next(x for n in itertools.count(1) if (x := f"{day}-{n}" if n > 1 else day) not in taken)


def story(tmp_path: Path, patch: pytest.MonkeyPatch, store: Path | None = None, **how: Any) -> None:
    """Let hypothesis play it; with an empty MLflow store, that is filled after every tenth example."""
    template = write_repository(tmp_path / "template")
    (template / ".gitignore").write_text("runs/\n")
    (template / "corpus.txt").write_text("text")
    (template / "brief.md").write_text("# Brief\n")
    (template / "mine.txt").write_text("0\n")
    git(template, "init", "-q", "-b", "main")
    for key, value in {"name": "Somebody", "email": "somebody@example.org"}.items():
        git(template, "config", f"user.{key}", value)
    git(template, "add", "-A")
    git(template, "commit", "-qm", "start")
    stateful.install(patch, tmp_path / "site")
    for plot in ("write_progress_plot", "write_timeline_plot"):  # they take most of the time
        patch.setattr(page, plot, lambda *_: None)
    patch.setattr(lookahead, "RETRY_SECONDS", (0.0,))
    numbers = itertools.count()
    patch.chdir(tmp_path)
    run_state_machine_as_test(
        lambda: Searches(template, tmp_path / f"repo{next(numbers)}", store),
        settings=settings(deadline=None, suppress_health_check=list(HealthCheck), **how),
    )


@pytest.mark.soak  # too long for each change; continuous integration runs it
def test_all_views_tell_one_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story(tmp_path, monkeypatch, max_examples=2, stateful_step_count=7, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_all_views_tell_one_story_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path
) -> None:
    story(
        tmp_path,
        monkeypatch,
        empty_store,
        max_examples=int(os.environ.get("STORIES", "10")),
        stateful_step_count=40,
        derandomize="CI" in os.environ,
    )
