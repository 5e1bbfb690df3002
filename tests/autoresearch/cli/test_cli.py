"""The command line as a person and a script meet it: a real repository and real trials."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import nanomodel
from tests.support import toy
from tests.support.cli import environment, inside
from tests.support.stub import git

PACKAGE = Path(nanomodel.__file__).parent
TRIALS = [
    "budget=smoke",
    "budget.amount=8192",
    "proposer=random",
    "baselines=2",
    "judge=greedy",
    "claim=0",
    "executor.device=cpu",
]
QUICK = [
    *TRIALS,
    "budget.validation_tokens=20000",
    "data=file",
    "data.path=corpus.txt",
    "executor.workers=1",
    "executor.standby=false",
]


def clone(place: Path, script: str) -> Path:
    """A repository as a user has it, with a little corpus of its own and this training script."""
    root = place / "repo"
    toy.write_code(root, script)
    (root / ".gitignore").write_text("runs/\n__pycache__/\n")
    words = random.Random(0).choices([f"word{i}" for i in range(500)], k=60_000)
    (root / "corpus.txt").write_text("\n\n".join(" ".join(words[i : i + 60]) for i in range(0, 60_000, 60)))
    git(place, "init", "-q", "-b", "main", str(root))
    git(root, "config", "user.name", "Somebody")
    git(root, "config", "user.email", "somebody@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose trials are short."""
    return clone(tmp_path_factory.mktemp("user"), toy.TRAIN)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "autoresearch", *arguments]


def autoresearch(folder: Path, *arguments: str, code: int = 0) -> str:
    """What a command prints; it must end with the given exit code."""
    done = subprocess.run(command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr.split("It ended with")[0]  # but a candidate's may be quoted
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_real_search_tells_one_story_everywhere(root: Path, empty_store: Path) -> None:
    (root / "runs" / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store / "mlflow.db", root / "runs" / "mlflow")
    before = git(root, "status", "--porcelain", "--branch")
    inside(root, "run", "name=first", "experiments=1", *QUICK)
    assert git(root, "status", "--porcelain", "--branch") == before
    log = inside(root, "log", "name=first", "--json")
    rows = [json.loads(line) for line in log.splitlines()]
    git_tells(root, rows)
    mlflow_tells(root, rows)
    page = root / "runs" / "first" / "report" / "report.html"
    page.unlink()
    assert str(page) in inside(root, "report", "name=first")
    assert "<svg" in page.read_text()
    # Asked again, nothing is repeated; with another budget, nothing is done.
    inside(root, "run", "name=first")
    assert inside(root, "log", "name=first", "--json") == log
    said = inside(root, "run", "name=first", "budget=cpu", code=2)
    assert "budget" in said and "another name" in said
    assert "no experiment 99" in inside(root, "show", "99", "name=first", code=2)


def git_tells(root: Path, rows: list[dict[str, Any]]) -> None:
    """Commits, branch, `show` and `diff` say what the journal says."""
    status = json.loads(inside(root, "status", "name=first", "--json"))
    assert status["tried"] == 1 and [row["number"] for row in rows] == [0, 1]
    assert status["baseline"]["runs"] == 2 and status["finished"]
    kept = [row for row in rows if row["verdict"] == "keep"]
    commits = git(root, "rev-list", "--reverse", "main..autoresearch/first").split()
    assert commits == [row["commit"] for row in kept]
    for row in rows[1:]:
        message = git(root, "log", "-1", "--format=%B", row["commit"])
        assert f"Verdict: {row['verdict']}" in message
        if row["score"] is not None:
            assert f"Metric: val_bpb {row['score']:.6f}" in message
    row = rows[-1]
    shown = inside(root, "show", str(row["number"]), "name=first")
    assert row["hypothesis"][:30] in " ".join(shown.split())
    shown = inside(root, "diff", str(row["number"]), "name=first")
    assert changed(shown) == changed(git(root, "diff", row["parent"], row["commit"]))
    whole = inside(root, "diff", "name=first")
    assert changed(whole) == changed(git(root, "diff", "main", "autoresearch/first"))


def changed(diff: str) -> list[str]:
    """The lines that a diff takes out and puts in, whatever it says of context and objects."""
    return [line for line in diff.splitlines() if line.startswith(("+", "-"))]


def mlflow_tells(root: Path, rows: list[dict[str, Any]]) -> None:
    """Each experiment's run, found by its commit, has its numbers."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'runs' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("autoresearch")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    for row in rows[1:]:
        (run,) = [r for r in runs if r.data.tags.get("commit") == row["commit"]]
        assert run.data.metrics.get("val_bpb") == pytest.approx(row["score"])
        assert "mlflow.parentRunId" in run.data.tags


@pytest.mark.soak
def test_two_searches_begun_at_once_are_both_whole_in_a_new_store(root: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    inside(root, "prepare", f"runs={tmp_path}", *QUICK)
    asked = [f"runs={tmp_path}", "experiments=1", *QUICK]
    both = {
        name: subprocess.Popen(
            command("run", f"name={name}", "--view", "plain", *asked),
            cwd=root,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("one", "two")
    }
    for name, process in both.items():
        told = process.communicate(timeout=200)[0]
        assert process.returncode == 0 and "MLflow is not" not in told and "duplicate" not in told, told
        assert f"{name}/report" in told
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("autoresearch")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    for name in both:
        log = inside(root, "log", f"name={name}", f"runs={tmp_path}", "--json")
        commits = {row["commit"] for row in map(json.loads, log.splitlines()) if row["number"]}
        parent = next(r.info.run_id for r in runs if r.data.tags.get("mlflow.runName", "").endswith(name))
        children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent]
        assert commits <= {r.data.tags.get("commit") for r in children}, name


@pytest.mark.soak
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_and_the_same_command_goes_on(root: Path, sent: signal.Signals) -> None:
    name = f"name=stopped-{sent.name}"
    arguments = command("run", name, "experiments=0", "tracking=none", *QUICK)
    process = subprocess.Popen(
        arguments, cwd=root, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    assert any(line.rstrip().endswith(": training") for line in process.stdout)
    time.sleep(0.5)
    os.kill(process.pid, sent)
    said = process.stdout.read()
    process.wait(60)
    assert process.returncode == 128 + sent, said
    assert ("Stopped by SIGTERM" in said) == (sent == signal.SIGTERM) and f"autoresearch run {name}" in said
    assert not subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True).stdout
    autoresearch(root, "run", name)
    assert json.loads(autoresearch(root, "status", name, "--json"))["baseline"]["runs"] == 2


def test_help_is_instant_enough_to_import_nothing_heavy(root: Path) -> None:
    code = "import sys; import autoresearch.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "mlflow", "optuna", "anthropic", "hydra", "matplotlib", "scipy", "pydantic"}
    assert not (heavy | {"rich", "mcp", "pandas", "autoresearch.types"}) & set(done.stdout.split())


def test_help_of_every_command_is_whole_and_loads_little(root: Path) -> None:
    code = (
        "import sys, typer, autoresearch.cli as cli\n"
        "for command in ('', *typer.main.get_command(cli.app).commands):\n"
        "    sys.argv = ['autoresearch', *filter(None, [command]), '-h']\n"
        "    try: cli.main()\n"
        "    except SystemExit as ended: assert not ended.code, command\n"
        "print('LOADED', *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, _, loaded = done.stdout.partition("LOADED")
    assert "..." not in told.partition("Commands:")[2].partition("Usage:")[0]
    assert not {"torch", "mlflow", "hydra", "numpy", "rich", "mcp", "pandas"} & set(loaded.split())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "budgt=smoke"], 2, "budget"),
        (["run", "judge.odds=-1"], 2, "judge"),
        (["run", "proposer=anthropic"], 2, "ANTHROPIC_API_KEY"),
        (["run", "brief=nowhere.md"], 2, "nowhere.md"),
        (["run", "runs=/proc/nowhere"], 3, "cannot be written"),
        pytest.param(
            ["run", "name=short", "budget=smoke", "budget.amount=512", "tracking=none"],
            3,
            "less than one batch",
            marks=pytest.mark.soak,
        ),
        (["status", "name=nobody"], 2, "no search called nobody"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_what_is_wrong_is_said_in_one_clear_message(
    root: Path, arguments: list[str], code: int, says: str
) -> None:
    assert says in " ".join(inside(root, *arguments, code=code).split())


def test_outside_a_repository_it_says_how_to_make_one(tmp_path: Path) -> None:
    assert "git init" in inside(tmp_path, "run", code=2)


def test_a_branch_from_elsewhere_is_not_overwritten(root: Path) -> None:
    git(root, "branch", "autoresearch/mine", "main")
    said = inside(root, "run", "name=mine", "tracking=none", *QUICK, code=2)
    assert "exists already" in said and "git branch -D autoresearch/mine" in said


@pytest.mark.slow
def test_a_corpus_that_is_not_there_is_named(root: Path) -> None:
    assert "nowhere.txt" in inside(root, "run", "data=file", "data.path=nowhere.txt", code=2)


@pytest.mark.slow
def test_a_corpus_too_small_to_split_is_refused_before_the_search_begins(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "small.txt"
    corpus.write_text("Hardly anything.")
    inside(root, "run", "name=small", *QUICK, f"data.path={corpus}", code=2)
    assert "too small to split" in capfd.readouterr().err
    assert not (root / "runs" / "small" / "journal.db").exists()


@pytest.mark.soak
def test_everything_as_installed_but_the_brief(tmp_path: Path) -> None:
    root = clone(tmp_path, (PACKAGE / "train.py").read_text())
    brief = tmp_path / "mine.md"
    brief.write_text("# Mine\nTry anything.")
    asked = [
        "name=own",
        "experiments=2",
        "tracking=none",
        f"brief={brief}",
        *TRIALS,
        "judge=greedy",
        "claim=2",
    ]
    said = autoresearch(root, "run", *asked)
    status = json.loads(autoresearch(root, "status", "name=own", "--json"))
    assert status["baseline"]["runs"] == 2 and status["tried"] == 2
    rows = [json.loads(line) for line in autoresearch(root, "log", "name=own", "--json").splitlines()]
    assert ("sealed test set" in said) == any(row["verdict"] == "keep" for row in rows)


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_fills_is_one_clear_message_and_nothing_is_lost(root: Path, tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "none", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        ballast = tmp_path / "ballast"
        autoresearch(root, "prepare", f"runs={tmp_path}", *QUICK)
        ballast.write_bytes(b"x" * (os.statvfs(tmp_path).f_bavail * 4096 - 200_000))
        said = autoresearch(
            root, "run", "name=full", "tracking=none", f"runs={tmp_path}", "experiments=0", *QUICK, code=3
        )
        assert "nothing is lost" in said or "disk" in said.lower()
        ballast.unlink()
        autoresearch(root, "run", "name=full", "tracking=none", f"runs={tmp_path}", "experiments=0", *QUICK)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_gpu_that_is_not_there_is_said_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    for more in ([], ["--dry-run"]):
        assert "shows no GPU" in inside(root, "run", "executor.device=cuda", "tracking=none", *more, code=3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--view", "fancy"], "fancy"),
        (["ui", "--port", "80000"], "65535"),
        (["run", "name=été"], "no name for a search"),
        (["run", "experiments=3,4"], "one value is needed"),
        (["run", "brief=empty.md"], "is empty"),
        (["run", "brief=latin.md"], "not UTF-8"),
        (["run", "data=file"], "no path is set"),
        (["run", "--dry-run", "sandbox.limits.memory_gb=-1"], "more than 0"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_leaves_nothing(
    root: Path, arguments: list[str], says: str
) -> None:
    (root / "empty.md").write_text("")
    (root / "latin.md").write_bytes(b"caf\xe9")

    def there() -> list[Path]:  # SQLite's own files beside a journal go when Python forgets an open one
        return sorted(path for path in root.rglob("*") if not path.name.endswith(("-shm", "-wal")))

    before = there()
    try:
        said = inside(
            root,
            *arguments,
            *(["tracking=none", "executor.device=cpu"] if "run" in arguments else []),
            code=2,
        )
    finally:
        after = there()
        for path in (root / "empty.md", root / "latin.md"):
            path.unlink()
    assert says in said and "Traceback" not in said and after == before


def test_preparing_leaves_nothing_in_a_repository_that_a_search_would_refuse(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(
        tmp_path,
        "-c",
        "user.name=S",
        "-c",
        "user.email=s@e.org",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "start",
    )
    assert "does not hold" in inside(tmp_path, "prepare", code=2)
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


@pytest.mark.parametrize(
    ("number", "says"), [(errno.EROFS, "Make it writable"), (errno.ENOSPC, "Make room there")]
)
def test_a_disk_that_cannot_be_written_is_told_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number), "runs/x/lock")

    monkeypatch.setattr("autoresearch.search.setup.settings.runs_folder", fails)
    git(tmp_path, "init", "-q")
    git(tmp_path, "-c", "user.name=S", "-c", "user.email=s@e.org", "commit", "-q", "--allow-empty", "-m", "x")
    said = inside(tmp_path, "clean", code=3)
    assert f"{os.strerror(number)}: runs/x/lock" in said and says in said and "nothing is lost" in said
