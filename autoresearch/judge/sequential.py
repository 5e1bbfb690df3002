"""Screen, confirm, refresh: the frame of the judges that know the noise.

One run screens a candidate; only the promising get more, until they have faded or their evidence is
enough. The incumbent is measured again on fresh seeds, so that it stays ahead of the candidate in runs.
Invariant: nothing is kept on its screening run; at least two further runs stand behind every keep, and a run
of the incumbent that was made beside them: else a machine that has become faster passes for a gain. What
counts as enough evidence is the subclass's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autoresearch.judge.base import Baseline, Judge
from autoresearch.judge.complexity import Worth, simplified
from autoresearch.judge.history import scale, surprising
from autoresearch.judge.incumbent import Incumbent
from autoresearch.judge.levels import levels
from autoresearch.judge.noise import Comparison, Noise, Pool, Runs, compare
from autoresearch.judge.orders import Plan, TrialRequest
from autoresearch.judge.planning import Wish, confirmation
from autoresearch.judge.report import Evidence, Kept, Report
from autoresearch.judge.stats import shrink
from autoresearch.judge.steady import before, machine
from autoresearch.judge.stopping import hopeless
from autoresearch.types import Arm, Levels, Verdict, VerdictKind

LEAST_RUNS = 3
"""Screening run and two confirmations."""


class Sequential(Judge):
    """Shared by `default` and `strict`; see those for the arguments."""

    least = 2

    # States written by older versions lack these two.
    wish: Wish = ""
    beside: Sequence[int] = ()
    """Seeds of the incumbent's runs that were made beside the current candidate's."""

    def __init__(self, baseline: Baseline, tau: float, options: dict[str, float]) -> None:
        for key, least in (("refresh", 2), ("heartbeat", 2), ("limit", LEAST_RUNS)):
            if options[key] != int(options[key]) or options[key] < least:
                raise ValueError(f"{key} must be a whole number >= {least}, not {options[key]}")
        for key in ("price", "margin"):
            if not 0 <= options[key] < math.inf:
                raise ValueError(f"{key} must be >= 0, not {options[key]}")
        super().__init__(baseline, tau, options)
        self.incumbent = Incumbent(dict(self.baseline))
        self.runs: Runs = {}
        self.pool = Pool()
        self.keeps: list[Kept] = []
        self.ratio = 1.0
        self.looked = False
        self.turn = 0

    def _plan(self) -> list[Plan]:
        if self.runs:
            return confirmation(self.incumbent, self.runs, self.wish, self._seed)
        if self.incumbent.due(int(self.options["heartbeat"])):
            return [(Arm.INCUMBENT, self._seed())]
        seeds = list(self.incumbent.runs)
        missing = 0 if self.incumbent.failing else max(0, int(self.options["refresh"]) - len(seeds))
        trials: list[Plan] = [(Arm.INCUMBENT, self._seed()) for _ in range(missing)]
        self.turn += 1
        return [*trials, (Arm.SCREEN, seeds[self.turn % len(seeds)])]

    def _take(self, want: TrialRequest, score: float | None) -> Verdict | None:
        if want.arm == Arm.INCUMBENT:
            return self._remeasured(want.seed, score)
        self.incumbent.since += 1
        self.looked |= want.probe
        self.candidates += want.arm == Arm.SCREEN
        self.incumbent.survived += want.arm == Arm.SCREEN
        if score is None:
            self._close()
            return self._crash()
        self.runs[want.seed] = score
        return self._screened() if want.arm == Arm.SCREEN else self._decide()

    def _remeasured(self, seed: int, score: float | None) -> Verdict | None:
        """After a run of the incumbent: is the machine still the same, and what does it mean for a keep?"""
        drifts = self.incumbent.drifts
        self.pool = self.incumbent.add(seed, score, self.pool)
        if not self.runs:
            return None
        if self.incumbent.drifts > drifts:
            self._afresh()
            return None
        if score is not None:
            self.beside = [*self.beside, seed]
        return self._decide() if self.wish == "check" else None

    def _settled(self, noise: Noise, shift: float) -> bool:
        """Whether the machine is known to be the same, so that a keep may be one; if not, see to it."""
        found = machine(self.incumbent, self.beside, self.runs, noise, shift)
        if found == "unclear":
            self.wish = "check"
        elif found == "moved":
            self.pool = self.incumbent.renew(list(before(self.incumbent, self.beside)), self.pool)
            self._afresh()
        return found == "same"

    def _afresh(self) -> None:
        """Begin again with the candidate: nobody knows which of its runs are older than the change."""
        self.candidates -= 1
        self.confirmed -= 1
        self._orders.clear()
        self._forget()

    def _screened(self) -> Verdict | None:
        """After the first run: is the candidate worth a second?"""
        noise = self._noise()
        view = self._compare(noise, self.runs)
        worth = self._worth(noise)
        self.ratio = scale(self.keeps, noise.sigma) / view.error
        if why := hopeless(view, 1, math.inf, worth, self.complexity):
            return self._discard(view, why)
        self.confirmed += 1
        return None

    def _decide(self) -> Verdict | None:
        """After a further run: keep, discard, or go on."""
        k, noise = len(self.runs), self._noise()
        size, worth = scale(self.keeps, noise.sigma), self._worth(noise)
        view, alone = self._compare(noise, self.runs), self._compare(noise, self._unselected())
        self.wish = ""
        if k >= LEAST_RUNS:
            evidence = self._accept(view.plus(-worth.price), alone.plus(-worth.price), size)
            if evidence and not self.looked and surprising(view.gain, self.keeps, self.incumbent.mean):
                self.wish = "look"
                return None
            if evidence or worth.simplifies(alone):
                if not self._settled(noise, -worth.price if evidence else worth.margin):
                    return None
                return (
                    self._keep(view, evidence, size) if evidence else self._keep_simpler(alone, worth, size)
                )
        if not (why := hopeless(view, k, self.options["limit"], worth, self.complexity)):
            return None
        if worth.price and self._accept(view, alone, size):
            why = f"the gain does not pay for the size it adds ({self.complexity:+g})"
        return self._discard(view, why)

    @abstractmethod
    def _accept(self, view: Comparison, alone: Comparison, scale: float) -> Evidence | None:
        """Whether the evidence is enough to keep the current candidate.

        Args:
            view: All its runs against the incumbent.
            alone: Its confirmation runs only, which were not selected for being good.
            scale: Mean size of a real gain.
        """

    def _compare(self, noise: Noise, runs: Runs) -> Comparison:
        inc = self.incumbent
        return compare(noise, inc.runs, runs, tau=self.tau, correction=inc.correction)

    def _paired(self, runs: Runs) -> int:
        return len(runs.keys() & self.incumbent.runs.keys())

    def _unselected(self) -> Runs:
        return dict(list(self.runs.items())[1:])

    def _noise(self) -> Noise:
        """The noise by all that is known, the open runs included."""
        pool = self.pool.with_runs(self.incumbent.runs).with_runs(self.runs)
        level = next(iter(self.baseline.values()))
        return pool.with_pairs(self.runs, self.incumbent.runs).noise(level)

    def _worth(self, noise: Noise) -> Worth:
        return Worth.of(self.complexity, self.options["price"], self.options["margin"], noise.sigma)

    def _keep(self, view: Comparison, evidence: Evidence, scale: float) -> Verdict:
        k, paired = len(self.runs), self._paired(self.runs)
        gain, interval = shrink(view.gain, view.widened, scale, evidence.doubt)
        keep = Kept(view.gain, view.widened, gain, interval, k, evidence.doubt, suspicious=self.looked)
        bias = view.gain - gain
        self.incumbent.luck += bias * view.luck
        self.incumbent.luck_variance += self.tau**2 * (1 - view.luck)
        self._succeed(self.runs, bias * view.share * k, keep)
        reason = f"a gain of {gain:.3g} over {k} runs, {evidence.words}"
        if keep.suspicious:
            reason += "; larger than the history predicts, so it was looked at once more"
        return Verdict(VerdictKind.KEEP, gain, interval, evidence.value, k, reason, paired=paired)

    def _keep_simpler(self, alone: Comparison, worth: Worth, size: float) -> Verdict:
        k, paired = len(self.runs) - 1, self._paired(self._unselected())
        keep = simplified(alone, worth, size, k)
        self.incumbent.luck_variance += self.tau**2
        self._succeed(self._unselected(), (alone.gain - keep.effect) * alone.share * k, keep)
        reason = f"a simplification ({self.complexity:+g}), no worse within the margin over {k} runs"
        return Verdict(VerdictKind.KEEP, keep.effect, keep.interval, alone.z, k, reason, paired=paired)

    def _succeed(self, heir: Runs, correction: float, keep: Kept) -> None:
        """Let the candidate's runs become the incumbent's."""
        self.pool = self.pool.with_runs(self.incumbent.runs).with_pairs(self.runs, self.incumbent.runs)
        self.incumbent.succeed(heir, correction)
        self.keeps.append(keep)
        self._forget()

    def _discard(self, view: Comparison, why: str) -> Verdict:
        k, paired = len(self.runs), self._paired(self.runs)
        self._close()
        return Verdict(VerdictKind.DISCARD, view.gain, view.interval, view.z, k, why, paired=paired)

    def _close(self) -> None:
        self.pool = self.pool.with_runs(self.runs).with_pairs(self.runs, self.incumbent.runs)
        self._forget()

    def _forget(self) -> None:
        """No candidate is being looked at."""
        self.runs, self.looked, self.beside, self.wish = {}, False, (), ""

    def report(self) -> Report:
        """Estimates with the luck of selection taken out, and counts."""
        now = self._levels()
        return Report(
            judge=self.name,
            noise=now.noise,
            baseline=now.baseline,
            incumbent=now.incumbent,
            keeps=tuple(self.keeps),
            candidates=self.candidates,
            confirmed=self.confirmed,
            failed=self.failed,
            expected_false_keeps=sum(keep.doubt or 0.0 for keep in self.keeps),
            common_luck=self._noise().beta,
            drifts=self.incumbent.drifts,
            tau=self.tau,
        )

    def _levels(self) -> Levels:
        return levels(self._noise(), self.baseline, self.incumbent, self.keeps, self.candidates)

    def _dump(self) -> dict[str, Any]:
        state = super()._dump() | {"pool": asdict(self.pool), "incumbent": self.incumbent.to_dict()}
        return state | {"keeps": [asdict(keep) for keep in self.keeps]}

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self.pool = Pool(**state["pool"])
        self.incumbent = Incumbent.from_dict(state["incumbent"])
        self.keeps = [Kept(**(keep | {"interval": tuple(keep["interval"])})) for keep in state["keeps"]]
