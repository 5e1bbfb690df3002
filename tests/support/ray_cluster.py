"""A Ray cluster of several nodes on this machine, each node a process of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0", **TOKEN}
"""Ray reads them once, when it is first imported."""


def require_ray() -> None:
    """Skip where Ray is not installed; in CI that is a failure."""
    if os.environ.get("CI") != "1":
        pytest.importorskip("ray")


@contextmanager
def cluster(*cpus: int) -> Iterator[Any]:
    """A cluster whose nodes have so many CPUs; the head has none."""
    from ray.cluster_utils import Cluster

    # A node that does not answer for two seconds is dead.
    quick = {f"health_check_{name}_ms": 500 for name in ("period", "timeout")}
    quick["health_check_failure_threshold"] = 4
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for number in cpus:
            made.add_node(num_cpus=number)
        yield made
    finally:
        made.shutdown()
