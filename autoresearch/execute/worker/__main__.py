"""The worker program: `python -m autoresearch.execute.worker --place NAME --cache FOLDER --spool FOLDER`.

Messages come and go through two files of the folder --spool (`channels`). It ends when it is told to, when
its attempt is superseded, or when nobody has asked for anything for --lease seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from autoresearch.execute.base import Place
from autoresearch.execute.places import fingerprint
from autoresearch.execute.worker.channels import FROM_WORKER, TO_WORKER, Appender, Follower
from autoresearch.execute.worker.messages import Wire
from autoresearch.execute.worker.worker import Worker


def serve(worker: Worker, receive: Callable[[float], Wire | None], lease: float | None) -> None:
    """Hand messages to a worker until it ends; closes it.

    Args:
        worker: The worker.
        receive: The next message, None if there is none within so many seconds.
        lease: Seconds without a message after which nobody is believed to listen; None: for ever.
    """
    heard = time.monotonic()
    try:
        while not worker.ended.is_set() and (lease is None or time.monotonic() < heard + lease):
            if (message := receive(0.5)) is not None:
                heard = time.monotonic()
                worker.handle(message)
    finally:
        worker.close()


def main() -> None:
    """Run a worker as the command line says."""
    parser = argparse.ArgumentParser(prog="autoresearch.execute.worker", description=__doc__)
    parser.add_argument("--place", required=True, help="its name, for the search")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU such as cuda:0")
    parser.add_argument("--cache", type=Path, required=True, help="folder that workers of this machine share")
    parser.add_argument("--spool", type=Path, required=True, help="folder of the two files of messages")
    parser.add_argument("--lease", type=float, help="seconds without a message after which it ends")
    given = parser.parse_args()
    place = Place(given.place, fingerprint(given.device))
    _claim(given.spool)
    out, follower = Appender(given.spool / FROM_WORKER), Follower(given.spool / TO_WORKER)
    serve(Worker(place, given.cache, out.send), follower.next, given.lease)


def _claim(spool: Path) -> None:
    """Take a folder of messages for this process alone: an engine may start a job twice, and not know it."""
    try:
        (spool / "taken").touch(exist_ok=False)
    except FileExistsError:
        sys.exit(f"Another worker has {spool} already: this copy ends.")


if __name__ == "__main__":
    main()
