"""What LLM calls cost, and the caps that no call may break.

Invariant: a call is made only if its worst case, on top of what is spent and of the worst case of all calls
in flight, still fits under every cap. What was spent before a restart is rebuilt from the costs in the
history, so a killed search does not get a second allowance.

Not covered: calls that time out may be billed by the provider without telling us; they count as calls only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from autoresearch.errors import UserError
from autoresearch.types import Cost, Proposal, ProposerError

CHARACTERS_PER_TOKEN = 3.0
"""For estimates; code and English need more characters a token, so this errs on the safe side."""

KINDS = ("input", "output", "cache_write", "cache_read")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens of one model, by kind of token."""

    input: float
    output: float
    cache_write: float
    cache_read: float

    def cost(self, usage: Mapping[str, Any], seconds: float) -> Cost:
        """Cost of one call.

        Args:
            usage: The `usage` object of an answer; a count that is absent or no number is 0.
            seconds: How long the call took.
        """
        fresh, output = _count(usage, "input_tokens"), _count(usage, "output_tokens")
        written = _count(usage, "cache_creation_input_tokens")
        read = _count(usage, "cache_read_input_tokens")
        total = (
            fresh * self.input + output * self.output + written * self.cache_write + read * self.cache_read
        )
        return Cost(1, fresh + written + read, output, total / 1e6, seconds)

    def worst(self, characters: int, output_tokens: int) -> Cost:
        """The most that a call can cost: every input token written to the cache, the answer at its limit."""
        tokens = estimate_tokens(characters)
        dollars = (tokens * max(self.input, self.cache_write) + output_tokens * self.output) / 1e6
        return Cost(1, tokens, output_tokens, dollars)


@dataclass(frozen=True)
class Caps:
    """Limits of a search; None is no limit. `tokens` counts input (cached or not) and output."""

    dollars: float | None
    tokens: int | None
    calls: int | None


@dataclass
class Payment:
    """A call that was allowed; whoever makes it writes down what it cost."""

    cost: Cost


class Purse:
    """Counts what is spent and says no in time. Several threads may call at once.

    Args:
        caps: The limits.
        spent: What was spent before, beyond what the history tells.
        prefix: Proposals whose `proposer` starts so were paid from this purse.
    """

    def __init__(self, caps: Caps, spent: Cost, prefix: str) -> None:
        self.caps = caps
        self._before = spent
        self._prefix = prefix
        self._history = Cost()
        self._here = Cost()
        self._pending = Cost()
        self._flying: list[Cost] = []
        self._lock = threading.RLock()
        self._ours: set[tuple[object, ...]] = set()

    @property
    def spent(self) -> Cost:
        """Everything so far: earlier processes and this one."""
        return self._before + self._history + self._here

    def read(self, paid: Sequence[Proposal]) -> None:
        """Take over what earlier processes spent; proposals made here are counted already.

        Args:
            paid: Every proposal of the search, tried or not.
        """
        with self._lock:
            theirs = [p for p in paid if p.proposer.startswith(self._prefix) and _key(p) not in self._ours]
            self._history = sum((p.cost for p in theirs), Cost())

    @contextmanager
    def allow(self, worst: Cost) -> Iterator[Payment]:
        """Let a call pass, and count it when it is over. Its worst case is set aside while it lasts.

        Raises:
            ProposerError: If its worst case could break a cap; asking again cannot help.
        """
        payment = Payment(Cost(calls=1))
        with self._lock:
            self._check(worst)
            self._flying.append(worst)
        try:
            yield payment
        finally:
            with self._lock:
                self._flying.remove(worst)
                self._here += payment.cost
                self._pending += payment.cost

    def _check(self, worst: Cost) -> None:
        after = sum(self._flying, self.spent + worst)
        if self.caps.dollars is not None and after.dollars > self.caps.dollars:
            raise _capped(
                "max_dollars", f"${self.spent.dollars:.2f}", f"${worst.dollars:.2f}", self.caps.dollars
            )
        tokens = self.spent.input_tokens + self.spent.output_tokens
        more = worst.input_tokens + worst.output_tokens
        if self.caps.tokens is not None and after.input_tokens + after.output_tokens > self.caps.tokens:
            raise _capped("max_tokens", f"{tokens:,} tokens", f"{more:,} tokens", self.caps.tokens)
        if self.caps.calls is not None and after.calls > self.caps.calls:
            raise _capped("max_calls", f"{self.spent.calls} calls", "1 call", self.caps.calls)

    def bill(self) -> Cost:
        """What was paid since the last bill: the cost of the proposal that all those calls led to."""
        with self._lock:
            cost, self._pending = self._pending, Cost()
        return cost

    def ours(self, proposal: Proposal) -> None:
        """Remember a proposal made here, so that it is not counted again when it appears in the history."""
        with self._lock:
            self._ours.add(_key(proposal))


def price_table(
    prices: Mapping[str, Mapping[str, float]], models: Sequence[str], free: bool = False
) -> dict[str, Price]:
    """Prices of the chosen models.

    Args:
        prices: Model -> dollars per million tokens of each kind in `KINDS`.
        models: Those that will be asked.
        free: Whether a model without a price costs nothing, and `input` is the price of any input whose own
            price is not given: so it is with servers that do not charge for writing to their cache.

    Raises:
        UserError: If a model has no price, or a price is incomplete or negative.
    """
    table = {}
    for model in models:
        price = prices.get(model)
        if free and price is None:
            price = dict.fromkeys(KINDS, 0.0)
        if free and price is not None and "input" in price:
            price = {"cache_write": price["input"], "cache_read": price["input"], **price}
        if price is None:
            known = ", ".join(sorted(prices)) or "none"
            raise UserError(
                f"no price is known for the model {model!r}", f"add it to proposer.prices (known: {known})"
            )
        if set(price) != set(KINDS) or any(value < 0 for value in price.values()):
            raise UserError(
                f"the price of {model!r} is not complete",
                f"give {', '.join(KINDS)} in dollars per million tokens, none negative",
            )
        table[model] = Price(**{kind: float(price[kind]) for kind in KINDS})
    return table


def estimate_tokens(characters: int) -> int:
    """A cautious guess of how many tokens a text has."""
    return int(characters / CHARACTERS_PER_TOKEN) + 1


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return max(value, 0) if isinstance(value, int) else 0


def _key(proposal: Proposal) -> tuple[object, ...]:
    # Without the edits: those of a proposal made ahead may have been rebased since.
    return proposal.hypothesis, proposal.cost


def _capped(name: str, spent: str, worst: str, cap: float) -> ProposerError:
    return ProposerError(
        f"the next call could break proposer.{name}={cap:g}: {spent} spent, up to {worst} more for the call; "
        "raise the cap to go on"
    )
