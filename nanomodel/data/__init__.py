"""Corpora, tokenizer, splits, and the prepared cache that training and scoring read.

`prepare` turns a corpus into a folder once; `open_cache` maps that folder into memory. Importing this
package, and opening a cache, needs numpy alone: a prepared folder can be copied to a machine that has
only torch and numpy. Nothing in here imports torch.

    from nanomodel.data import DataSpec, open_cache, prepare
    data = prepare(DataSpec.from_dict(options), Path("runs/cache"))
    tokens = data.tokens("train")        # uint16, mapped from disk

Not covered: sampling batches (the harness does that), and shuffling (documents stay in corpus order).
"""

from __future__ import annotations

from pathlib import Path

from nanomodel.data.cache import SEPARATOR, SPLITS, Prepared, open_cache
from nanomodel.data.progress import Report, silent
from nanomodel.data.spec import DataError, DataSpec

__all__ = ["SEPARATOR", "SPLITS", "DataError", "DataSpec", "Prepared", "Report", "open_cache", "prepare"]


def prepare(spec: DataSpec, cache: Path, progress: Report = silent) -> Prepared:
    """Find the prepared data of `spec` in `cache`, or make it.

    Safe to call from several processes at once: one works, the others wait and take its result.

    Args:
        spec: What to prepare.
        cache: Folder that holds prepared data; made if missing.
        progress: Called with (phase, done, total); see `nanomodel.data.progress`.

    Raises:
        DataError: If the corpus, the options or the folder are at fault.
    """
    try:
        from nanomodel.data.build import prepare as build
    except ImportError as error:
        raise DataError(
            f"Preparing data needs {error.name}, which is not installed.",
            "Install it, or copy a prepared folder from another machine.",
        ) from error
    return build(spec, cache, progress)
