"""Installed from a wheel, autoresearch has its configuration and runs in a repository that is not its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

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
