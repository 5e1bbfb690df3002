"""Divides the images that ship with scikit-learn into train, validation and test."""

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

data = load_digits()
images = (data.images / 16).astype(np.float32)[:, None]
order = np.random.default_rng(0).permutation(len(images))
for split, chosen in {"train": order[:1000], "validation": order[1000:1400], "test": order[1400:]}.items():
    folder = Path(os.environ["AUTORESEARCH_DATA"]) / split
    folder.mkdir()
    np.savez(folder / "digits.npz", images=images[chosen], labels=data.target[chosen])
