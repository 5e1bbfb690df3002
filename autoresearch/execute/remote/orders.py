"""Attempts at trials: which one counts, what a worker is told of it, and the files that travel for it.

Files are known by their hash, so each goes to a machine once. What comes back for an attempt that no longer
counts, or that nobody asked for, is refused. Not covered: where attempts run (`executor`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from autoresearch.execute.base import TrialSpec
from autoresearch.execute.local import Export
from autoresearch.execute.worker.channels import Channel, WorkerLost
from autoresearch.execute.worker.fence import Fence
from autoresearch.execute.worker.files import Listing, list_folder, pieces
from autoresearch.execute.worker.messages import Order, Setup, Wire
from autoresearch.store.files import remove_tree
from autoresearch.types import Measurement


@dataclass(eq=False)
class Job:
    """A trial or a tryout that was submitted and has not ended.

    Attributes:
        attempt: The attempt that counts; empty while it waits for a place.
        losses: Workers that were lost under it.
        spoiled: Places where the machine failed under it, or was slow.
        left: Files that the attempt has sent so far.
    """

    spec: TrialSpec
    events: SimpleQueue[Any]
    folder: Path
    tryout: bool = False
    attempt: str = ""
    cancelled: bool = False
    losses: int = 0
    spoiled: set[str] = field(default_factory=set)
    tree: Listing | None = None
    left: set[str] = field(default_factory=set)


class Orders:
    """Makes the orders of one search's executor."""

    def __init__(self, setup: Setup, runs: Path, export: Export) -> None:
        """Prepare.

        Args:
            setup: What each worker makes its measurer of.
            runs: The folder that holds the folders of the searches.
            export: Writes the tree of a candidate; called from other threads.
        """
        self._runs, self._export = runs, export
        self._listings = {listing.key: listing for listing in setup.folders.values()}
        if setup.trusted is not None:
            self._listings[setup.trusted.key] = setup.trusted
        self._fences: dict[str, Fence] = {}
        self._lock = threading.Lock()

    def make(self, job: Job) -> Order:
        """Write the files of a job, and claim an attempt: from now on no earlier one counts."""
        spec = job.spec
        if job.tree is None and not job.cancelled:
            remove_tree(job.folder)
            self._export(spec.tree, job.folder / "tree", spec.files)
            job.tree = list_folder(job.folder / "tree")
        tree, kept = job.tree or Listing(), None
        given = self._runs / spec.search / spec.submission
        if spec.submission and given.is_file():
            remove_tree(job.folder / "kept")
            (job.folder / "kept").mkdir()
            (job.folder / "kept" / "submission").hardlink_to(given)
            kept = list_folder(job.folder / "kept")
        with self._lock:
            fence = self._fences.setdefault(spec.search, Fence(self._runs / spec.search))
            attempt = fence.claim(spec.trial)
            for listing in (tree, kept):
                if listing is not None:
                    self._listings[listing.key] = listing
        return Order(attempt, spec, tree, kept, str(fence.path))

    def counts(self, job: Job) -> bool:
        """Whether the attempt of a job may report."""
        return self._fences[job.spec.search].counts(job.spec.trial, job.attempt)

    def end(self, job: Job) -> None:
        """No attempt of a job counts any longer, and its files are removed."""
        with self._lock:
            if job.tree is not None:
                self._listings.pop(job.tree.key, None)
            fence = self._fences.get(job.spec.search)
        if fence is not None:
            fence.end(job.spec.trial)
        remove_tree(job.folder)

    # Files

    def send_files(self, channel: Channel, message: Wire) -> None:
        """Send what a worker lacks of a listing."""
        listing, hashes = self._listings[message["key"]], set(message["hashes"])
        for file in listing.files:
            if file.hash in hashes:
                hashes.discard(file.hash)
                for piece, last in pieces(Path(listing.at, file.path)):
                    channel.send({"kind": "file", "hash": file.hash, "data": piece, "last": last})

    def take_piece(self, job: Job, message: Wire) -> None:
        """Keep a piece of a file that a trial left, if it is one that was asked for.

        Raises:
            WorkerLost: If nobody asked for it.
        """
        path, spec = str(message["path"]), job.spec
        losses = spec.items and path.startswith(f"{spec.items}/") and path.endswith(".items.npy")
        if not (losses and path.count("/") == spec.items.count("/") + 1) and path != spec.submission:
            raise WorkerLost(f"it sent {path}, which nobody asked for")
        target = job.folder / "left" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab" if path in job.left else "wb") as stream:
            job.left.add(path)
            stream.write(message["data"])

    def keep_files(self, job: Job, result: Measurement) -> Measurement:
        """Move what a trial left to the folder of the search."""
        for path in job.left:
            target = self._runs / job.spec.search / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (job.folder / "left" / path).replace(target)
        return replace(result, items={k: path for k, path in result.items.items() if path in job.left})
