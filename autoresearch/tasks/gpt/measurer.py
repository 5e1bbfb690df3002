"""Measures candidates at one place: one training and one scoring each.

    training process  jailed    trains, and writes weights         (`training`: protocol, clock)
    two model servers jailed    run the submitted model            (started early, idle without weights)
    a third one       jailed    answers blind questions first      (where the trial is to be scored so)
    scorer            trusted   compares their answers, and sums   (`scorer`: one for all trials)

The processes of the next trial can start before this one ends (`processes`). `trial` holds the steps from
their start to a result. A trial that the GPU spoiled, or that was late on a busy machine, is repeated
(`execute.retry`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch.execute.base import OnProgress, Place, ShouldStop, TrialSpec
from autoresearch.execute.health import Health
from autoresearch.execute.load import LoadMeter, this_machine
from autoresearch.execute.output import MEMORY, TIMEOUT, classify
from autoresearch.execute.retry import repeat_spoiled, watch_gpu
from autoresearch.execute.sandbox import Sandbox
from autoresearch.tasks.gpt.data import TrainingData
from autoresearch.tasks.gpt.processes import CompileCache, Standby
from autoresearch.tasks.gpt.program import one_gpu
from autoresearch.tasks.gpt.resources import Resources, this_process
from autoresearch.tasks.gpt.scorer import Scorer
from autoresearch.tasks.gpt.settings import LaunchOptions, Settings, TrainingBudget, TrialPlan
from autoresearch.tasks.gpt.training import OWN_TIMEOUT
from autoresearch.tasks.gpt.trial import clear, run_trial
from autoresearch.types import Fidelity, Measurement, Outcome, Progress, Split

GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
TRYOUT_STEPS = 4
"""Batches of a tryout: weights that begin at zero have an effect only after two or three."""
TRYOUT_PROBES = 16
TRYOUT_SECONDS = 120.0
"""Seconds that a tryout may take to get ready, and to train; it does not compile, so more means hanging."""
CLOSER = 4
"""Factor on the blind questions, where more than usual rests on one training."""
THOROUGH = 8
"""Factor on the windows for a suspect: it finds a peek of an eighth of the size equally often."""


class GptMeasurer:
    """Trains and scores candidates, one at a time; implements `execute.base.Measurer`."""

    def __init__(
        self,
        settings: Settings,
        sandbox: Sandbox,
        data: Path,
        place: Place = Place("cpu", ""),  # noqa: B008  frozen
        health: Health | None = None,
        say: Callable[[str], None] = lambda text: None,
        load: LoadMeter | None = None,
    ) -> None:
        """Open the data; starts no process.

        Args:
            settings: How to train and score.
            sandbox: How candidates are confined.
            data: Folder of the prepared data.
            place: This place, for the record.
            health: Reads the GPU while a candidate trains; None: do not read it.
            say: Tells a person something, from the thread of a trial.
            load: Says how busy the machine is; None: the one of this process.

        Raises:
            UserError: If the prepared data cannot be read.
        """
        self._settings, self._place, self._health, self._say = settings, place, health, say
        self._one_trial = threading.Lock()
        self._usual_score_seconds = 0.0
        trusted = settings.trusted.resolve()
        # Without a sandbox a candidate could reach the processes that wait, and the compile cache.
        confined = sandbox.name != "none"
        keeps = settings.compiled if confined and settings.compile else None
        cached = CompileCache(keeps, trusted) if keeps else None
        before = cached.copy_to if cached else lambda folder: None
        device, only = one_gpu(settings.device)
        gpu = device != "cpu" and any(Path(node).exists() for node in GPU_NODES)
        options = LaunchOptions(sandbox, settings, gpu, only, before)
        ready = settings.standby if confined else None
        self._resources = Resources(
            data=TrainingData(data),
            options=options,
            scorer=Scorer(settings.score, trusted, settings.threads, only),
            standby=Standby(options, ready.resolve(), trusted, settings.editable) if ready else None,
            compiled=cached,
            device=device,
            load=load or this_machine(),
            turns=this_process() if settings.score_alone else None,
        )

    def measure(
        self, tree: Path, spec: TrialSpec, scratch: Path, progress: OnProgress, should_stop: ShouldStop = None
    ) -> Measurement:
        """Train and score the candidate in `tree`; see `execute.base.Measurer`.

        If the GPU was slowed down or shared meanwhile, the trial is repeated, and the metrics say "repeated".
        The candidate's processes may write `train`, `model` and `witness` in `scratch`. After scoring it
        holds `SPLIT.npy`: float64 [pieces, 3], nats, bytes of text times ln 2, and document of each piece.
        The first split gives the score, the others give `SPLIT_bpb` among the metrics.

        Raises:
            UserError: If the host fails: the data changed, the disk is full, the scorer does not start.
        """
        plan, tree, scratch = self._plan(spec), tree.resolve(), scratch.resolve()
        trains = not plan.submitted
        health, load, reached = self._health, self._resources.load, 0.0
        shared = ""

        def seen(sign: Progress) -> None:
            nonlocal reached
            reached = sign.fraction
            progress(sign)

        def whole(seen: OnProgress) -> Measurement:
            return run_trial(self._resources, plan, tree, scratch, seen, should_stop)

        def once() -> tuple[Measurement, str]:
            clear(scratch)  # of an attempt that did not count
            if trains and plan.submission:
                plan.submission.unlink(missing_ok=True)
            nonlocal shared
            since = load.mark
            result, spoiled = watch_gpu(health, whole, seen) if health else (whole(seen), "")
            shared = load.blame(since)
            return result, spoiled or (shared if _others_may_have_delayed(result) else "")

        with self._one_trial, load.watching():
            timed = plan.budget.kind == "seconds"
            result = repeat_spoiled(once, timed=timed, say=self._say, progress=progress, busy=load.problem)
        if result.outcome is Outcome.OK and spec.fidelity is Fidelity.FULL and not plan.questions:
            usual = self._usual_score_seconds, result.metrics.get("score_seconds", 0.0)
            self._usual_score_seconds = max(usual)
        result = self._without_blame(result, thorough=spec.thorough, shared=bool(shared))
        return self._signed(result, spec.fidelity, reached)

    def tryout(self, tree: Path, scratch: Path, progress: OnProgress = lambda sign: None) -> Measurement:
        """Train a few steps at real shapes, then score a few windows with the real probes.

        Finds within seconds most errors of the first seconds and of the end of a trial. It reads no held-out
        data, compiles nothing and gives no score. May be called while a trial runs. If a candidate runs out
        of memory on a GPU, it is tried again, compiled, when no trial runs.

        Raises:
            UserError: If the host fails.
        """
        tree, scratch, settings = tree.resolve(), scratch.resolve(), self._settings
        budget = TrainingBudget("steps", TRYOUT_STEPS, TRYOUT_SECONDS)
        startup = min(TRYOUT_SECONDS, settings.startup_seconds)
        plan = TrialPlan(0, budget, False, startup, (Split.TRAIN.value,), TRYOUT_PROBES, tryout=True)
        plan = replace(plan, usual_score_seconds=self._usual_score_seconds)
        load = self._resources.load
        with load.watching():
            for _ in range(2):  # on a busy machine it may be late through no fault of its own
                since = load.mark
                result = run_trial(self._resources, plan, tree, scratch, progress)
                delayed = _others_may_have_delayed(result) and bool(load.blame(since))
                if not delayed:
                    break
                clear(scratch)
        if delayed:
            result = replace(result, outcome=Outcome.OK)  # a trial will show: it is repeated then
        again = settings.compile or self._resources.options.gpu
        if again and result.reason.startswith(MEMORY):
            # Compiled it may need less memory, and more is free when no other trial runs.
            clear(scratch)
            plan = replace(plan, compile=settings.compile, startup_seconds=settings.startup_seconds)
            with self._one_trial:
                result = run_trial(self._resources, plan, tree, scratch, progress)
        if result.outcome is Outcome.CRASH and self._health is not None:
            strangers = self._health.read().strangers  # raises if the GPU is lost
            if strangers and result.reason.startswith(MEMORY):
                # Other processes may have taken the memory; a trial will show, since it is repeated then.
                result = replace(result, outcome=Outcome.OK)
        return self._signed(replace(result, score=None), Fidelity.TRYOUT, 0.0)

    def close(self) -> None:
        """End the scorer and the processes that wait, and close the data."""
        self._resources.close()

    def _plan(self, spec: TrialSpec) -> TrialPlan:
        """What a whole trial does."""
        settings = self._settings
        cpus = settings.threads if self._resources.device == "cpu" else 0
        return TrialPlan(
            spec.seed,
            settings.budget.limited(settings.slowdown, spec.baseline, cpus),
            settings.compile,
            settings.startup_seconds,
            tuple(split.value for split in spec.splits),
            settings.probes * (THOROUGH if spec.thorough else 1),
            submission=Path(spec.submission) if spec.submission else None,
            questions=settings.questions * (CLOSER if spec.thorough else 1) if spec.blind else 0,
            question_seed=spec.blind_seed,
            share=spec.share,
            text=spec.text,
            slices=self._slices(spec),
        )

    def _without_blame(self, result: Measurement, *, thorough: bool, shared: bool) -> Measurement:
        """The result without times for which the candidate is not to blame.

        Scoring takes longer if it was suspected, or if others computed meanwhile.
        """
        hidden = {"score_seconds", "score_cpu_seconds"} if thorough else set()
        if self._resources.device != "cpu":
            hidden |= {"score_cpu_seconds"} | ({"score_seconds"} if shared else set())
        metrics = {name: value for name, value in result.metrics.items() if name not in hidden}
        return replace(result, metrics=metrics)

    def _slices(self, spec: TrialSpec) -> dict[str, Mapping[str, Any]]:
        """The slices of the guards; none if the trusted scorer is of a version that knows no slices."""
        knows = self._settings.trusted / "/".join(
            (*self._settings.score.split(".")[:-1], "scoring/slices.py")
        )
        return {guard.name: guard.definition for guard in spec.guards} if knows.is_file() else {}

    def _signed(self, result: Measurement, fidelity: Fidelity, reached: float) -> Measurement:
        """The result, with its provenance."""
        fraction = 1.0 if result.outcome is Outcome.OK else reached
        return replace(result, provenance=self._place.provenance(fidelity, fraction))


def _others_may_have_delayed(result: Measurement) -> bool:
    """Whether a trial was too late, and not in its own time: other programs may be the reason."""
    return classify(result.reason) == TIMEOUT and not OWN_TIMEOUT.match(result.reason)
