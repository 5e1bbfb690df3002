"""A better brief is written from a contest's evidence, kept if it is better, and claimed elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch.contest.contest import Contest
from autoresearch.contest.evolve import committed, settings
from autoresearch.contest.plan import make_plan
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.brief.result import Result
from tests.support import briefs, toy_task
from tests.support.cli import inside
from tests.support.stub import git

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[briefs.Researcher]:
    with briefs.researcher(monkeypatch, tmp_path / "site", spread=0.05) as made:
        yield made


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = briefs.repository(tmp_path / "repo", brief=briefs.brief(0.2), poor=briefs.brief(None))
    monkeypatch.chdir(made)
    return made


@pytest.mark.soak
def test_evolve_finds_the_planted_improvement_and_keeps_it(root: Path, server: briefs.Researcher) -> None:
    model = briefs.model(server.url)
    said = inside(
        root, "contest", "brief.md", "poor.md", *briefs.INNER, *model, "experiments=1", "--rounds", "6"
    )
    assert "brief is better than every other brief" in said
    stats = json.loads(inside(root, "brief", "stats", "name=contest", "--json"))
    first = stats["brief"][0]
    assert first["instruction"].startswith("Raise the level.") and first["kept"] == first["tried"] > 0
    assert stats["poor"] == [], "it names none"
    from tests.support import cli

    with pytest.MonkeyPatch.context() as patch:
        kept = cli.environment() | {"ANTHROPIC_API_KEY": briefs.KEY}
        patch.setattr(cli, "environment", lambda: kept)
        overrides = [
            "experiments=2",
            "claim=2",
            "judge=threshold",
            'task.elsewhere=["data=tinystories"]',
            *model,
        ]
        overrides += ["diagnoses=0", "tracking=none", "executor.device=cpu"]
        said = inside(root, "evolve", "contest", *overrides)
        assert briefs.BETTER in git(root, "show", "autoresearch/contest-evolved:brief.md"), said
        again = inside(root, "evolve", "contest")
        assert "has tried its 2 experiments already" in again
    told = [block["text"] for request in server.requests for block in request["system"]]
    assert any("What earlier searches found" in text and "schedule: " in text for text in told)
    log = [json.loads(line) for line in inside(root, "log", "name=contest-evolved", "--json").splitlines()]
    assert [row["verdict"] for row in log[1:]] == ["discard", "keep"]
    claim = json.loads(inside(root, "status", "name=contest-evolved", "--json"))["claim"]
    assert claim["result"]["effect"] > 0.01, claim
    assert not git(root, "status", "--porcelain")


def test_what_evolve_needs(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toy_task.install(monkeypatch, tmp_path / "site")
    repository = Repository(root)
    plan = make_plan(["brief.md", "poor.md"], [*briefs.INNER, "proposer=random"], repository, 3, None)
    held = Contest.begin(root / "runs/c", plan)
    with pytest.raises(UserError, match="no complete round"):
        settings(held, repository, [])
    assert committed("brief", briefs.brief(0.2), repository) == ["brief.md"]
    with pytest.raises(UserError, match="is not among the committed files"):
        committed("brief", "# Another", repository)
    result = Result("x", 0.1, 0.0, 1, 1, 0.0, 1.0, "", ())
    monkeypatch.setattr(held.searches, "result", lambda one: result if one.seed == 1 else None)
    monkeypatch.setattr("autoresearch.contest.page.write", lambda contest: None)
    with pytest.raises(UserError, match="must hold elsewhere"):
        settings(held, repository, ["experiments=3"])
    made = settings(held, repository, ['task.elsewhere=["data=tinystories"]'])
    assert "task.editable=[brief.md]" in made and "brief=evolve" in made and made[0] == "task=brief"
    assert "task.shared=[]" in made, "tuning programs reach no model"


def test_inner_searches_of_evolve_share_what_reaches_the_same_server(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toy_task.install(monkeypatch, tmp_path / "site")
    overrides = [*briefs.INNER, *briefs.model("http://old"), "proposer.timeout=50"]
    held = Contest.begin(
        root / "runs/c", make_plan(["brief.md", "poor.md"], overrides, Repository(root), 3, None)
    )
    result = Result("x", 0.1, 0.0, 1, 1, 0.0, 1.0, "", ())
    monkeypatch.setattr(held.searches, "result", lambda one: result if one.seed == 1 else None)
    monkeypatch.setattr("autoresearch.contest.page.write", lambda contest: None)
    for url, found in (("http://old", "[base_url,retries]"), ("http://another", "[]")):
        made = settings(held, Repository(root), ["claim=0", *briefs.model(url)])
        shared = next(o for o in made if o.startswith("task.shared="))
        assert shared.replace(" ", "") == f"task.shared={found}", "timeouts differ"
        search = next(o for o in made if o.startswith("task.search="))
        assert "http://old" in search, "what it was begun with stays known"


def processes(root: Path, *arguments: str, site: Path, wait: float | None = None) -> tuple[int, str]:
    """Run the real command line in processes of its own; after `wait` seconds it is killed at once."""
    env = {**os.environ, "PYTHONPATH": f"{site}:{ROOT}", "ANTHROPIC_API_KEY": briefs.KEY, "NO_COLOR": "1"}
    env.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "autoresearch", *arguments]
    process = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said = process.communicate(timeout=wait)[0]
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        said = process.communicate()[0]
    return process.returncode, said.decode(errors="replace")


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_killed_again_and_again_at_either_level_it_goes_on(root: Path, tmp_path: Path) -> None:
    """Whole processes: `kill -9` of the contest at all sorts of moments, of an inner search with it."""
    with pytest.MonkeyPatch.context() as patch:
        toy_task.install(patch, tmp_path / "site")
    words = ["contest", "brief.md", "poor.md", *briefs.INNER, "experiments=2", "--rounds", "3", "name=c"]
    with briefs.Researcher(spread=0.05) as server:
        words += briefs.model(server.url)
        code, said, killed = 1, "", 0
        for turn in range(40):
            code, said = processes(root, *words, site=tmp_path / "site", wait=4.0 + 1.7 * turn)
            if code == 0:
                break
            killed += code == -signal.SIGKILL
        assert code == 0 and killed >= 2, said
    held = Contest(root / "runs/c")
    found = held.standing()
    assert found.rounds == 3 or not found.racing
    for results in found.results.values():
        for result in results.values():
            numbers = [e.number for e in result.experiments]
            assert numbers == [0, 1, 2] and all(e.verdict for e in result.experiments[1:])
    folders = sorted(path.parent.name for path in (root / "runs/c/inner").glob("*/journal.db"))
    assert len(folders) == sum(len(results) for results in found.results.values()), "none was begun twice"
    deadline = time.monotonic() + 90
    while any("autoresearch" in line and str(root) in line for line in _commands()):
        assert time.monotonic() < deadline, "an inner search has outlived its contest"
        time.sleep(0.2)
    assert not git(root, "status", "--porcelain")


def _commands() -> list[str]:
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        found.append(" ".join(process.info["cmdline"] or []))
    return found
