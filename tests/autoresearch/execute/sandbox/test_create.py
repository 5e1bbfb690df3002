"""Choosing a backend: what is claimed is what an intruder measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from autoresearch.errors import UserError
from autoresearch.execute import sandbox as sandboxes
from autoresearch.execute.sandbox import Jail, create_sandbox, describe, gpu, probe
from autoresearch.execute.sandbox.bwrap import BwrapSandbox
from autoresearch.execute.sandbox.landlock import LandlockSandbox
from autoresearch.execute.sandbox.visible import DEVICES
from tests.support.jail import (
    BACKENDS,
    LIMITS,
    make_jail,
    no_landlock,
    no_mounts,
    no_namespaces,
    no_seccomp,
    run_python,
    sandbox_or_skip,
    without,
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was measured in one test is not remembered in the next."""
    describe.cache_clear()
    yield
    describe.cache_clear()


def test_auto_takes_the_strongest() -> None:
    assert create_sandbox("auto") == sandbox_or_skip("bwrap")


def test_auto_does_without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    landlock = sandbox_or_skip("landlock")
    monkeypatch.setattr("shutil.which", lambda name: f"/nowhere/{name}")
    assert create_sandbox("auto") == landlock


def test_auto_ends_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sandbox: sandboxes.Sandbox) -> probe.Report:
        if sandbox.name != "none":
            raise probe.ProbeError("not here")
        return describe(sandbox)

    monkeypatch.setattr(sandboxes, "describe", refuse)
    assert create_sandbox("auto").name == "none"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1", "uid map: Permission denied"),
        ("sleep 7788 & sleep 7788", "it did not end within 1 seconds"),
    ],
)
def test_a_bubblewrap_that_fails_or_hangs_is_passed_over_with_a_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, says: str
) -> None:
    landlock = sandbox_or_skip("landlock")
    broken = tmp_path / "bwrap"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(broken))
    monkeypatch.setattr(probe, "PROBE_SECONDS", 1.0)
    attempt, told = probe._run, []
    monkeypatch.setattr(  # only the broken one is hurried
        probe,
        "_run",
        lambda sandbox, *rest: (
            monkeypatch.setattr(probe, "PROBE_SECONDS", 1.0 if sandbox.name == "bwrap" else 30.0),
            attempt(sandbox, *rest),
        )[1],
    )
    assert create_sandbox("auto", told.append) == landlock
    assert len(told) == 1 and says in told[0] and "landlock is used" in told[0]
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if "7788" in line], "it left nothing behind"


def test_bubblewrap_missing_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/nowhere/{name}")
    with pytest.raises(UserError, match="bwrap does not work here") as caught:
        create_sandbox("bwrap")
    assert "apt-get install bubblewrap" in caught.value.hint


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(UserError, match="no sandbox 'docker'"):
        create_sandbox("docker")


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ((no_landlock,), "your files are private"),
        ((no_landlock, no_mounts), "your files stay as they are"),
        ((no_landlock, no_namespaces, no_seccomp), "no network"),
        ((no_landlock, no_namespaces, no_seccomp), "secrets are out of reach"),
    ],
)
def test_the_probe_notices_what_is_missing(changes: tuple[sandboxes.Sandbox, ...], title: str) -> None:
    report = describe(without(sandbox_or_skip("landlock"), *changes))
    assert title in {protection.name for protection in report.protections if not protection.held}
    assert report.warning


def test_a_backend_with_a_hole_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    leaky = without(sandbox_or_skip("landlock"), no_landlock)
    monkeypatch.setattr(sandboxes, "_variants", lambda backend: iter([leaky]))
    with pytest.raises(UserError, match="can read what you can read"):
        create_sandbox("landlock")


def test_a_bare_landlock_is_tried_where_namespaces_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox_or_skip("landlock")
    real = LandlockSandbox.restrictions

    def forbidden(self: LandlockSandbox, jail: Jail) -> dict[str, object]:
        spec = real(self, jail)
        return {**spec, "namespaces": ["no-such"]} if spec["namespaces"] else spec

    monkeypatch.setattr(LandlockSandbox, "restrictions", forbidden)
    describe.cache_clear()
    assert create_sandbox("landlock") == LandlockSandbox(namespaces=False, proc=False)


def test_paths_of_a_jail_are_absolute_and_do_not_overlap(tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch")
    with pytest.raises(ValueError, match="absolute"):
        replace(jail, read_only=(Path("here"),))
    with pytest.raises(ValueError, match="read-only inside a writable"):
        replace(jail, read_only=(tmp_path / "scratch" / "code",))


def test_without_a_gpu_the_probe_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "device_nodes", lambda: [])
    assert gpu.describe(create_sandbox("none")) == "no NVIDIA device on this machine"


def test_a_gpu_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU that answers")
    monkeypatch.setattr(gpu, "device_nodes", lambda: [Path("/dev/nvidiactl")])
    assert "CUDA does not answer" in gpu.describe(create_sandbox("none"))


def test_a_jail_with_a_gpu_shows_its_nodes_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "device_nodes", lambda only: [Path("/dev/nvidia0")])
    words = BwrapSandbox().wrap(["true"], Jail((), (), {}, Path("/"), (), True, LIMITS))
    shown = {words[at + 1] for at, word in enumerate(words) if word == "--dev-bind"}
    assert shown == {f"/dev/{name}" for name in (*DEVICES, "nvidia0")}
    spec = LandlockSandbox().restrictions(Jail((), (), {}, Path("/"), (), True, LIMITS))
    assert "/dev/nvidia0" in spec["landlock"]["devices"]
    assert spec["seccomp"]["memory_files"]


NAMES = """
import os, sys, threading

def write(path, mode):
    try:
        with open(path, mode) as file:
            file.write("named")
        return "written"
    except OSError:
        return "refused"

ready, done = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (ready.set(), done.wait()))
thread.start()
ready.wait()
me = os.getpid()
own = [f"/proc/{me}/task/{thread.native_id}/comm", f"/proc/self/task/{me}/comm"]
others = ["/proc/self/oom_score_adj", "/proc/self/comm", "/proc/1/comm", "/proc/sys/kernel/core_pattern",
          f"/proc/self/task/{me}/new", "/etc/hostname"]
print(*[write(path, mode) for path in own for mode in ("r+", "w")], *[write(path, "r+") for path in others])
done.set()
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_jail_with_a_gpu_may_name_its_threads_and_write_nowhere_else(backend: str, tmp_path: Path) -> None:
    sandbox = sandbox_or_skip(backend)
    for with_gpu, own in ((True, "written"), (False, "refused")):
        jail = make_jail(tmp_path / "scratch", gpu=with_gpu)
        output, status, _ = run_python(sandbox, NAMES, jail)
        assert (output.split(), status) == ([own] * 4 + ["refused"] * 6, 0), (with_gpu, output)


UUID = "GPU-%08d-0000-0000-0000-000000000000"


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the system says of two GPUs whose nodes are numbered the other way round."""
    (tmp_path / "dev").mkdir()
    for index, (bus, minor) in enumerate([("0000:1a:00.0", 1), ("0000:5b:00.0", 0)]):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        text = f"Model: \t\t A\nGPU UUID:  \t {UUID % index}\nDevice Minor: \t {minor}\nBlacklisted:\t No\n"
        (tmp_path / "gpus" / bus / "information").write_text(text)
        (tmp_path / "dev" / f"nvidia{minor}").touch()
    (tmp_path / "dev/nvidiactl").touch()
    monkeypatch.setattr(gpu, "DEV", tmp_path / "dev")
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "gpus")
    return tmp_path


def shown(only: str) -> list[str]:
    return [node.name for node in gpu.device_nodes(only)]


def test_of_several_gpus_the_one_that_is_meant_is_shown(gpus: Path) -> None:
    assert shown("0") == shown(UUID % 0) == shown("GPU-00000000") == ["nvidia1", "nvidiactl"]
    assert shown("1") == ["nvidia0", "nvidiactl"]
    assert gpu.inside("1") == UUID % 1
    spec = LandlockSandbox().restrictions(Jail((), (), {}, Path("/"), (), True, LIMITS, "1"))
    assert str(gpus / "dev/nvidia1") not in spec["landlock"]["devices"]
    words = BwrapSandbox().wrap(["true"], Jail((), (), {}, Path("/"), (), True, LIMITS, "1"))
    assert str(gpus / "dev/nvidia0") in words and str(gpus / "dev/nvidia1") not in words


def test_where_it_is_not_certain_which_is_meant_all_are_shown(gpus: Path) -> None:
    everything = ["nvidia0", "nvidia1", "nvidiactl"]
    for only in ("", "2", "GPU-", "MIG-00000000"):
        assert (shown(only), gpu.inside(only)) == (everything, only)
    (gpus / "dev/nvidia7").touch()  # one that the driver does not name
    assert (shown("0"), gpu.inside("0")) == ([*everything[:2], "nvidia7", "nvidiactl"], "0")
    (gpus / "dev/nvidia7").unlink()
    (gpus / "dev/nvidia-caps").mkdir()
    for cap in (1, 2, 21):
        (gpus / f"dev/nvidia-caps/nvidia-cap{cap}").touch()
    assert (set(everything) <= set(shown("0")), gpu.inside("0")) == (True, "0"), "divided"


def test_the_gpu_s_variables_are_passed_on_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("API_KEY", "secret")
    assert gpu.environment()["CUDA_VISIBLE_DEVICES"] == "1"
    assert set(gpu.environment()) <= set(gpu.VARIABLES)
    assert os.environ["API_KEY"] == "secret"


@pytest.mark.slow
def test_a_jail_may_list_more_paths_than_a_word_of_a_command_holds(tmp_path: Path) -> None:
    """Linux allows 128 KB a word; bare Landlock lists thousands of paths, and some environments lie deep."""
    paths = tuple(Path("/nowhere", "x" * 150, str(number)) for number in range(1000))
    sandbox = sandbox_or_skip("landlock-bare")
    output, status, _ = run_python(sandbox, "print('runs')", make_jail(tmp_path / "x", read_only=paths))
    assert (output.strip(), status) == ("runs", 0), output
