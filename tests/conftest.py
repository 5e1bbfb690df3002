"""Settings of every test: no clock decides, since machines are shared; no GPU is seen, whatever there is."""

import os

from hypothesis import settings

# Before anything loads torch: what it sees decides which column of a script's knobs is tested.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

settings.register_profile("shared", deadline=None, max_examples=100 if "CI" in os.environ else 30)
settings.load_profile("shared")
