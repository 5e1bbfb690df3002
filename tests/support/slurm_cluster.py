"""A real Slurm on this machine: munged, slurmctld and a slurmd for each of some made-up nodes; no systemd.

Everything lies in one folder, on ports that were free, so that several clusters run beside each other. Nodes
share this host, so a job sees the files of all. Not covered: accounting (no slurmdbd), cgroups.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
SECONDS = 60.0
"""How long anything may take before a test fails."""

SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdTimeout=5
InactiveLimit=0
KillWait=2
MinJobAge=300
JobRequeue=1
PropagateResourceLimits=NONE
GresTypes=gpu
"""


def programs() -> None:
    """Skips the test, or fails it in CI, where Slurm is not installed."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        said = f"Slurm is not installed: {', '.join(missing)} missing"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def until(true: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until something is true; fails after a while."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Cluster:
    """A cluster that runs.

    Attributes:
        folder: Of its settings, its state and its logs.
        nodes: Their names.
        environment: What commands and searches need to find it.
    """

    folder: Path
    nodes: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf)}

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    def run(self, *command: str) -> str:
        """What a command of Slurm prints."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self, *states: str) -> list[str]:
        """Numbers of the jobs that wait or run, or that are in one of these states."""
        wanted = ["-t", ",".join(states)] if states else []
        return self.run("squeue", "-h", "-o", "%i", *wanted).split()

    def start_controller(self) -> None:
        self._daemon("slurmctld")

    def kill_controller(self) -> None:
        """As `kill -9`: jobs run on."""
        self._kill(self.folder / "slurmctld.pid")

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-N", node)

    def lose_node(self, node: str) -> None:
        """As if its network failed: Slurm requeues its jobs, whose processes live on."""
        self._kill(self.folder / f"{node}.pid")
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def mend_node(self, node: str) -> None:
        """Bring a lost node back."""
        if not (self.folder / f"{node}.pid").exists():
            self.start_node(node)
        until(lambda: self._resumed(node), f"{node} is back")

    def mend(self) -> None:
        """Bring all nodes back, whatever became of them."""
        for node in self.nodes:
            self.mend_node(node)

    def node_of(self, job: str) -> str:
        """Where a job runs; empty if it does not."""
        return self.run("squeue", "-h", "-j", job, "-t", "R", "-o", "%N").strip()

    def workers(self) -> list[psutil.Process]:
        """The workers that run in jobs, also in those that Slurm has given up."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "--spool" in process.cmdline() and process.environ().get("SLURM_CONF") == str(self.conf):
                    found.append(process)
        return found

    def clear(self) -> None:
        """Cancel all jobs, and wait until they are gone."""
        if jobs := self.jobs():
            self.run("scancel", *jobs)
        until(lambda: not self.jobs(), "all jobs are gone")

    def _resumed(self, node: str) -> bool:
        state = self.run("sinfo", "-h", "-n", node, "-o", "%T").strip()
        if state in ("idle", "mixed", "allocated"):
            return True
        environment = {**os.environ, **self.environment}
        command = ["scontrol", "update", f"nodename={node}", "state=resume"]
        subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS)
        return False

    def _daemon(self, name: str, *arguments: str) -> None:
        program = _program(name)
        assert program
        # stdin and out of their own: a daemon that kept a pipe of ours would keep its reader waiting.
        subprocess.run(
            [program, *arguments, "-f", str(self.conf)],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=SECONDS,
        )

    def _kill(self, pid_file: Path) -> None:
        until(lambda: pid_file.exists() and pid_file.read_text().strip(), f"{pid_file.name} is written")
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(pid_file.read_text()))
            process.kill()
            until(lambda: ended(process), f"{pid_file.name} is killed")
        pid_file.unlink(missing_ok=True)


def ended(process: psutil.Process) -> bool:
    """Whether a process is gone; where nobody collects the ends of daemons, they stay as zombies."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@contextmanager
def slurm_cluster(nodes: int = 2, cpus: int = 2, gpus: int = 0) -> Iterator[Cluster]:
    """A cluster; ended at the end, with all that its jobs left running.

    Args:
        nodes: How many nodes.
        cpus: Cores that each claims to have.
        gpus: GPUs that each claims to have; CUDA sees none of them.
    """
    programs()
    with ExitStack() as stack:
        # Not below a folder of pytest: munged refuses a socket below folders that others can write.
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True))
        )
        cluster = Cluster(folder, tuple(f"n{i}" for i in range(1, nodes + 1)))
        for name in ("munge", "state", *(f"spool/{node}" for node in cluster.nodes)):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        (folder / "munge").chmod(0o711)
        _write_settings(cluster, cpus, gpus)
        stack.callback(_end, cluster)
        _start_munge(folder / "munge")
        cluster.start_controller()
        for node in cluster.nodes:
            cluster.start_node(node)
        until(lambda: _idle(cluster) == nodes, "all nodes are idle")
        yield cluster


def _write_settings(cluster: Cluster, cpus: int, gpus: int) -> None:
    folder, host = cluster.folder, socket.gethostname().partition(".")[0]
    ports = _free_ports(1 + len(cluster.nodes))
    lines = [SETTINGS.format(host=host, user=getpass.getuser(), folder=folder, ports=ports)]
    for node, port in zip(cluster.nodes, ports[1:], strict=True):
        claims = f"CPUs={cpus} RealMemory=4000" + (f" Gres=gpu:{gpus}" if gpus else "")
        lines.append(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {claims} State=UNKNOWN"
        )
    lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    lines.append("PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP")
    cluster.conf.write_text("\n".join(lines) + "\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    # Any device file will do: Slurm counts them, and sets CUDA_VISIBLE_DEVICES.
    gres = [f"NodeName={cluster.nodes[0]} Name=gpu File=/dev/tty{i}" for i in range(gpus)]
    everywhere = [line.replace(cluster.nodes[0], node) for node in cluster.nodes for line in gres]
    (folder / "gres.conf").write_text("\n".join(everywhere) + "\n")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start_munge(folder: Path) -> None:
    key = folder / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    program = _program("munged")
    assert program
    options = {
        "key-file": key,
        "socket": folder / "socket",
        "pid-file": folder / "pid",
        "log-file": folder / "log",
    }
    named = [f"--{name}={path}" for name, path in {**options, "seed-file": folder / "seed"}.items()]
    subprocess.run([program, "--num-threads=1", *named], check=True, timeout=SECONDS)


def _idle(cluster: Cluster) -> int:
    with contextlib.suppress(AssertionError):  # the controller may not answer yet
        return sum(map(int, cluster.run("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D").split()))
    return 0


def _end(cluster: Cluster) -> None:
    """End all daemons, and whatever jobs left running."""
    for file in (*cluster.folder.glob("*.pid"), cluster.folder / "munge" / "pid"):
        if file.exists():
            cluster._kill(file)
    named = cluster.environment["SLURM_CONF"]
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if process.pid != os.getpid() and environment.get("SLURM_CONF") == named:
                process.kill()
                left.append(process)
    until(lambda: all(map(ended, left)), "what jobs left is killed")
