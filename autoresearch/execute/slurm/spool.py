"""What is said to and by one start of a job, and the attempts in it that an earlier run of the search began.

A runner that was killed leaves its jobs running. The next one reads in their folders which attempts are under
way, or have ended unheard. If it asks for the same measurement again, the attempt is adopted: it goes on
under its new name, and everything that it has said so far is heard. Which attempts an earlier run still
wanted is in its fence. Not covered: which job serves which place (`engine`).
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from autoresearch.execute.slurm.jobs import Job
from autoresearch.execute.worker.channels import FROM_WORKER, TO_WORKER, Appender, Follower
from autoresearch.execute.worker.messages import Wire

FREE = ("trial", "files", "tree", "items", "submission", "baseline", "reference", "stop_above", "spare")
"""Fields of a spec that may differ in an attempt that is adopted: its number, where its files go, and when it
is stopped, which depends on what was known as it began. The tree is compared by its content."""


def sought(order: Wire) -> str:
    """The same text for two orders of which one's result serves the other."""
    spec: dict[str, Any] = order["spec"]
    rest = {name: value for name, value in spec.items() if name not in FREE}
    wanted = {"keeps": [bool(spec["items"]), bool(spec["submission"])], "files": order["tree"]["files"]}
    return json.dumps([rest, wanted, order["kept"] and order["kept"]["files"]], sort_keys=True)


@dataclass(eq=False)
class Orphan:
    """An attempt of an earlier run.

    Attributes:
        order: As it was given.
        said: What its worker said of it, in order.
    """

    order: Wire
    said: list[Wire] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether it has ended with a result."""
        return bool(self.said) and "measurement" in self.said[-1]

    def adopted(self, message: Wire, order: Wire) -> Wire:
        """A message about it, as one about the attempt of another order."""
        old, new = self.order["spec"], order["spec"]
        message = {**message, "attempt": order["attempt"]}

        def moved(path: str) -> str:
            if path == old["submission"]:
                return str(new["submission"])
            return f"{new['items']}{path.removeprefix(old['items'])}" if old["items"] else path

        if message["kind"] == "file":
            message["path"] = moved(message["path"])
        if "measurement" in message:
            result = dict(message["measurement"])
            result["items"] = {split: moved(path) for split, path in result.get("items", {}).items()}
            message["measurement"] = result
        return message


class Link:
    """The messages of one start of a job.

    Attributes:
        job: The job.
        restart: Which start it is; 0 is the first.
        setup: What its worker was told to make its measurer of; None before.
        hello: What its worker said first; None before.
        ready: That it was ready; None before.
        heard: When it said something last, by the monotonic clock.
        trials: How many it has measured.
        orphans: Attempts of an earlier run in it.
    """

    def __init__(self, job: Job, restart: int) -> None:
        folder = job.messages(restart)
        (folder / FROM_WORKER).touch()  # else a network file system may hide it for a while
        self.job, self.restart = job, restart
        self.setup: Wire | None = None
        self.hello: Wire | None = None
        self.ready: Wire | None = None
        self.heard = time.monotonic()
        self.trials = 0
        self.orphans: list[Orphan] = []
        self._appender = Appender(folder / TO_WORKER)
        self._follower = Follower(folder / FROM_WORKER)
        self._folder = folder
        self._unread: deque[Wire] = deque()
        self._adopted: dict[str, tuple[Orphan, Wire]] = {}

    def tell(self, message: Wire) -> None:
        """Send a message to the worker."""
        if message["kind"] == "cancel":
            names = {order["attempt"]: old for old, (_, order) in self._adopted.items()}
            message = {**message, "attempts": [names.get(name, name) for name in message["attempts"]]}
        self._appender.send(message)

    def listen(self) -> Wire | None:
        """The next message for the search, if there is one, other than `hello` and `ready`."""
        self.look()
        return self._unread.popleft() if self._unread else None

    def look(self) -> None:
        """Read what the worker has said since."""
        while (message := self._follower.next(0.0)) is not None:
            self.heard = time.monotonic()
            match message["kind"]:
                case "hello":
                    self.hello = message
                case "ready":
                    self.ready = message
                case "alive":
                    pass
                case _:
                    self._sort(message)

    def recall(self, wanted: Collection[str]) -> None:
        """Find the attempts of an earlier run.

        Args:
            wanted: Those that it still wanted.
        """
        follower = Follower(self._folder / TO_WORKER)
        orders: dict[str, Wire] = {}
        latest: dict[str, str] = {}
        while (message := follower.next(0.0)) is not None:
            match message["kind"]:
                case "setup":
                    self.setup = message["setup"]
                case "order" if not message["tryout"]:
                    name = message["order"]["attempt"]
                    orders[name], latest[name] = message["order"], name
                case "adopted":
                    latest[message["attempt"]] = message["by"]
        self.orphans = [Orphan(orders[name]) for name, attempt in latest.items() if attempt in wanted]
        self.look()
        self._unread = deque(message for message in self._unread if message["kind"] != "need")

    def adopt(self, orphan: Orphan, order: Wire, found: Link | None = None) -> None:
        """From now on an attempt of an earlier run is that of an order.

        Args:
            orphan: The attempt.
            order: The order.
            found: Where it is, if it has ended; else it must be here.
        """
        (found or self).orphans.remove(orphan)
        name = orphan.order["attempt"]  # the next runner must know, if this one is killed, too
        (found or self).tell({"kind": "adopted", "attempt": name, "by": order["attempt"]})
        self._adopted[orphan.order["attempt"]] = orphan, order
        self._unread.extend(orphan.adopted(message, order) for message in orphan.said)

    def give_up_orphans(self) -> None:
        """End the attempts of an earlier run that nobody has asked for."""
        if names := [orphan.order["attempt"] for orphan in self.orphans]:
            self.orphans = []
            self.tell({"kind": "cancel", "attempts": names})

    def _sort(self, message: Wire) -> None:
        attempt = message.get("attempt", "")
        for orphan in self.orphans:
            if orphan.order["attempt"] == attempt:
                orphan.said.append(message)
                return
        if attempt in self._adopted:
            orphan, order = self._adopted[attempt]
            message = orphan.adopted(message, order)
        self._unread.append(message)
