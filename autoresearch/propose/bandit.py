"""Asks one of several proposers at a time: the one that gains most for what it costs, as the journal tells.

Each member is an arm, and so is each kind of proposal that a member which reads requests can be asked for: a
new idea, a follow-up of a kept change, the rescue of a near miss, a combination, tuning, a simplification.
The value of an arm is its mean gain by its mean cost: the gain of an experiment is the confirmed one (0 if it
was not kept), its cost the dollars of its proposal and the time of its trials at a price for an hour of a
device. Old outcomes count less, since what pays changes as a search matures (discounted as in Garivier &
Moulines, 2011). Keeps are rare, so a few experiments say little: both means are drawn to those of all arms.
And an arm gains less the longer it is asked, so the best one does not get all: each is drawn in proportion to
the square of its value. Thompson sampling in its place went with whichever was kept first
(`benchmarks/portfolio.py` measures the rule).

Two arms are controls, which keep a share of their own: plain tuning, if it is a member, and the kind
"independent", for which a model is not told what was tried. The report compares the rest with them.

Invariant: the choice depends only on the history and the seed, so that a restarted search chooses the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Annotated, Any

from pydantic import ConfigDict, Field, InstanceOf, validate_call

from autoresearch.errors import UserError
from autoresearch.propose.base import Check, Context, Proposer, ProposerError, SearchServices, asked
from autoresearch.propose.llm.history import is_near_miss
from autoresearch.types import Cost, Experiment, Proposal

INDEPENDENT = "independent"
"""The kind of proposal for which a model is not told the history."""

KINDS = {
    "new": "a new idea: something that no experiment has tried.",
    "follow-up": "to follow up a kept change: ask how much further it goes, or what it makes possible now.",
    "rescue": "to rescue a near miss: find what kept it from being clear, and mend that.",
    "combination": "to combine near misses that solve different problems; put together what still applies.",
    "tuning": "to tune numbers: change the few whose best values you expect to have moved, and say why.",
    "simplification": "to simplify: take out what the script does not need, and lose nothing.",
    INDEPENDENT: "whatever you expect most of. This time you are not told what was tried before.",
}
"""Kind of proposal -> what is asked for."""

GAIN_WEIGHT, COST_WEIGHT = 4.0, 1.0
"""Experiments for which the mean gain and the mean cost of all arms stand in those of each."""

POWER = 2.0
"""An arm is drawn in proportion to this power of its value."""

PAUSE_SECONDS = 300.0
"""Seconds in which a member is not asked after a failure that may pass."""

SPARE = 1e-9
"""Keeps costs above 0."""


@dataclass(frozen=True)
class Outcome:
    """What one experiment gave and cost.

    Attributes:
        gain: Confirmed gain; 0 unless it was kept.
        cost: In dollars, device time included.
        age: Experiments since.
    """

    gain: float
    cost: float
    age: int


class BanditProposer(Proposer):
    """Asks one of several proposers.

    Args:
        members: Names of proposers, with their shipped settings, or mappings of `name`, an optional `label`,
            and settings of it. One that cannot start, because there is no key, is left out.
        floor: Least share of the experiments that each member gets.
        control: Share of a model's proposals that are made without history.
        discount: Factor on the weight of an outcome for each experiment since.
        device_hour: What an hour of a device is worth, in dollars.
        column: See `create_proposer`.
        services: What the search lends.

    Raises:
        UserError: If no member can start, or two have the same label.
    """

    name = "portfolio"
    reads_ideas = True

    @validate_call(config=ConfigDict(arbitrary_types_allowed=True))
    def __init__(
        self,
        *,
        members: Annotated[list[str | dict[str, Any]], Field(min_length=1)],
        floor: Annotated[float, Field(ge=0, le=0.5)],
        control: Annotated[float, Field(ge=0, le=0.5)],
        discount: Annotated[float, Field(gt=0, le=1)],
        device_hour: Annotated[float, Field(ge=0)],
        column: int,
        services: InstanceOf[SearchServices] | None = None,
    ) -> None:
        self._floor, self._control, self._discount, self._price = floor, control, discount, device_hour
        self._members: dict[str, Proposer] = {}
        self._pauses: dict[str, tuple[float, ProposerError]] = {}
        missing = []
        for member in members:
            options = {"name": member} if isinstance(member, str) else dict(member)
            try:
                label, made = _member(options, column, services)
            except UserError as error:
                if "API key" not in str(error):
                    raise
                missing.append(str(error))
                continue
            if label in self._members:
                raise UserError(f"proposer.members: two are called {label}", "give one a label of its own")
            self._members[label] = made
        if not self._members:
            raise UserError("no member of the portfolio can start: " + "; ".join(missing))
        self.instant = all(member.instant for member in self._members.values())
        self.questions = max(member.questions for member in self._members.values())
        self._turns = {k: threading.BoundedSemaphore(m.questions) for k, m in self._members.items()}

    @property
    def unbilled(self) -> Mapping[str, Cost]:
        """See `autoresearch.propose.base.Proposer`."""
        found: dict[str, Cost] = {}
        for member in self._members.values():
            found |= member.unbilled
        return found

    def tell(self, experiment: Experiment) -> None:
        """Pass the verdict on to all members."""
        for member in self._members.values():
            member.tell(experiment)

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """Proposals of one member; of the next best one if that has none."""
        known = len(context.history) + len(context.under_way) + context.beside
        draw = Random(f"{context.seed} {known} portfolio")
        failed: list[ProposerError] = []
        for label in self._ranked(context, draw):
            if (why := self._pauses.get(label)) and time.monotonic() < why[0]:
                failed.append(why[1])
                continue
            member, kind, told = self._members[label], "", context
            if member.reads_ideas:
                kind = self._kind(context, label, draw)
                told = replace(context, request=KINDS[kind], without_history=kind == INDEPENDENT)
            try:
                with self._turns[label]:
                    found = asked(member, told, check, n)
            except ProposerError as error:
                failed.append(error)
                if error.retry:  # each attempt may take minutes without any trial
                    self._pauses[label] = time.monotonic() + PAUSE_SECONDS, error
            else:
                return [
                    replace(p, proposer=_labelled(p.proposer, member.name, label), kind=kind) for p in found
                ]
        raise ProposerError(
            "; ".join(str(error) for error in failed),
            retry=any(error.retry for error in failed),
            exhausted=all(error.exhausted for error in failed),
        )

    def _ranked(self, context: Context, draw: Random) -> list[str]:
        """The members in the order in which they are asked."""
        labels = list(self._members)
        arms = {label: outcomes(context.history, self._price, author=label) for label in labels}
        order = self._drawn(arms, draw)
        if draw.random() < self._floor * len(labels):
            first = draw.choice(labels)
            order = [first, *(label for label in order if label != first)]
        return order

    def _kind(self, context: Context, label: str, draw: Random) -> str:
        """What a member is asked for."""
        if draw.random() < self._control:
            return INDEPENDENT
        wanted = [kind for kind in possible_kinds(context.history) if kind != INDEPENDENT]
        arms = {k: outcomes(context.history, self._price, author=label, kind=k) for k in wanted}
        return self._drawn(arms, draw)[0]

    def _drawn(self, arms: Mapping[str, Sequence[Outcome]], draw: Random) -> list[str]:
        """Arms, drawn without replacement, each in proportion to a power of its value."""
        every = [outcome for found in arms.values() for outcome in found]
        gain = sum(outcome.gain for outcome in every) / max(len(every), 1) or 1.0
        cost = sum(outcome.cost for outcome in every) / max(len(every), 1)
        waits = {}
        for name, seen in arms.items():
            weights = [self._discount**outcome.age for outcome in seen]
            known = sum(weights)
            won = sum(w * o.gain for w, o in zip(weights, seen, strict=True)) + GAIN_WEIGHT * gain
            spent = sum(w * o.cost for w, o in zip(weights, seen, strict=True)) + COST_WEIGHT * cost
            value = won / (known + GAIN_WEIGHT) / max(spent / (known + COST_WEIGHT), SPARE)
            # The first of several exponential waits is each one's with a chance in proportion to its rate.
            waits[name] = draw.expovariate(1.0) / value**POWER
        return sorted(waits, key=lambda name: waits[name])


def outcomes(
    history: Sequence[Experiment], device_hour: float, author: str = "", kind: str | None = None
) -> list[Outcome]:
    """What the experiments of an arm gave and cost; proposals that were given up count as without gain.

    Args:
        history: Judged experiments, oldest first.
        device_hour: What an hour of a device is worth, in dollars.
        author: Label of the member; empty: any.
        kind: Kind of proposal; None: any.
    """

    def ours(proposal: Proposal | None) -> bool:
        if proposal is None or (kind is not None and proposal.kind != kind):
            return False
        return not author or proposal.proposer == author or proposal.proposer.startswith(f"{author}:")

    found = []
    for age, experiment in enumerate(reversed(history)):
        if ours(experiment.proposal) and experiment.proposal and experiment.verdict:
            found.append(Outcome(max(experiment.gain, 0.0), experiment.dollars(device_hour), age))
        found += [Outcome(0.0, p.cost.dollars, age) for p in experiment.dropped if ours(p)]
    return found


def possible_kinds(history: Sequence[Experiment]) -> list[str]:
    """The kinds of proposal that a history allows."""
    near = sum(map(is_near_miss, history))
    impossible = {
        "follow-up": not any(e.kept for e in history),
        "rescue": near < 1,
        "combination": near < 2,
    }
    return [kind for kind in KINDS if not impossible.get(kind)]


def _member(options: dict[str, Any], column: int, services: SearchServices | None) -> tuple[str, Proposer]:
    """A member and its label."""
    from autoresearch.propose import member, settings

    name = str(options.pop("name", ""))
    label = str(options.pop("label", name))
    if name == BanditProposer.name or not label.startswith(name):
        raise UserError(f"proposer.members: {label!r} is no label", f"let it begin with {name!r}")
    return label, member(name, column, services, {**settings(name), **options})


def _labelled(proposer: str, name: str, label: str) -> str:
    """The author of a proposal under the label of the member."""
    return label + proposer.removeprefix(name) if proposer.startswith(name) else proposer
