"""Fits boosted trees, and leaves predictions for the flights of both held-out parts."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

LEARNING_RATE = 0.3  # 0.02..0.5 log
ITERATIONS = 40  # 20..60
LEAVES = 31  # 7..63 log
LEAST_IN_LEAF = 20  # 5..200 log
L2 = 0.1  # 0.01..10 log
SAMPLE = 0.8  # 0.5..1.0 ; share of the flights that are drawn for a training

data, out = Path(os.environ["AUTORESEARCH_DATA"]), Path(os.environ["AUTORESEARCH_OUT"])
seed = int(os.environ["AUTORESEARCH_SEED"])


def features(flights: pd.DataFrame) -> np.ndarray:
    """Numbers for each flight."""
    return flights[["month", "day", "sched_dep_time", "distance"]].to_numpy(float)


late = np.load(data / "late.npy")
known = features(pd.read_csv(data / "train.csv"))
rows = np.random.default_rng(seed).permutation(len(late))[: int(SAMPLE * len(late))]
model = HistGradientBoostingClassifier(
    learning_rate=LEARNING_RATE,
    max_iter=ITERATIONS,
    max_leaf_nodes=LEAVES,
    min_samples_leaf=LEAST_IN_LEAF,
    l2_regularization=L2,
    random_state=seed,
    early_stopping=False,
).fit(known[rows], late[rows])
asked = {split: features(pd.read_csv(data / f"{split}.csv")) for split in ("validation", "test")}
np.savez(out / "predictions.npz", **{split: model.predict_proba(x)[:, 1] for split, x in asked.items()})
