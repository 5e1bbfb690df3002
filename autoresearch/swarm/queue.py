"""Which contribution is verified next, and how many one may send: fair to newcomers, dear to waste. Pure.

A contributor is known if verdicts confirmed claims of its, and is then served by record and claim. Everybody
else shares a fixed part of the verifier's runs, however many identities that are: a thousand new keys gain no
more than one. What a contributor claims orders the queue and does nothing else. Whoever waits from many
addresses is not told apart from many people; the fixed part bounds what that costs.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoresearch.config import Serve as Limits
from autoresearch.types import Metric

PRIOR = (1.0, 3.0)
"""Confirmed and refuted claims that a newcomer is given in advance: the Beta distribution of its honesty."""

KNOWN = 1 / 3
"""Least trust of a known contributor: more than a newcomer has. Honest claims are confirmed more often."""

RECENT = 20
"""Verdicts that make up the record of a contributor, the latest: who was honest once must stay so."""

WINDOW = 50
"""Verified contributions over which the verifier's runs are shared out. Nobody saves up turns."""

MOST_CLAIMED = 5.0
"""Largest claim that counts, in standard deviations of the noise: a lie gains no more than this."""

DAY = 86400.0


@dataclass(frozen=True)
class Record:
    """What came of the latest claims of a contributor.

    Attributes:
        confirmed: Claims that the verifier kept, or found to be at least as good as the tip beyond doubt.
        refuted: Claims that it did not confirm.
    """

    confirmed: int = 0
    refuted: int = 0

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> Record:
        """The record after these outcomes, the oldest first."""
        latest = outcomes[-RECENT:]
        return cls(sum(latest), len(latest) - sum(latest))

    @property
    def trust(self) -> float:
        """Posterior mean of the probability that a claim of this contributor is confirmed."""
        a, b = PRIOR
        return (a + self.confirmed) / (a + b + self.confirmed + self.refuted)

    @property
    def known(self) -> bool:
        """Whether verdicts have shown that its claims deserve a run more than a newcomer's."""
        return self.confirmed > 0 and self.trust >= KNOWN


@dataclass(frozen=True)
class Waiting:
    """A contribution that waits for the verifier.

    Attributes:
        number: In the order of arrival.
        who: Fingerprint of its contributor's key.
        group: Network that it came from; see `network`.
        claim: Claimed gain, in standard deviations of the noise; 0 without evidence.
    """

    number: int
    who: str
    group: str
    claim: float = 0.0


@dataclass(frozen=True)
class Spent:
    """What verifying one contribution took.

    Attributes:
        who: Its contributor.
        group: The network that it came from.
        known: Whether the contributor was known when its turn came.
        runs: Trainings of the candidate.
    """

    who: str
    group: str
    known: bool
    runs: float = 1.0


@dataclass(frozen=True)
class Turns:
    """What the verifier has done lately, and for whom.

    Attributes:
        spent: The latest verified contributions, the oldest first.
        records: Contributor -> its record; who is absent is new.
    """

    spent: Sequence[Spent] = ()
    records: Mapping[str, Record] = field(default_factory=dict)

    def record(self, who: str) -> Record:
        """The record of a contributor."""
        return self.records.get(who, Record())


def choose(waiting: Sequence[Waiting], turns: Turns, newcomers: float, own: bool = False) -> Waiting | None:
    """The contribution to verify next; None if none waits, or the verifier does better without.

    Args:
        waiting: All that wait.
        turns: What was done lately.
        newcomers: Share of the runs that contributors without a good record have together while known ones
            wait.
        own: Whether the verifier has proposals of its own to measure. Then contributors without a record
            have never more than their share; its own runs count as those of somebody known.
    """
    known = [one for one in waiting if turns.record(one.who).known]
    others = [one for one in waiting if not turns.record(one.who).known]
    lately = turns.spent[-WINDOW:]
    total = sum(one.runs for one in lately)
    theirs = sum(one.runs for one in lately if not one.known)
    if others and (theirs < newcomers * total or not (known or (own and lately))):
        return _fairest(others, turns)
    return _best_known(known, turns) if known else None


def _best_known(known: Sequence[Waiting], turns: Turns) -> Waiting:
    """By what a run is expected to find; who had many turns lately waits for those who had few."""
    had: Counter[str] = Counter()
    for one in turns.spent[-WINDOW:]:
        had[one.who] += 1

    def worth(one: Waiting) -> float:
        claim = 1.0 + (min(one.claim, MOST_CLAIMED) if one.claim > 0 else 0.0)
        return turns.record(one.who).trust * claim / (1 + had[one.who])

    return max(known, key=lambda one: (worth(one), -one.number))


def _fairest(others: Sequence[Waiting], turns: Turns) -> Waiting:
    """The network that had least goes first, then the contributor, then who arrived first.

    Claims hardly count: who has no record says what it likes. Those without any claim come last.
    """
    networks: dict[str, float] = {}
    people: dict[str, float] = {}
    for one in turns.spent[-WINDOW:]:
        networks[one.group] = networks.get(one.group, 0.0) + one.runs
        people[one.who] = people.get(one.who, 0.0) + one.runs

    def rank(one: Waiting) -> tuple[float, ...]:
        worse = turns.record(one.who).refuted
        return networks.get(one.group, 0.0), worse, people.get(one.who, 0.0), not one.claim > 0, one.number

    return min(others, key=rank)


@dataclass(frozen=True)
class Sent:
    """How much somebody has sent.

    Attributes:
        waiting: Contributions that wait.
        today: Contributions of the last day, whatever came of them.
    """

    waiting: int = 0
    today: int = 0


def over_quota(limits: Limits, record: Record, theirs: Sent, network: Sent, everybody: int) -> str:
    """Why one more contribution is not taken now, in words; empty if it is taken.

    Args:
        limits: The limits of the server.
        record: Of the contributor.
        theirs: What the contributor has sent.
        network: What its network has sent.
        everybody: How many contributions wait.
    """
    waiting = limits.waiting * (4 if record.known else 1)
    if theirs.waiting >= waiting:
        return f"{theirs.waiting} of your contributions wait already, and no more than {waiting} may"
    if theirs.today >= (most := limits.daily * (4 if record.known else 1)):
        return f"you have sent {theirs.today} contributions within a day, and no more than {most} are taken"
    if network.waiting >= 4 * limits.waiting:
        return f"{network.waiting} contributions from your network wait already"
    if network.today >= 4 * limits.daily:
        return f"{network.today} contributions came from your network within a day"
    if everybody >= limits.queue and not record.known:
        return f"{everybody} contributions wait, and only contributors with a record may add to them now"
    return ""


def network(address: str) -> str:
    """The network of an address, as far as one person is likely to have it: /24 of IPv4, /48 of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    size = 24 if found.version == 4 else 48
    return str(ipaddress.ip_network(f"{found}/{size}", strict=False))


def claimed(pairs: Sequence[tuple[int, float, float]], metric: Metric, noise: float | None) -> float:
    """The gain that a contributor claims, in standard deviations of the noise; few runs count for less.

    Args:
        pairs: Seed, score of the parent, score of the change.
        metric: What was measured.
        noise: Standard deviation of a score from seed to seed; None or 0 if it is not known.
    """
    gains = [metric.gain(before, after) for _, before, after in pairs]
    gains = [gain for gain in gains if math.isfinite(gain)]
    if not gains:
        return 0.0
    mean = sum(gain / len(gains) for gain in gains)
    scaled = mean / noise if noise else math.copysign(MOST_CLAIMED, mean)
    return min(scaled * len(gains) / (len(gains) + 2), MOST_CLAIMED)
