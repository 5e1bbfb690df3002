"""The control arm: every knob uniformly at random in its space, whatever happened before.

Not covered: learning anything. What another proposer gains over this one is what it is worth.
"""

from __future__ import annotations

from random import Random

from pydantic import validate_call

from autoresearch.edit.knobs import Choice
from autoresearch.errors import Refused
from autoresearch.propose.base import BaseProposer, Check, Context, ProposerError, up_to
from autoresearch.propose.tune.space import proposal, tunables
from autoresearch.types import Proposal

TRIES = 100


class RandomProposer(BaseProposer):
    """Draws each knob anew.

    Args:
        column: Which argument of `at(cpu, gpu)` is set: 0 for CPU, 1 for GPU.
    """

    name = "random"
    instant = True

    @validate_call
    def __init__(self, *, column: int) -> None:
        self._column = column
        self._calls = 0

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        return up_to(n, lambda: self._next(context, check))

    def _next(self, context: Context, check: Check) -> Proposal:
        knobs = tunables(context, self._column)
        for _ in range(TRIES):
            self._calls += 1
            draw = Random(f"{context.seed} {len(context.history)} {self._calls}")
            point = {
                name: draw.choice(knob.space.options)
                if isinstance(knob.space, Choice)
                else knob.space.value(draw.random())
                for name, knob in knobs.items()
            }
            found = proposal(context, knobs, point, self._column, self.name)
            try:
                check(found)
            except Refused:
                continue
            return found
        raise ProposerError(f"{TRIES} random points in a row were refused; the space may be used up")
