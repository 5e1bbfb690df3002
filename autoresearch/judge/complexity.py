"""What a change of size is worth, in the noise's own unit.

An addition must bring `price` times the noise per line; a removal may cost that much, but never more than
`margin`. Invariant: no unit but the noise, so an exchange rate means the same in every setting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoresearch.judge.noise import Comparison
from autoresearch.judge.report import Kept
from autoresearch.judge.stats import Z95

SURE = 2.1
"""z of a one-sided test that a simplification is worse than the margin. It may be looked at ten times: at 5%
for all together that is about 2% each. Of removals that lose all of the margin, 0.5% are kept."""


@dataclass(frozen=True)
class Worth:
    """What the size of the current candidate is worth, in score.

    Attributes:
        price: What it must gain for the size it adds; 0 or more.
        bonus: What it may lose for the size it removes; 0 or more.
        margin: What it must be shown not to lose; 0 unless it removes something.
    """

    price: float = 0.0
    bonus: float = 0.0
    margin: float = 0.0

    @classmethod
    def of(cls, complexity: float, price: float, margin: float, sigma: float) -> Worth:
        """From the net size added, the exchange rate and margin in noise units, and the noise."""
        if complexity >= 0:
            return cls(price=price * complexity * sigma)
        bonus = min(-price * complexity, margin) * sigma
        return cls(bonus=bonus, margin=margin * sigma if bonus > 0 else 0.0)

    def simplifies(self, alone: Comparison) -> bool:
        """Whether unselected runs show a removal to be harmless: worth its loss, and within the margin."""
        if not self.margin:
            return False
        return alone.gain + self.bonus >= 0 and alone.plus(self.margin).z >= SURE


def simplified(alone: Comparison, worth: Worth, scale: float, runs: int) -> Kept:
    """What is kept of a simplification: its effect, less the luck of having been found harmless.

    Whoever removes code does not expect a gain: the posterior for a normal prior around none, as wide as a
    gain is large.

    Args:
        alone: The runs after its screening against the incumbent.
        worth: What its size is worth.
        scale: Mean size of a real gain.
        runs: How many.
    """
    error = alone.widened
    belief = scale**2 / (scale**2 + error**2)
    effect, reach = belief * alone.gain, Z95 * math.sqrt(belief) * error
    interval = (effect - reach, effect + reach)
    return Kept(
        effect, math.sqrt(belief) * error, effect, interval, runs, simplification=True, margin=worth.margin
    )
