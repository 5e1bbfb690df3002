"""One search as plain values, from which the page, the plots' captions, the terminal and MLflow are made.

`Summary.to_dict` is what `status --json` prints; users rely on its keys. A number that is not known is None,
never 0. Texts are as recorded: the code that shows them cleans and escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from autoresearch.judge import Bars, Judge, bars
from autoresearch.judge.base import Report
from autoresearch.report.estimates import Estimates, estimate
from autoresearch.report.sections.stopping import stopping
from autoresearch.report.totals import (
    Failure,
    KindTotal,
    ProposerTotal,
    Spending,
    count_trials,
    count_verdicts,
    device_seconds,
    failures,
    kinds,
    mean_metrics,
    proposers,
    spending,
)
from autoresearch.store.inbox import DevisedGuard
from autoresearch.store.journal import SearchInfo
from autoresearch.store.records.claims import CLAIMS, ClaimRecord, read_claims
from autoresearch.store.records.guards import MeasuredKeeps, read_accepted, read_measured
from autoresearch.store.records.notes import (
    AFTER,
    BRIEFS,
    PAID_AFTER,
    SAMPLES,
    SETTINGS,
    UNBILLED,
    Brief,
    Sample,
    SettingChange,
    dollars_after,
    read_briefs,
    read_samples,
    read_setting_changes,
    read_unbilled,
    seconds_after,
)
from autoresearch.store.records.transfers import TRANSFERS, TransferRecord, read_transfers
from autoresearch.text import bars_text, change_text, guards_text, public
from autoresearch.types import REPORTED_SPLITS, Direction, Draft, Experiment, Metric

JUDGE = "judge"
JUDGE_KEYS = {
    "name": "judge",
    "candidates": "candidates",
    "confirmed": "confirmed",
    "kept": "keeps",
    "expected_false_keeps": "expected_false_keeps",
    "drifts": "drifts",
    "common_luck": "common_luck",
}
"""Keys of the JSON's `judge` -> attributes of the judge's report."""
FORMAT = 1
"""Version of the JSON shape; raised when a key changes its meaning."""
NOTES_READ = (CLAIMS, JUDGE, BRIEFS, SETTINGS, UNBILLED, AFTER, PAID_AFTER, SAMPLES, TRANSFERS)
"""Notes of the journal that a summary reads."""


class History(Protocol):
    """What a summary reads from the journal."""

    def info(self) -> SearchInfo:
        """What was fixed when the search began."""

    def experiments(self) -> tuple[Experiment, ...]:
        """All experiments in order, the baseline first."""

    def drafts(self) -> tuple[Draft, ...]:
        """Proposals made ahead that wait to become experiments."""

    def get(self, key: str) -> str | None:
        """A note by its key, if there is one."""


@dataclass(frozen=True)
class Gain:
    """How much better the incumbent is than the baseline; positive is better.

    Attributes:
        absolute: In the metric's unit.
        relative: As a share of the baseline's score; None if that is 0.
        interval: 95% interval of `absolute`, if known.
        judged: Whether the judge estimated it.
    """

    absolute: float
    relative: float | None
    interval: tuple[float, float] | None
    judged: bool


@dataclass(frozen=True)
class ExtraCheck:
    """Mean scores of the starting point and of the tip on a split that decides nothing."""

    split: str
    baseline: float
    best: float


@dataclass(frozen=True)
class Summary:
    """A search at one moment.

    Attributes:
        info: What was fixed when the search began; without secrets.
        experiments: Every experiment, the baseline first.
        estimates: How good the starting point and the incumbent are, and the noise.
        gain: What was gained; None before anything was kept.
        tip_commit: The incumbent.
        brief_changes: Later texts of the brief, with the time from which they were used.
        setting_changes: Settings that were changed when the search went on; without secrets.
        claims: The records of all final tests, oldest first.
        samples: What models of it wrote last, the start first.
        devised: The devised guards that a person has accepted.
        guarded: What its kept changes do to the guards, as measured anew.
        transfers: What its kept changes do at larger scales and on other data, as measured.
        judge: What the judge says about the search as a whole; None before it was asked.
        judge_state: The judge as JSON; None before it was asked.
        guards: The scores on splits that decide nothing.
        tried: Number of experiments, the baseline not counted.
        verdicts: Number of experiments by verdict; "open" ones have none yet.
        trials: Number of trials by outcome; "lost" ones were interrupted or still run.
        proposers: By name, the busiest first.
        kinds: By category of the proposals, the busiest first.
        cost: What was spent.
        wall_seconds: From the beginning to the end, or to the last trial.
        failures: Crashed and invalid experiments by cause, the most frequent first.
    """

    info: SearchInfo
    experiments: tuple[Experiment, ...]
    estimates: Estimates
    gain: Gain | None
    tip_commit: str
    brief_changes: list[Brief]
    setting_changes: list[SettingChange]
    claims: list[ClaimRecord]
    samples: list[Sample]
    devised: list[DevisedGuard]
    guarded: list[MeasuredKeeps]
    transfers: list[TransferRecord]
    judge: Report | None
    judge_state: str | None
    guards: list[ExtraCheck]
    tried: int
    verdicts: dict[str, int]
    trials: dict[str, int]
    proposers: dict[str, ProposerTotal]
    kinds: dict[str, KindTotal]
    cost: Spending
    wall_seconds: float
    failures: list[Failure]

    @property
    def metric(self) -> Metric:
        """The number that decides."""
        return self.info.metric

    @property
    def bars(self) -> Bars | None:
        """What a gain must be to be kept now; None if the judge does not say."""
        best, noise = self.estimates.best, self.estimates.noise
        if not self.judge_state or best is None or noise is None:
            return None
        return bars(self.judge_state, self.metric.loss(best.estimate.mean), noise)

    @property
    def needed(self) -> str:
        """The same in words; empty if the judge does not say."""
        found = self.bars
        return bars_text(found.second_run, found.three_runs, found.ever, self.metric) if found else ""

    @property
    def claim(self) -> ClaimRecord | None:
        """The record of the final test of the present tip, if it was made."""
        return next((c for c in self.claims if c.tip == self.tip_commit), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, in the shape that `status --json` prints."""
        info, start, best = self.info, self.estimates.baseline, self.estimates.best
        now = best.estimate if best else None
        judge = self.judge and {key: getattr(self.judge, name) for key, name in JUDGE_KEYS.items()}
        return {
            "format": FORMAT,
            "search": info.name,
            **{key: getattr(info, key) for key in ("branch", "task", "brief")},
            "brief_changes": [asdict(brief) for brief in self.brief_changes],
            "setting_changes": [asdict(change) for change in self.setting_changes],
            **{key: getattr(info, key) for key in ("device", "created", "finished", "base_commit")},
            "tip_commit": self.tip_commit,
            "metric": {
                "name": self.metric.name,
                "unit": self.metric.unit,
                "lower_is_better": self.metric.direction is Direction.MINIMIZE,
            },
            "baseline": start and {"mean": start.mean, "runs": start.trials},
            "best": best
            and now
            and {"mean": now.mean, "runs": now.trials, "experiment": best.experiment.number},
            "gain": self.gain and asdict(self.gain),
            "claim": self.claim and asdict(self.claim),
            "claims": [asdict(claim) for claim in self.claims],
            "samples": [asdict(sample) for sample in self.samples],
            "devised_guards": [asdict(guard) for guard in self.devised],
            "guarded": [asdict(record) for record in self.guarded],
            "transfers": [asdict(transfer) for transfer in self.transfers],
            "judge": judge and judge | {"kept": len(judge["kept"])},
            "guards": [asdict(check) for check in self.guards],
            "noise": {"sd": self.estimates.noise, "degrees_of_freedom": self.estimates.freedom},
            "tried": self.tried,
            "verdicts": self.verdicts,
            "trials": self.trials,
            "proposers": {name: asdict(proposer) for name, proposer in self.proposers.items()},
            "kinds": {name: asdict(kind) for name, kind in self.kinds.items()},
            "cost": asdict(self.cost),
            "wall_seconds": self.wall_seconds,
            "early_stopping": asdict(stopping(self.experiments)),
            "failures": [asdict(failure) for failure in self.failures],
            "config": info.config,
            "data": info.data,
            "experiments": [experiment_row(e, self.metric) for e in self.experiments],
        }


def summarize(history: History) -> Summary:
    """Summarize a search. Linear in the number of trials."""
    info, experiments = history.info(), history.experiments()
    now, unbilled = estimate(experiments), read_unbilled(history)
    tried = [e for e in experiments if e.number > 0]
    proposed = [p for e in experiments for p in (e.proposal, *e.dropped) if p is not None]
    proposed += [draft.proposal for draft in history.drafts()]  # these are paid for as well
    config, data = public(dict(info.config)), public(dict(info.data))
    assert isinstance(config, Mapping) and isinstance(data, Mapping)
    judge = history.get(JUDGE)
    last_sign = max([info.created, *(t.finished or t.started for e in experiments for t in e.trials)])
    return Summary(
        info=replace(info, config=config, data=data),
        experiments=experiments,
        estimates=now,
        gain=_gain(now, info.metric),
        tip_commit=now.best.experiment.commit if now.best else info.base_commit,
        brief_changes=read_briefs(history)[1:],
        setting_changes=[_public(change) for change in read_setting_changes(history)],
        claims=read_claims(history),
        samples=read_samples(history),
        devised=read_accepted(history),
        guarded=read_measured(history),
        transfers=read_transfers(history),
        judge=Judge.from_json(judge).report() if judge else None,
        judge_state=judge,
        guards=_extra_checks(now, info.metric),
        tried=len(tried),
        verdicts=count_verdicts(tried),
        trials=count_trials(experiments),
        proposers=proposers(tried, proposed, unbilled),
        kinds=kinds(tried),
        cost=spending(experiments, proposed, seconds_after(history), unbilled, dollars_after(history)),
        wall_seconds=(info.finished or last_sign) - info.created,
        failures=failures(tried),
    )


def _public(change: SettingChange) -> SettingChange:
    """A change without secrets, which both values may hold."""
    before, after = (public({change.key: value}) for value in (change.before, change.after))
    assert isinstance(before, Mapping) and isinstance(after, Mapping)
    return replace(change, before=before[change.key], after=after[change.key])


def experiment_row(e: Experiment, metric: Metric) -> dict[str, Any]:
    """One experiment as JSON-ready values, as `log --json` prints them; `change` is in words."""
    own, verdict, proposal = e.own, e.verdict, e.proposal
    return {
        "number": e.number,
        "state": e.state.value,
        "verdict": verdict.kind.value if verdict else None,
        "reason": verdict.reason if verdict else "",
        "hypothesis": proposal.hypothesis if proposal else "",
        "category": proposal.category.value if proposal else None,
        "instruction": proposal.instruction if proposal else "",
        "proposer": proposal.proposer if proposal else None,
        "tuning": asdict(proposal.tuning) if proposal and proposal.tuning else None,
        "score": e.score,
        "effect": verdict.effect if verdict else None,
        "interval": verdict.interval if verdict else None,
        "evidence": verdict.evidence if verdict else None,
        "change": change_text(verdict, metric) if verdict else "",
        "guards": guards_text(verdict) if verdict else "",
        "pairs": verdict.pairs if verdict else (),
        "trials": len(own),
        "seeds": [t.seed for t in own],
        "commit": e.commit,
        "parent": e.parent,
        "seconds": device_seconds(e),
        "metrics": mean_metrics(e),
    }


def _gain(now: Estimates, metric: Metric) -> Gain | None:
    gain = now.gain(metric)
    if gain is None or now.baseline is None:
        return None
    relative = metric.share(gain, now.baseline.mean)
    return Gain(gain, relative, now.interval(metric), judged=now.start is not None)


def _extra_checks(now: Estimates, metric: Metric) -> list[ExtraCheck]:
    """Scores on the extra splits, measured as "SPLIT_NAME" where the metric is called "..._NAME"."""
    if len(now.incumbents) < 2:
        return []
    start, tip = (mean_metrics(found.experiment) for found in (now.incumbents[0], now.incumbents[-1]))
    names = [(split.value, f"{split.value}_{metric.name.rpartition('_')[2]}") for split in REPORTED_SPLITS]
    return [
        ExtraCheck(split, start[name], tip[name]) for split, name in names if name in start and name in tip
    ]
