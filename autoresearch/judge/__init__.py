"""The judge: keep what is real, know how sure, and still move fast.

`create_judge` gives a judge by name. Invariant of this room, apart from `tau`: no input or output, clock,
or chance; lower scores are better; multiplying all scores by a constant changes no decision.
"""

from __future__ import annotations

from collections.abc import Callable

from autoresearch.errors import UserError
from autoresearch.judge.base import Baseline, Judge
from autoresearch.judge.default import Default
from autoresearch.judge.greedy import Greedy
from autoresearch.judge.orders import TrialRequest
from autoresearch.judge.report import Kept, Report
from autoresearch.judge.strict import Strict
from autoresearch.judge.threshold import Threshold
from autoresearch.types import Estimate

JUDGES: dict[str, Callable[..., Judge]] = {
    "default": Default,
    "strict": Strict,
    "threshold": Threshold,
    "greedy": Greedy,
}


def create_judge(name: str, baseline: Baseline, tau: float = 0.0, **options: float) -> Judge:
    """Make a judge.

    Args:
        name: "default", "strict", "threshold" or "greedy".
        baseline: (seed, score) of each replicate of the starting point, seeds all different. "default" and
            "strict" need two or more; "threshold" asks for a second one itself; "greedy" needs one.
        tau: Standard error that the validation set adds to any difference, in score units.
        options: See the judge's class.

    Raises:
        UserError: If there is no such judge, or it has no such option.
        ValueError: If the baseline is too small, failed, or repeats a seed, or a value is out of range.
    """
    if name not in JUDGES:
        raise UserError(f"there is no judge named {name!r}", f"choose one of {', '.join(JUDGES)}")
    try:
        return JUDGES[name](baseline, tau, **options)
    except TypeError as error:
        raise UserError(f"the judge {name!r}: {error}", "see configs/judge/ for its options") from error


__all__ = ["JUDGES", "Baseline", "Estimate", "Judge", "Kept", "Report", "TrialRequest", "create_judge"]
