"""Settings of every test: no clock decides, since machines are shared; no GPU is seen, whatever there is."""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

from nanomodel.standby import uncollected

# Before anything loads torch: what it sees decides which column of a script's knobs is tested.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

# Whoever starts the tests in the background of a shell has it ignored, and so would have all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("shared", deadline=None, max_examples=100 if "CI" in os.environ else 20)
settings.load_profile("shared")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the tests import stays: the collector need not look through it while they load, nor ever after."""
    with uncollected():
        return (yield)
