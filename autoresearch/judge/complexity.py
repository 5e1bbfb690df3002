"""What a change of size is worth, in the noise's own unit.

An addition must bring `price` times the noise per line; a removal may cost that much, but never more than
`margin`. Invariant: no unit but the noise, so an exchange rate means the same in every setting.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoresearch.judge.noise import Comparison

SURE = 1.645
"""z of a one-sided 5% test that a simplification is worse than the margin."""


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
