"""Installed from a wheel, autoresearch has its configuration and runs in a repository that is not its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from contextlib import closing
from pathlib import Path

import pytest

from autoresearch.store.journal import Journal
from tests.support import toy
from tests.support.stub import git

ROOT = Path(__file__).parent.parent
SOURCES = ("autoresearch", "nanomodel", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; what the wheel requires comes from the one of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "checkout").mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / "checkout" / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / "checkout" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    building = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, folder / "checkout"]
    subprocess.run([*pip, *building], check=True)
    shutil.rmtree(folder / "checkout")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    installing = ["--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *installing], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv"


@pytest.fixture
def repository(installed: Path, tmp_path: Path) -> Path:
    """Somebody's repository that holds a copy of the task's package."""
    repository = tmp_path / "repository"
    (package,) = installed.glob("lib/python*/site-packages/nanomodel")
    shutil.copytree(package, repository / "nanomodel", ignore=shutil.ignore_patterns("__pycache__"))
    git(repository, "init", "-q")
    git(repository, "add", "-A")
    git(repository, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "start")
    return repository


def autoresearch(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    hidden = ("PYTHONPATH", "ANTHROPIC_API_KEY", "VIRTUAL_ENV")
    return subprocess.run(
        [installed / "bin" / "autoresearch", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
    )


def test_help_and_shipped_files_need_no_checkout(installed: Path, tmp_path: Path) -> None:
    done = autoresearch(installed, tmp_path, "--help")
    assert done.returncode == 0 and "run" in done.stdout
    (configs,) = installed.glob("lib/python*/site-packages/autoresearch/configs")
    wanted = sorted(path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.*"))
    assert sorted(path.relative_to(configs) for path in configs.rglob("*.*")) == wanted


@pytest.mark.soak
def test_a_search_runs_in_another_repository(installed: Path, repository: Path, tmp_path: Path) -> None:
    cache = toy.write_cache(tmp_path / "cache")
    (repository / "autoresearch.yaml").write_text(
        f"data: prepared\ndata.path: {cache}\nsandbox: none\n"
        "tracking.enabled: false\nbaselines: 2\nclaim: 0\n"
    )
    asked = (
        "name=away",
        "budget=smoke",
        "budget.amount=8192",
        "executor.standby=false",
        "proposer=random",
        "experiments=1",
        "executor.device=cpu",
    )
    done = autoresearch(installed, repository, "run", "--view", "plain", *asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (repository / "runs" / "away" / "report" / "report.md").exists()
    assert git(repository, "for-each-ref", "refs/autoresearch/away")
    changed = git(repository, "status", "--porcelain", "--", "nanomodel").splitlines()
    assert [line for line in changed if "__pycache__" not in line] == [], "the sources are as they were"


def test_what_a_repository_lacks_is_said(installed: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "start")
    done = autoresearch(installed, tmp_path, "run", "budget=smoke", "--view", "plain")
    assert done.returncode == 2 and not (tmp_path / "runs" / "cache").exists(), (
        "it is said before data is made"
    )
    assert "nanomodel" in done.stderr and "cp -r" in done.stderr


SCRIPT = """\
\"\"\"Fits a line to noisy points by gradient descent, and says how far off it is on others.\"\"\"

import os
import random

LR = 0.01  # 0.001..0.2 log
STEPS = 200
MOMENTUM = 0.0  # 0..0.95
BATCH = 4  # 1..32 log
POINTS = 100

rng = random.Random(int(os.environ.get("AUTORESEARCH_SEED", "0")))


def points(count: int) -> list[tuple[float, float]]:
    found = []
    for _ in range(count):
        x = rng.uniform(-1, 1)
        found.append((x, 3 * x - 1 + rng.gauss(0, 0.1)))
    return found


train, held = points(POINTS), points(POINTS)
slope = offset = speed_slope = speed_offset = 0.0
for step in range(STEPS):
    slope_gradient = offset_gradient = 0.0
    for x, y in rng.sample(train, BATCH):
        error = slope * x + offset - y
        slope_gradient += error * x / BATCH
        offset_gradient += error / BATCH
    speed_slope = MOMENTUM * speed_slope - LR * slope_gradient
    speed_offset = MOMENTUM * speed_offset - LR * offset_gradient
    slope += speed_slope
    offset += speed_offset
    if step % 50 == 0:
        print(f"step {step}: slope {slope:.3f}, offset {offset:.3f}")
loss = sum((slope * x + offset - y) ** 2 for x, y in held) / len(held)
print(f"METRIC loss={loss:.6f}")
"""


def test_from_a_script_in_a_new_repository_to_verdicts(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(SCRIPT)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "start")
    said = autoresearch(installed, tmp_path, "init", "--yes")
    assert said.returncode == 0 and "python fit.py" in said.stdout, said.stdout + said.stderr
    asked = ("name=new", "experiments=2", "proposer=random", "tracking=none")  # MLflow is not of the wheel
    said = autoresearch(installed, tmp_path, "run", *asked, "--view", "plain")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "Trust: printed" in said.stdout + said.stderr
    with closing(Journal(tmp_path / "runs" / "new" / "journal.db")) as journal:
        verdicts = [e.verdict for e in journal.experiments()[1:]]
        assert len(verdicts) == 2 and all(verdicts)
    assert len(git(tmp_path, "for-each-ref", "refs/autoresearch/new").splitlines()) == 2
    kept = any(verdict and verdict.kind == "keep" for verdict in verdicts)
    assert bool(git(tmp_path, "branch", "--list", "autoresearch/new")) is kept
    assert (tmp_path / "runs" / "new" / "report" / "report.html").exists()
