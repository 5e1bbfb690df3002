"""Screen, confirm, refresh: the frame of the judges that know the noise.

One run screens a candidate; only the promising get more, until they have faded or their evidence is
enough. The incumbent is measured again on fresh seeds, so that it stays ahead of the candidate in runs.
Invariant: nothing is kept on its screening run; at least two further runs stand behind every keep. What
counts as enough evidence is the subclass's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

from autoresearch.judge.base import Baseline, Judge
from autoresearch.judge.complexity import Worth
from autoresearch.judge.incumbent import Incumbent
from autoresearch.judge.noise import Comparison, Noise, Pool, Runs, compare
from autoresearch.judge.orders import Arm, Want
from autoresearch.judge.report import Estimate, Kept, Report
from autoresearch.judge.stats import Z95, shrink, t_from_z
from autoresearch.types import Verdict, VerdictKind

BARS = (0.9, 1.1, 1.27, 1.4, 1.5, 1.6)
"""Least z, screening run included, to go on after 1, 2, ... runs. Like the optimal stopping bounds for a
known prior, they ask for a roughly constant worthwhile effect rather than for a constant z."""

BAR_STEP = 0.08
"""What each run after those adds to the bar."""

LEAST_RUNS = 3
"""Screening run and two confirmations."""

LOOKAHEAD = 2
"""Candidate runs planned at a time, so that free devices have something to do."""

SURPRISE = 4.0
"""A gain beyond (ln(keeps + 1) + this) times the mean gain is looked at once more: about 2% of the
largest among as many exponential gains get there."""

SURPRISE_SHARE = 0.25
"""So is one beyond this share of the score itself."""

PRIOR_SCALE, PRIOR_WEIGHT = 1.0, 2.0
"""Mean gain expected before anything is kept, in noise units, and the keeps this counts for."""


@dataclass(frozen=True)
class Evidence:
    """What an accepted candidate has to show: the statistic, the doubt that is left, and words for it."""

    value: float
    doubt: float
    words: str


class Sequential(Judge):
    """Shared by `default` and `strict`; see those for the arguments."""

    least = 2

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

    def _plan(self) -> list[tuple[Arm, int]]:
        if self.runs:
            return self._plan_confirmation()
        if self.incumbent.due(int(self.options["heartbeat"])):
            return [("incumbent", self._seed())]
        seeds = list(self.incumbent.runs)
        missing = 0 if self.incumbent.failing else max(0, int(self.options["refresh"]) - len(seeds))
        trials: list[tuple[Arm, int]] = [("incumbent", self._seed()) for _ in range(missing)]
        self.turn += 1
        return [*trials, ("screen", seeds[self.turn % len(seeds)])]

    def _plan_confirmation(self) -> list[tuple[Arm, int]]:
        """Candidate runs on seeds of the incumbent, and runs of the incumbent to stay ahead of them."""
        trials: list[tuple[Arm, int]] = []
        free = [seed for seed in self.incumbent.runs if seed not in self.runs]
        n = len(self.incumbent.runs)
        for k in range(len(self.runs), len(self.runs) + LOOKAHEAD):
            if n < k + 1 and not self.incumbent.failing:
                free.append(self._seed())
                trials.append(("incumbent", free[-1]))
                n += 1
            trials.append(("confirm", free.pop() if free else self._seed()))
        return trials

    def _take(self, want: Want, score: float | None) -> Verdict | None:
        if want.arm == "incumbent":
            checked = not self.runs and self.incumbent.due(int(self.options["heartbeat"]))
            self.pool = self.incumbent.add(want.seed, score, self.pool, checked)
            return None
        self.incumbent.since += 1
        self.candidates += want.arm == "screen"
        self.incumbent.survived += want.arm == "screen"
        if score is None:
            self._close()
            return self._crash()
        self.runs[want.seed] = score
        return self._screened() if want.arm == "screen" else self._decide()

    def _screened(self) -> Verdict | None:
        """After the first run: is the candidate worth a second?"""
        noise = self._noise()
        view = self._compare(noise, self.runs)
        worth = self._worth(noise)
        self.ratio = self._scale(noise) / view.error
        z = view.plus(worth.bonus - worth.price).z
        if z < BARS[0]:
            return self._discard(view, f"the first run is not promising (z = {z:.2f}, {BARS[0]} needed)")
        self.confirmed += 1
        return None

    def _decide(self) -> Verdict | None:
        """After a further run: keep, discard, or go on."""
        k, noise = len(self.runs), self._noise()
        scale, worth = self._scale(noise), self._worth(noise)
        view, alone = self._compare(noise, self.runs), self._compare(noise, self._unselected())
        if k >= LEAST_RUNS:
            evidence = self._accept(view.plus(-worth.price), alone.plus(-worth.price), scale)
            if evidence and (self.looked or not self._suspicious(view.gain)):
                return self._keep(view, evidence, scale)
            if evidence:
                self.looked = True
                return None
            if worth.simplifies(alone):
                return self._keep_simpler(alone)
        z = view.plus(worth.margin - worth.price).z
        if z < bar(k):
            why = f"the gain faded over {k} runs (z = {z:.2f}, {bar(k):.2f} needed)"
        elif k >= self.options["limit"]:
            why = f"still unclear after {k} runs (z = {z:.2f})"
        else:
            return None
        if worth.price and self._accept(view, alone, scale):
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

    def _unselected(self) -> Runs:
        return dict(list(self.runs.items())[1:])

    def _noise(self) -> Noise:
        """The noise by all that is known, the open runs included."""
        pool = self.pool.with_runs(self.incumbent.runs).with_runs(self.runs)
        level = next(iter(self.baseline.values()))
        return pool.with_pairs(self.runs, self.incumbent.runs).noise(level)

    def _worth(self, noise: Noise) -> Worth:
        return Worth.of(self.complexity, self.options["price"], self.options["margin"], noise.sigma)

    def _gains(self) -> list[float]:
        return [keep.shrunk or 0.0 for keep in self.keeps if not keep.simplification]

    def _scale(self, noise: Noise) -> float:
        """Mean size of a real gain, learned from the keeps (empirical Bayes)."""
        gains = self._gains()
        return (PRIOR_SCALE * PRIOR_WEIGHT * noise.sigma + sum(gains)) / (PRIOR_WEIGHT + len(gains))

    def _suspicious(self, gain: float) -> bool:
        if gain > SURPRISE_SHARE * abs(self.incumbent.mean):
            return True
        n = len(gains := self._gains())
        return n >= 3 and gain > sum(gains) / n * (math.log(n + 1) + SURPRISE)

    def _keep(self, view: Comparison, evidence: Evidence, scale: float) -> Verdict:
        k = len(self.runs)
        gain, interval = shrink(view.gain, view.widened, scale, evidence.doubt)
        keep = Kept(view.gain, view.widened, gain, interval, k, evidence.doubt, suspicious=self.looked)
        bias = view.gain - gain
        self.incumbent.luck += bias * view.luck
        self.incumbent.luck_variance += self.tau**2 * (1 - view.luck)
        self._succeed(self.runs, bias * view.share * k, keep)
        reason = f"a gain of {gain:.3g} over {k} runs, {evidence.words}"
        if keep.suspicious:
            reason += "; larger than the history predicts, so it was looked at once more"
        return Verdict(VerdictKind.KEEP, gain, interval, evidence.value, k, reason)

    def _keep_simpler(self, alone: Comparison) -> Verdict:
        k = len(self.runs) - 1
        keep = Kept(alone.gain, alone.widened, alone.gain, alone.interval, k, simplification=True)
        self._succeed(self._unselected(), 0.0, keep)
        reason = f"a simplification ({self.complexity:+g}), no worse within the margin over {k} runs"
        return Verdict(VerdictKind.KEEP, alone.gain, alone.interval, alone.z, k, reason)

    def _succeed(self, heir: Runs, correction: float, keep: Kept) -> None:
        """Let the candidate's runs become the incumbent's."""
        self.pool = self.pool.with_runs(self.incumbent.runs).with_pairs(self.runs, self.incumbent.runs)
        self.incumbent.succeed(heir, correction)
        self.keeps.append(keep)
        self.runs, self.looked = {}, False

    def _discard(self, view: Comparison, why: str) -> Verdict:
        k = len(self.runs)
        self._close()
        return Verdict(VerdictKind.DISCARD, view.gain, view.interval, view.z, k, why)

    def _close(self) -> None:
        self.pool = self.pool.with_runs(self.runs).with_pairs(self.runs, self.incumbent.runs)
        self.runs, self.looked = {}, False

    def report(self) -> Report:
        """Estimates with the luck of selection taken out, and counts."""
        noise, m = self._noise(), len(self.baseline)
        start = sum(self.baseline.values()) / m
        half = t_from_z(Z95, noise.df) * noise.sigma / math.sqrt(m)
        rate = len(self._gains()) / max(1, self.candidates)
        return Report(
            judge=self.name,
            noise=noise.sigma,
            baseline=Estimate(start, (start - half, start + half), m),
            incumbent=self.incumbent.estimate(noise, rate, self._scale(noise)),
            keeps=tuple(self.keeps),
            candidates=self.candidates,
            confirmed=self.confirmed,
            failed=self.failed,
            expected_false_keeps=sum(keep.doubt or 0.0 for keep in self.keeps),
            common_luck=noise.beta,
            drifts=self.incumbent.drifts,
        )

    def _dump(self) -> dict[str, Any]:
        state = super()._dump() | {"pool": asdict(self.pool), "incumbent": self.incumbent.to_dict()}
        return state | {"keeps": [asdict(keep) for keep in self.keeps]}

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self.pool = Pool(**state["pool"])
        self.incumbent = Incumbent.from_dict(state["incumbent"])
        self.keeps = [Kept(**(keep | {"interval": tuple(keep["interval"])})) for keep in state["keeps"]]


def bar(runs: int) -> float:
    """Least z to go on after so many runs."""
    return BARS[runs - 1] if runs <= len(BARS) else BARS[-1] + BAR_STEP * (runs - len(BARS))
