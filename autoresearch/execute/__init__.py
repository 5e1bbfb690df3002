"""Where trials run: processes on this machine, their limits, their health, their sandbox."""

from autoresearch.registry import Registry

EXECUTORS = Registry("executor", {"local": "autoresearch.execute.local:LocalExecutor"})
"""Classes for `executor=NAME`; a constructor takes measurers, the folder of all runs, and an export."""
