"""Scores the predictions that were left. Frozen; reads arrays of numbers only."""

import os
from pathlib import Path

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

late = np.load(Path(os.environ["AUTORESEARCH_DATA"]) / "late.npy")
with np.load(Path(os.environ["AUTORESEARCH_OUT"]) / "predictions.npz", allow_pickle=False) as left:
    said = left[os.environ["AUTORESEARCH_SPLIT"]].astype(float)
if said.shape != late.shape or not np.isfinite(said).all():
    raise SystemExit("one finite number for each flight is wanted")
print(f"METRIC auc={roc_auc_score(late, said):.8f}")
print(f"METRIC log_loss={log_loss(late, np.clip(said, 1e-6, 1 - 1e-6)):.8f}")
