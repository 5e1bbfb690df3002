"""Where trials run: processes on this machine, their limits, their health, their sandbox."""

from autoresearch.registry import Registry

BUILT_IN = {
    "local": "autoresearch.execute.local:LocalExecutor",
    "ray": "autoresearch.execute.ray:RayExecutor",
    "slurm": "autoresearch.execute.slurm.executor:SlurmExecutor",
}
EXECUTORS = Registry("executor", BUILT_IN)
"""Classes for `executor=NAME`; a constructor takes measurers, the folder of all runs, and an export.

Where the class has a true attribute `remote`, it takes a `Setup` in place of the measurers, then the group
`executor`, the folder, the export, and a way to tell a person something. Its `check` checks the group before.
"""


def is_remote(name: str) -> bool:
    """Whether trials of the executor of this name run where this process cannot measure."""
    return bool(getattr(EXECUTORS.load(name), "remote", False))
