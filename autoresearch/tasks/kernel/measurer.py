"""Measures kernels at one place: right results first, then speed, on inputs that nobody has seen.

    author      jailed    draws inputs by a secret seed, and computes the right results
    reference   jailed    runs the reference: the frozen function of the trusted tree
    candidate   jailed    runs the candidate's function
    this        trusted   copies inputs and results between them, compares, and times

Invariants: the candidate gets each input when its run begins, and never before; every result is copied when
the answer comes, and compared, those of timed runs included; the memory of results holds noise before each
run. So a candidate that is not done, answers from memory, or was made for other inputs is wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.execute.base import OnProgress, Place, ShouldStop, TrialEnded, TrialSpec
from autoresearch.tasks.kernel.process import KernelServer, ServerFailed, Setup, fits
from autoresearch.tasks.kernel.results import first_wrong
from autoresearch.tasks.kernel.timing import Pair, Stopwatch, sizes, speedup, too_idle
from autoresearch.types import Fidelity, Measurement, Outcome, Progress

AUTHOR_SECONDS = 120.0
"""CPU seconds that drawing some inputs may take, or one run of the reference."""
SLOWEST = 50.0
"""A candidate that takes so many times as long as the reference is given up, not before `LEAST` seconds."""
LEAST = 2.0
TRYOUT_PAIRS = 2
MOST_CALLS = 256
SAMPLE = 4
"""Calls by whose time the number of calls in a run is chosen."""


@dataclass(frozen=True)
class KernelSettings:
    """How kernels are measured.

    Attributes:
        kernel: The file that holds the candidate's function, relative to its tree.
        spec: The specification: the file with `reference`, `inputs` and the rest.
        function: Name of the candidate's function.
        flags: For the compiler.
        trusted: The tree of the starting commit.
        pairs: Runs of each side that are timed.
        batch_seconds: CPU seconds of the reference in one run, by enough calls in it.
        checks: Calls whose results are checked before anything is timed.
        load_seconds: Limit on the CPU time of loading: import, compilation, the first calls.
        max_seconds: Limit on the CPU time of a candidate.
        wall: Whether the wall clock counts, as it must on a GPU.
    """

    kernel: str
    spec: str
    function: str
    flags: tuple[str, ...]
    trusted: Path
    pairs: int
    batch_seconds: float
    checks: int
    load_seconds: float
    max_seconds: float
    wall: bool = False


@dataclass(frozen=True)
class Batch:
    """Inputs of one run, and what is right for them.

    Attributes:
        calls: [inputs, outputs] of each call.
        inputs: What the memory of inputs must hold.
        right: What the memory of outputs must hold afterwards.
    """

    calls: list[Any]
    inputs: bytes
    right: bytes


def blank(batch: Batch) -> bytes:
    """What the memory of outputs holds before a run: a byte that nobody can foresee, again and again."""
    return bytes([secrets.randbelow(254) + 1]) * len(batch.right)


class KernelMeasurer:
    """Implements `execute.base.Measurer`."""

    def __init__(
        self, settings: KernelSettings, setup: Setup, place: Place, say: Callable[[str], None]
    ) -> None:
        self._settings, self._setup, self._place, self._say = settings, setup, place, say
        self._one_trial = threading.Lock()
        self._told = False

    def measure(
        self, tree: Path, spec: TrialSpec, scratch: Path, progress: OnProgress, should_stop: ShouldStop = None
    ) -> Measurement:
        """See `Measurer`; the score is the logarithm of the speed-up to the base 2."""
        with self._one_trial:
            return self._run(tree, spec.seed, spec.fidelity, scratch, progress, should_stop)

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        """See `Measurer`: loads the function, checks results, and times two pairs."""
        done = self._run(tree, secrets.randbits(63), Fidelity.TRYOUT, scratch, lambda sign: None, None)
        return replace(done, score=None)

    def close(self) -> None:
        """See `Measurer`; nothing runs between two trials."""

    def _run(
        self,
        tree: Path,
        seed: int,
        fidelity: Fidelity,
        scratch: Path,
        progress: OnProgress,
        should_stop: ShouldStop,
    ) -> Measurement:
        pairs = TRYOUT_PAIRS if fidelity is Fidelity.TRYOUT else self._settings.pairs
        begun = now()
        with ExitStack() as stack:
            trial = _Trial(self._settings, seed, pairs, progress, should_stop)
            outcome, reason, score = Outcome.OK, "", None
            try:
                trial.start(self._setup, tree.resolve(), scratch.resolve(), stack)
                score = trial.score()
            except TrialEnded as ended:
                outcome, reason = ended.outcome, str(ended)
            log = trial.candidate.log if trial.candidate else None
        if trial.note and not self._told:
            self._told = True
            self._say(trial.note)
        phases = (("startup", begun, trial.loaded), ("train", trial.loaded, now())) if trial.loaded else ()
        fraction = 1.0 if outcome is Outcome.OK else trial.fraction
        source = self._place.provenance(fidelity, fraction)
        text = log.text(wait=1.0).strip() if log else ""
        return Measurement(outcome, score, reason, trial.metrics, (), text, phases, provenance=source)


class _Trial:
    """One candidate, from the start of its process to a score."""

    def __init__(
        self, settings: KernelSettings, seed: int, pairs: int, progress: OnProgress, should_stop: ShouldStop
    ) -> None:
        self.settings, self.pairs, self._progress, self._stop = settings, pairs, progress, should_stop
        self.metrics: dict[str, float] = {}
        self.candidate: KernelServer | None = None
        self.fraction, self.loaded, self.note = 0.0, 0.0, ""
        self._begun, self._seed, self._draws = now(), seed, itertools.count()
        self._start = random.Random(self._secret("sizes")).random()
        self._seconds = settings.load_seconds  # that the candidate's next request may take

    def start(self, setup: Setup, tree: Path, scratch: Path, stack: ExitStack) -> None:
        """Start the processes and load the functions; ends when the candidate's has given right results."""
        settings = self.settings
        self.progress("start-up")

        def server(code: Path, name: str) -> KernelServer:
            return stack.enter_context(KernelServer(setup, code, scratch / name))

        self.author = server(settings.trusted, "author")
        self.reference = server(settings.trusted, "reference")
        self.candidate = server(tree, "candidate")
        spec = str(settings.trusted / settings.spec)
        self.author.send({"type": "describe", "path": spec})
        load = {"type": "load", "flags": settings.flags, "strided": False}
        self.reference.send({**load, "path": spec, "function": "reference"})
        with self._of_spec():
            self.about = self.author.answer(AUTHOR_SECONDS, self.beat)
            self.reference.answer(AUTHOR_SECONDS, self.beat)
        if len(self.about["constant"]) == self.about["arguments"]:
            raise UserError(
                f"{settings.spec}: inputs(rng, size) is the same for any rng, so a candidate could know the "
                "answer.",
                "Draw the inputs from rng.",
            )
        if self.about["constant"]:
            listed = ", ".join(map(str, self.about["constant"]))
            self.note = (
                f"Argument {listed} of the kernel never changes: candidates may compute from it at import."
            )
        before = self.candidate.cpu
        path = str(tree / settings.kernel)
        self._ask({**load, "path": path, "function": settings.function, "strided": self.about["strided"]})
        self.metrics["startup_cpu_seconds"] = self.candidate.cpu - before
        self._check()
        self.loaded = now()

    def score(self) -> float:
        """Time the pairs."""
        assert self.candidate is not None
        batch = self._batches()
        watches = Stopwatch(self.reference), Stopwatch(self.candidate)
        for number in range(self.pairs):
            self.fraction = number / self.pairs
            self.progress("train")
            if self.candidate.cpu > self.settings.max_seconds:
                raise TrialEnded(
                    Outcome.CRASH,
                    f"timeout: {self.settings.max_seconds:g} s of CPU time were over after {number} of "
                    f"{self.pairs} runs (budget.max_seconds)",
                )
            drawn = batch(number)
            for side in (0, 1) if number % 2 else (1, 0):
                self._timed(drawn, watches[side], candidate=side == 1)
        for watch in watches:
            watch.settle()
        pairs = [Pair(*costs) for costs in zip(watches[0].costs, watches[1].costs, strict=True)]
        ratio = speedup(pairs, wall=self.settings.wall)
        self.metrics |= {
            "speedup": ratio,
            "wall_speedup": speedup(pairs, wall=True),
            "reference_ms": 1000 * sum(p.reference.cpu for p in pairs) / len(pairs),
            "candidate_ms": 1000 * sum(p.candidate.cpu for p in pairs) / len(pairs),
            "memory_mb": self.candidate.peak_memory / 1e6,
        }
        if not self.settings.wall and self.pairs > TRYOUT_PAIRS and (why := too_idle(pairs)):
            raise TrialEnded(Outcome.INVALID, why)
        return math.log2(ratio)

    def _check(self) -> None:
        """Compare results on small, large, odd and declared edge cases, at odd addresses."""
        low, high = self.about["sizes"]
        count = self.settings.checks
        some = [*range(low, min(high, low + count // 4) + 1), high]
        some += sizes((low, high), max(1, count - len(some)), self._start)
        drawn = self._draw(some, edges=True, strange=True)
        for candidate in (False, True):
            self._timed(drawn, None, candidate=candidate)

    def _batches(self) -> Callable[[int], Batch]:
        """Draws the inputs of one timed run: as many calls as take the reference `batch_seconds`."""
        bounds = self.about["timed"]
        some = sizes(bounds, SAMPLE, self._start)
        first = self._draw(some)
        used = self._cost_of_reference(first) / SAMPLE
        self._seconds = max(LEAST, SLOWEST * max(used, self.settings.batch_seconds))
        several = max(1, min(MOST_CALLS, round(self.settings.batch_seconds / max(used, 1e-6))))
        room = len(self.author.outputs) // 2
        largest = self._draw([bounds[1]])
        several = max(1, min(several, int(room / (1.5 * max(len(largest.inputs), len(largest.right), 1)))))
        while several > 1 and not fits(largest.calls * several):
            several -= several // 4 + 1
        self.metrics["calls"] = float(several)
        return lambda number: self._draw(sizes(bounds, several, self._start, 1 + number * several))

    def _cost_of_reference(self, batch: Batch) -> float:
        watch = Stopwatch(self.reference)
        for _ in range(3):  # the first one warms up
            self._timed(batch, watch, candidate=False)
        watch.settle()
        return min(cost.cpu for cost in watch.costs)

    def _draw(self, some: Sequence[int], *, edges: bool = False, strange: bool = False) -> Batch:
        seed = self._secret(f"draw {next(self._draws)}")
        request = {"type": "draw", "seed": seed, "sizes": list(some), "strange": strange}
        with self._of_spec():
            drawn = self.author.ask(
                {**request, "edges": edges and self.about["edges"]}, AUTHOR_SECONDS, self.beat
            )
        taken, given = drawn["used"]
        half = len(self.author.outputs) // 2
        memory = self.author.outputs
        return Batch(drawn["calls"], memory[:taken], memory[half : half + given])

    def _timed(self, batch: Batch, watch: Stopwatch | None, *, candidate: bool) -> None:
        """Run one side on a batch, and compare its results."""
        server = self.candidate if candidate else self.reference
        assert server is not None
        size = len(batch.right)
        server.inputs[: len(batch.inputs)] = batch.inputs
        server.outputs[:size] = blank(batch)
        message = {"type": "run", "calls": batch.calls}
        if watch is not None:
            watch.begin()
        if candidate:
            self._ask(message)
        else:
            with self._of_spec():
                server.ask(message, AUTHOR_SECONDS, self.beat)
        got = server.outputs[:size]
        if watch is not None:
            watch.end()
        wrong = first_wrong(batch.calls, got, batch.right, *self.about["tolerance"])
        if wrong and candidate:
            raise TrialEnded(Outcome.INVALID, wrong)
        if wrong:
            raise UserError(
                f"{self.settings.spec}: the reference disagrees with itself: {wrong}.",
                "Make it deterministic.",
            )

    def _ask(self, message: dict[str, Any]) -> None:
        """Ask the candidate for something."""
        assert self.candidate is not None
        try:
            self.candidate.ask(message, self._seconds, self.beat)
        except ServerFailed as failed:
            raise TrialEnded(Outcome.CRASH, str(failed)) from None

    @contextmanager
    def _of_spec(self) -> Iterator[None]:
        """Whatever fails in here is the specification's fault."""
        try:
            yield
        except ServerFailed as failed:
            raise UserError(
                f"The specification {self.settings.spec} fails: {failed}",
                "docs/kernels.md says what it must hold.",
            ) from None

    def beat(self) -> None:
        """Show a sign of life."""
        self._progress(
            Progress(self.fraction, now() - self._begun, phase="train" if self.loaded else "start-up")
        )

    def progress(self, phase: str) -> None:
        """Show how far it is, and end the trial if it is hopeless."""
        sign = Progress(self.fraction, now() - self._begun, phase=phase)
        self._progress(sign)
        if self._stop is not None and self._stop(sign):
            raise TrialEnded(Outcome.PRUNE, f"stopped at {self.fraction:.0%} of its runs")

    def _secret(self, what: str) -> int:
        """A seed that follows from the trial's, which no candidate is told."""
        return int.from_bytes(hashlib.blake2b(f"{self._seed} {what}".encode(), digest_size=8).digest())
