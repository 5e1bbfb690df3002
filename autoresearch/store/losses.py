"""Losses of each document, kept beside the journal: what the sampling error of a split is reckoned from.

Long documents count in parts (see `nanomodel.windows`). One small file a scored trial,
`runs/<name>/losses/<trial>/SPLIT.npy`: float64 [pieces, 2], nats and bytes. Not covered: the bootstrap
(`autoresearch.judge.sampling_error`).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def losses_folder(search: Path, trial: int) -> Path:
    """Where the losses of a trial lie."""
    return search / "losses" / str(trial)


def keep_losses(scratch: Path, folder: Path) -> None:
    """Save what the scorer left in a trial's scratch folder; nothing if it has no score."""
    for path in scratch.glob("*.npy"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)


def read_losses(folder: Path, split: str = "validation") -> NDArray[np.float64] | None:
    """Nats and bytes of each piece with text, float64 [pieces, 2]; None if they were not kept."""
    import numpy as np

    path = folder / f"{split}.npy"
    if not path.exists():
        return None
    table: NDArray[np.float64] = np.load(path, allow_pickle=False)
    return table[table[:, 1] > 0]


def sampling_error(search: Path, trials: Sequence[int]) -> float:
    """What the choice of validation documents adds to a difference, from replicates of one script.

    Args:
        search: The search's folder.
        trials: The replicates.

    Returns:
        Standard error in bits per byte; 0 if it cannot be known.
    """
    import numpy as np

    from autoresearch.judge.sampling_error import replicate_tau

    tables = [t for n in trials if (t := read_losses(losses_folder(search, n))) is not None]
    if len(tables) < 2 or len(tables[0]) < 2:
        return 0.0
    return replicate_tau([table[:, 0] for table in tables], tables[0][:, 1] * np.log(2))
