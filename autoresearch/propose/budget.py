"""Counts what calls of language models cost, and enforces the limits on spending.

Invariants: a call is made only if its worst case, plus the money spent and the worst case of all calls under
way, stays within every limit. After a restart, the money spent is rebuilt from the costs in the history and
from the record of calls, so a killed search does not get a second budget. Each model pays for itself: the
cost of its calls without a proposal is added to its next proposal.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from autoresearch.errors import UserError
from autoresearch.propose.base import ProposerError, SearchServices
from autoresearch.types import Cost, Proposal

BYTES_PER_TOKEN = 3.0
"""For estimates. Code and English have more bytes a token, so the estimate is cautious; in scripts with three
bytes a letter, such as Chinese, a token holds about one letter."""

SHORT_WRITE = 1.25
"""What it costs to write to a cache of five minutes, as a multiple of the price of input."""

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
        names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
        fresh, written, read, output = (count(usage.get(name)) for name in names)
        split = usage.get("cache_creation")  # what is kept for five minutes is cheaper than for an hour
        short = count(split.get("ephemeral_5m_input_tokens")) if isinstance(split, Mapping) else 0
        short = min(short, written)
        total = fresh * self.input + output * self.output + read * self.cache_read
        total += (written - short) * self.cache_write + short * min(
            SHORT_WRITE * self.input, self.cache_write
        )
        return Cost(1, fresh + written + read, output, total / 1e6, seconds)

    def worst(self, size: int, output_tokens: int) -> Cost:
        """The worst case of a call: all bytes are written to the cache, and the answer has full length."""
        tokens = estimate_tokens(size)
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
    """A call that was allowed; the caller sets its cost."""

    cost: Cost


class Capped(ProposerError):
    """A call could exceed a limit; a cheaper one may still fit."""

    def __init__(self, name: str, cap: float, spent: str, worst: str) -> None:
        super().__init__(
            f"the next call could break proposer.{name}={cap:g}: {spent} spent, up to {worst} more for the "
            "call; raise the cap to go on"
        )


class Budget:
    """The limits and the spending of a proposer, by model. Several threads may use it at once.

    Args:
        name: Name of the proposer; it pays for every proposal whose `proposer` begins with it.
        caps: The limits.
        unbilled: Cost of earlier calls without a proposal, by proposer and model.
    """

    def __init__(self, name: str, caps: Caps, unbilled: Mapping[str, Cost] | None = None) -> None:
        self._name = name
        self._caps = caps
        self._unbilled = dict(unbilled or {})
        self._billed = Cost()
        self._billed_before = Cost()
        self._in_flight: list[Cost] = []
        self._conversations: set[str] = set()
        self._lock = threading.RLock()

    @property
    def spent(self) -> Cost:
        """All spending so far, of earlier processes and of this one."""
        with self._lock:
            return sum(self._unbilled.values(), self._billed + self._billed_before)

    @property
    def unbilled(self) -> dict[str, Cost]:
        """Cost of calls that led to no proposal so far, by proposer and model."""
        with self._lock:
            return dict(self._unbilled)

    def read(self, paid: Sequence[Proposal]) -> None:
        """Count the spending of earlier processes; proposals of this process are already counted.

        Args:
            paid: Every proposal of the search, tried or not.
        """
        with self._lock:
            theirs = (p for p in paid if p.proposer.startswith(self._name))
            before = (p.cost for p in theirs if p.conversation not in self._conversations)
            self._billed_before = sum(before, Cost())

    @contextmanager
    def allow(self, worst: Cost, who: str) -> Iterator[Payment]:
        """Allow one call, and count it afterwards. Its worst case is reserved during the call.

        Args:
            worst: Its worst case.
            who: The proposer and model that is asked.

        Raises:
            Capped: If its worst case could exceed a limit; another try cannot help.
        """
        payment = Payment(Cost(calls=1))
        with self._lock:
            self._check(worst)
            self._in_flight.append(worst)
        try:
            yield payment
        finally:
            with self._lock:
                self._in_flight.remove(worst)
                self._unbilled[who] = self._unbilled.get(who, Cost()) + payment.cost

    def _check(self, worst: Cost) -> None:
        caps, spent = self._caps, self.spent
        after = sum(self._in_flight, spent + worst)
        tokens, more = spent.input_tokens + spent.output_tokens, worst.input_tokens + worst.output_tokens
        if caps.dollars is not None and after.dollars > caps.dollars:
            raise Capped("max_dollars", caps.dollars, f"${spent.dollars:.2f}", f"${worst.dollars:.2f}")
        if caps.tokens is not None and after.input_tokens + after.output_tokens > caps.tokens:
            raise Capped("max_tokens", caps.tokens, f"{tokens:,} tokens", f"{more:,} tokens")
        if caps.calls is not None and after.calls > caps.calls:
            raise Capped("max_calls", caps.calls, f"{spent.calls} calls", "1 call")

    def bill(self, proposal: Proposal, conversation: str) -> Proposal:
        """The proposal, with all costs of its author since the author's last proposal.

        It is not counted again when it appears in the history.

        Args:
            proposal: A proposal of this process.
            conversation: Name under which its calls are stored.
        """
        with self._lock:
            self._conversations.add(conversation)
            cost = self._unbilled.pop(proposal.proposer, Cost())
            self._billed += cost
        return replace(proposal, cost=cost, conversation=conversation)


def unbilled_before(name: str, models: Sequence[str], services: SearchServices | None) -> dict[str, Cost]:
    """Cost of calls of earlier processes without a proposal, by proposer and model.

    Args:
        name: Name of the proposer; it also pays for models that it no longer asks.
        models: The models that it asks now.
        services: Services of the search; None if nothing was spent before.
    """
    if services is None:
        return {}
    found = {f"{name}:{model}": services.unbilled(f"{name}:{model}") for model in models}
    found[name] = services.unbilled(name).beyond(sum(found.values(), Cost()))
    return {who: cost for who, cost in found.items() if cost != Cost()}


def price_table(
    prices: Mapping[str, Mapping[str, float]], models: Sequence[str], free: bool = False
) -> dict[str, Price]:
    """Prices of the chosen models.

    Args:
        prices: Model -> dollars per million tokens of each kind in `KINDS`.
        models: The models to ask.
        free: Whether a model without a price costs nothing, and `input` is the price of any kind of input
            without its own price, as for servers that do not charge for writing to their cache.

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
            name = re.sub(r"[^\w./-]", r"\\\g<0>", model)
            form = f"{{{name}: {{input: 2, output: 10, cache_write: 4, cache_read: 0.2}}}}"
            raise UserError(
                f"no price is known for the model {model!r}",
                f"give it, in dollars per million tokens: 'proposer.prices={form}'",
            )
        if set(price) != set(KINDS) or any(value < 0 for value in price.values()):
            raise UserError(
                f"the price of {model!r} is not complete",
                f"give {', '.join(KINDS)} in dollars per million tokens, none negative",
            )
        table[model] = Price(**{kind: float(price[kind]) for kind in KINDS})
    return table


def estimate_tokens(size: int) -> int:
    """A cautious guess of how many tokens a text of so many bytes has."""
    return int(size / BYTES_PER_TOKEN) + 1


def size_of(text: str) -> int:
    """Bytes of any text in UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))


def count(value: object) -> int:
    """A number of tokens as a server reports it; 0 for anything else."""
    return max(value, 0) if isinstance(value, int) and not isinstance(value, bool) else 0
