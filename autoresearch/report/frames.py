"""A search as pandas frames, for notebooks: `autoresearch.open("night1").experiments`.

Everything is read from the journal anew at each access, so that a running search can be followed.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from autoresearch.errors import UserError
from autoresearch.report.summary import Summary, experiment_row, summarize
from autoresearch.store.connection import holds_search
from autoresearch.store.journal import Journal

if TYPE_CHECKING:
    import pandas


class SearchFrames:
    """One search, read only.

    Args:
        folder: Of the search.
        place: Removed with this object, if the folder lies in a temporary one.

    Raises:
        UserError: If there is no search in it.
    """

    def __init__(self, folder: Path, place: TemporaryDirectory[str] | None = None) -> None:
        if not holds_search(folder):
            raise UserError(f"There is no search in {folder}.", "List them: autoresearch list")
        self.folder, self._place = folder, place

    @property
    def summary(self) -> Summary:
        """What came of it, as typed values; `summary.to_dict()` is what `status --json` prints."""
        with Journal.of(self.folder) as journal:
            return summarize(journal)

    @property
    def experiments(self) -> pandas.DataFrame:
        """One row for each experiment, indexed by number: what `log --json` prints, and `metrics.NAME`."""
        import pandas

        found = self.summary
        rows = [experiment_row(e, found.metric) for e in found.experiments]
        flat = [row | {f"metrics.{key}": value for key, value in row.pop("metrics").items()} for row in rows]
        return pandas.DataFrame(flat).set_index("number")

    @property
    def trials(self) -> pandas.DataFrame:
        """One row for each trial, indexed by its number: experiment, arm, seed, outcome, score, seconds."""
        import pandas

        rows: list[dict[str, Any]] = [
            {
                "trial": t.id,
                "experiment": t.experiment,
                "arm": str(t.arm),
                "seed": t.seed,
                "commit": t.commit,
                "outcome": t.result.outcome.value if t.result else None,
                "score": t.score,
                "seconds": t.seconds,
            }
            for e in self.summary.experiments
            for t in e.trials
        ]
        return pandas.DataFrame(rows).set_index("trial")

    @property
    def curves(self) -> pandas.DataFrame:
        """Training losses: columns trial, experiment, fraction of the budget, loss."""
        import pandas

        rows = [
            (t.id, t.experiment, fraction, loss)
            for e in self.summary.experiments
            for t in e.trials
            if t.result
            for fraction, loss in t.result.curve
        ]
        return pandas.DataFrame(rows, columns=["trial", "experiment", "fraction", "loss"])
