"""The alarm: the same failure several times in a row is no research, and ends the search early.

Counts only what happened since the search was last started, so that a person can go on with the same command.
"""

from __future__ import annotations

from autoresearch.errors import UserError
from autoresearch.report.summary import cause, signature
from autoresearch.types import Experiment, VerdictKind

ALARMING = (VerdictKind.CRASH, VerdictKind.INVALID)


class Alarm:
    """Counts failures alike; `limit` of them in a row are too many, None is no limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._last: tuple[VerdictKind, str] | None = None
        self._alike: list[int] = []

    def note(self, experiment: Experiment) -> None:
        """Take note of a recorded experiment.

        Raises:
            UserError: If it is one too many.
        """
        verdict = experiment.verdict
        if verdict is None or verdict.kind not in ALARMING:
            self._last, self._alike = None, []
            return
        reason = cause(experiment)
        kind = verdict.kind, signature(reason)
        self._alike = [*self._alike, experiment.number] if kind == self._last else [experiment.number]
        self._last = kind
        if self._limit is not None and len(self._alike) >= self._limit:
            first, last = self._alike[0], self._alike[-1]
            raise UserError(
                f"The last {len(self._alike)} experiments ({first} to {last}) failed alike: {reason}",
                f"See what happened: autoresearch show {last}. If the machine is to blame, mend it; the same "
                "command goes on. alarm=null switches this off.",
                code=3,
            )
