"""What flows through the loop: proposal -> edit -> trial -> verdict.

Every type is frozen and made of plain values, so that the journal can store it as JSON and no stage can
change what an earlier stage decided. A score is in the unit of the task's metric, whose direction says which
way is better; an effect is a gain, so positive is always better.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Self

WAITING = "waiting"
"""The phase of a trial that waits until the machine has room, or until the GPU has cooled down."""

Knob = int | float | str | bool
"""The value of one named constant at the top of the training script."""


@dataclass(frozen=True)
class Plain:
    """A value that can be JSON and back."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what is absent has its default.

        Raises:
            ValueError: If what has no default is absent, a key is unknown, or a value is of another type.
        """
        from pydantic import ValidationError

        try:
            found: Self = _reader(cls).validate_python(dict(data))  # type: ignore[arg-type]
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
            raise ValueError("; ".join(wrong)) from None
        return found


@cache
def _reader(kind: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


class Category(StrEnum):
    """The kind of change that a proposal makes; shows which kinds gain."""

    ARCHITECTURE = "architecture"
    OPTIMIZER = "optimizer"
    SCHEDULE = "schedule"
    DATA = "data"
    REGULARIZATION = "regularization"
    THROUGHPUT = "throughput"
    SIMPLIFY = "simplify"
    KNOBS = "knobs"
    OTHER = "other"


class VerdictKind(StrEnum):
    """How an experiment ended."""

    KEEP = "keep"
    DISCARD = "discard"
    PRUNE = "prune"
    CRASH = "crash"
    INVALID = "invalid"


class Outcome(StrEnum):
    """How one trial ended."""

    OK = "ok"
    PRUNE = "prune"
    CRASH = "crash"
    INVALID = "invalid"


class State(StrEnum):
    """How far an experiment has come; each value is written before the step it announces."""

    PROPOSED = "proposed"
    COMMITTED = "committed"
    JUDGED = "judged"
    RECORDED = "recorded"


class Direction(StrEnum):
    """Which way a metric gets better."""

    MINIMIZE = "min"
    MAXIMIZE = "max"


@dataclass(frozen=True)
class Metric(Plain):
    """The number that a search improves.

    Attributes:
        name: A short identifier, for JSON, MLflow and commit trailers, such as "val_bpb".
        unit: The unit in words, such as "bits per byte".
        direction: Which way is better.
        digits: Decimals to print.
        per_item: Whether each measurement comes with the losses of single items, such as documents.
        ratio: Whether a share of a score means something: not on a logarithmic scale.
    """

    name: str
    unit: str
    direction: Direction = Direction.MINIMIZE
    digits: int = 4
    per_item: bool = False
    ratio: bool = True

    def share(self, gain: float, before: float) -> float | None:
        """A gain as a share of the score before it; None if that means nothing."""
        return gain / abs(before) if self.ratio and before else None

    def loss(self, score: float) -> float:
        """The score turned so that lower is better, as judges read it; the function is its own inverse."""
        return score if self.direction is Direction.MINIMIZE else -score

    def gain(self, before: float, after: float) -> float:
        """How much better `after` is than `before`; positive is better."""
        return self.loss(before) - self.loss(after)

    def change(self, effect: float) -> float:
        """What a gain does to the score: negative for a gain of a minimised metric."""
        return -self.loss(effect)

    def better(self, first: float, second: float) -> bool:
        """Whether the first score is better than the second."""
        return self.loss(first) < self.loss(second)

    def on(self, split: Split) -> str:
        """Name of the score on a further split among a measurement's metrics, such as "test_bpb"."""
        return f"{split}_{self.name.rpartition('_')[2]}"

    def text(self, score: float) -> str:
        """The score as it is printed."""
        return f"{score:.{self.digits}f}"


class Arm(StrEnum):
    """What a trial is for."""

    BASELINE = "baseline"
    SCREEN = "screen"
    CONFIRM = "confirm"
    INCUMBENT = "incumbent"
    CLAIM = "claim"
    AUDIT = "audit"
    DIAGNOSE = "diagnose"


class Split(StrEnum):
    """Parts of a task's data. Candidates see only TRAIN; VALIDATION decides; TEST is sealed."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    HELD = "held"
    OTHER = "other"


REPORTED_SPLITS = (Split.HELD, Split.OTHER)
"""Splits that are scored besides VALIDATION, to report whether gains carry over. They decide nothing."""


class Fidelity(StrEnum):
    """How much of the budget a trial uses."""

    TRYOUT = "tryout"
    FULL = "full"


@dataclass(frozen=True)
class Edit:
    """Replace one exact passage of one file; with an empty `search`, `replace` is the whole new file."""

    path: str
    search: str
    replace: str


@dataclass(frozen=True)
class Cost:
    """What a proposal cost: LLM calls, tokens in and out, US dollars, and seconds of waiting."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.dollars + other.dollars,
            self.seconds + other.seconds,
        )

    def beyond(self, other: Cost) -> Cost:
        """The part of this cost that the other does not include; never negative."""
        return Cost(
            max(self.calls - other.calls, 0),
            max(self.input_tokens - other.input_tokens, 0),
            max(self.output_tokens - other.output_tokens, 0),
            max(self.dollars - other.dollars, 0.0),
            max(self.seconds - other.seconds, 0.0),
        )


@dataclass(frozen=True)
class Tuning:
    """Which point of a tuning a proposal is; each point is an experiment of its own.

    Attributes:
        name: The same for all points of a tuning.
        point: Number of the point, from 1.
        points: How many points were asked for.
        knobs: Name of each tuned constant -> its space, as in a comment: "0.01..0.1 log" or "relu | gelu".
        values: Their values at this point.
        change: The edits that all points have in common, as their author wrote them.
        about: The author's hypothesis.
        of: Number of the experiment that is the first point; None at that point itself.
    """

    name: str
    point: int
    points: int
    knobs: Mapping[str, str]
    values: Mapping[str, Knob]
    change: tuple[Edit, ...] = ()
    about: str = ""
    of: int | None = None

    @property
    def kind(self) -> str:
        """A sweep tries listed values of one knob; a tuning lets a sampler choose."""
        return "sweep" if len(self.knobs) == 1 and "|" in next(iter(self.knobs.values())) else "tuning"

    @property
    def words(self) -> str:
        """Which point this is: "point 2 of 4 of the tuning of #7"."""
        of = f" of #{self.of}" if self.of is not None else ""
        return f"point {self.point} of {self.points} of {'the' if of else 'a'} {self.kind}{of}"

    @property
    def where(self) -> str:
        """The values: "LR 0.03, DEPTH 4"."""
        return ", ".join(f"{name} {value}" for name, value in self.values.items())


@dataclass(frozen=True)
class Proposal(Plain):
    """A hypothesis and the edit that tests it.

    Attributes:
        hypothesis: One sentence that says what changes and why it should help.
        category: The kind of change.
        edits: The change itself, against the incumbent's source.
        proposer: Its author, such as "optuna" or "anthropic:claude-sonnet-5-5".
        mechanism: Why the author believes it works.
        expected_effect: Expected gain in the metric's unit (positive is better), if stated.
        confidence: Probability in [0, 1] that the gain is real, if stated.
        risk: What could go wrong.
        params: Knob values, for proposals that are a point in a search space.
        cost: The cost of this proposal.
        idea: Number of the person's idea that it tests, if any; see `Idea`.
        conversation: Name under which its calls of language models are stored; see `Call`.
        kind: What its author was asked for, if by kind; see `propose.bandit`.
        tuning: Which point of a tuning or sweep it is, if it is one.
        diagnostic: Whether the edits only print, to answer a question: the incumbent is trained once with
            them, and nothing is judged.
    """

    hypothesis: str
    category: Category
    edits: tuple[Edit, ...]
    proposer: str
    mechanism: str = ""
    expected_effect: float | None = None
    confidence: float | None = None
    risk: str = ""
    params: Mapping[str, Knob] = field(default_factory=dict)
    cost: Cost = Cost()
    idea: int | None = None
    conversation: str = ""
    kind: str = ""
    tuning: Tuning | None = None
    diagnostic: bool = False


@dataclass(frozen=True)
class Candidate:
    """A proposal applied to its parent. Made once by `edit.candidate`, then passed on.

    Attributes:
        parent: The commit that was changed.
        sources: All editable files as the candidate has them: path -> text.
        changed: Those of them that differ from the parent's.
        fingerprint: Equal for two programs that do the same; comments and layout do not count.
        diff: Unified diff from the parent.
        growth: Net size that it adds, in lines of usual code.
    """

    parent: str
    sources: Mapping[str, str]
    changed: Mapping[str, str]
    fingerprint: str
    diff: str
    growth: int


@dataclass(frozen=True)
class Call:
    """The record of one request to a language model and its answer.

    Attributes:
        conversation: The same for all calls that led to one proposal; `Proposal.conversation` names it.
        model: The model, after the name of the proposer: "anthropic:claude-sonnet-5-5".
        started: Unix time in seconds.
        asked: The text that was sent; in later turns only the new text.
        answered: The answer, as text.
        problem: Why it led to no proposal, in words; empty if it did.
        cost: The cost of the call.
    """

    conversation: str
    model: str
    started: float
    asked: str
    answered: str
    problem: str
    cost: Cost


@dataclass(frozen=True)
class Idea:
    """A person's idea that waits to be tried: words for a model, or a patch for `propose.queue`."""

    number: int
    text: str
    patch: str = ""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        mean: Expected score.
        interval: 95% interval; None if the noise is unknown.
        trials: Number of runs behind the mean.
    """

    mean: float
    interval: tuple[float, float] | None
    trials: int


@dataclass(frozen=True)
class Levels:
    """The judge's estimates of where a search stands, without the luck of selection.

    Attributes:
        baseline: Score of the start, as it would be on the machine of now.
        incumbent: Score of the incumbent.
        noise: Standard deviation of a score from seed to seed.
        freedom: Degrees of freedom of `noise`.
    """

    baseline: Estimate
    incumbent: Estimate
    noise: float
    freedom: int

    def in_unit(self, metric: Metric) -> Levels:
        """A judge's levels, which are losses, as scores of the metric; its own inverse."""

        def turned(level: Estimate) -> Estimate:
            ends = level.interval and sorted(map(metric.loss, level.interval))
            return replace(level, mean=metric.loss(level.mean), interval=(ends[0], ends[1]) if ends else None)

        return replace(self, baseline=turned(self.baseline), incumbent=turned(self.incumbent))


@dataclass(frozen=True)
class Verdict(Plain):
    """The decision about a candidate, and how sure it is.

    Attributes:
        kind: The decision. A judge says only KEEP or DISCARD; the search adds the others.
        effect: Estimated gain over the incumbent in score units (positive is better), if measured.
        interval: 95% interval of `effect`, if measured.
        evidence: The judge's test statistic (a z value unless the judge says otherwise).
        trials: Trainings of the candidate that the decision rests on.
        reason: A sentence that a person understands.
        levels: Where the search stands after it; None if the judge does not estimate it.
        paired: How many of `trials` have a seed on which the incumbent was run too.
        pairs: As measured, for each of those: the seed, the incumbent's score, the candidate's.
    """

    kind: VerdictKind
    effect: float | None = None
    interval: tuple[float, float] | None = None
    evidence: float | None = None
    trials: int = 0
    reason: str = ""
    levels: Levels | None = None
    paired: int = 0
    pairs: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True)
class Provenance:
    """Where a measurement comes from.

    Attributes:
        place: Name of the place where the trial ran, such as "cuda:1".
        device: Fingerprint of the device: measurements on different ones may not be comparable.
        worker: Who measured, such as a host name.
        fidelity: How much of the budget the trial was to use.
        fraction: Share of that which was used when the trial ended; 1 if it finished.
    """

    place: str = ""
    device: str = ""
    worker: str = ""
    fidelity: Fidelity = Fidelity.FULL
    fraction: float = 1.0


@dataclass(frozen=True)
class TextRequest(Plain):
    """Text that a scored model is to write.

    Attributes:
        prompt: What the text begins with; empty: the beginning of a document.
        tokens: Most tokens of each text.
        count: Number of texts.
        temperature: Of the random choice of each token; 0: the likeliest.
        seed: Of these choices.
    """

    prompt: str = ""
    tokens: int = 200
    count: int = 1
    temperature: float = 0.8
    seed: int = 0


@dataclass(frozen=True)
class Measurement(Plain):
    """The result of one training and scoring.

    Attributes:
        outcome: How it ended.
        score: In the unit of the task's metric; None unless `outcome` is OK.
        reason: One line that says why it did not end OK; empty if it did.
        metrics: Numbers under fixed names: steps, tokens, tokens_per_second, mfu, parameters,
            peak_memory_mb, train_seconds, startup_seconds, score_seconds, train_loss, ... A number that
            is unknown is absent.
        curve: (fraction of the budget used, training loss in nats per token), in order.
        log: The end of what the candidate printed: data, never instructions.
        phases: (name, start, end) in Unix time, in order. The names are "startup"
            (processes start), "warmup" (the model is built and compiled), "train" and "score".
        items: Files with the losses of single items: split -> path below the folder of the search.
        provenance: Where it was measured, and how far it came.
        texts: What the model wrote, if it was asked to: data, never instructions.
    """

    outcome: Outcome
    score: float | None = None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    log: str = ""
    phases: tuple[tuple[str, float, float], ...] = ()
    items: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance = Provenance()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One training and scoring of one commit with one seed, as the journal knows it.

    Attributes:
        id: Number within the search, from 1.
        experiment: The experiment that asked for it; 0 is the baseline.
        arm: Its purpose.
        seed: The random seed given to the candidate.
        commit: What was trained.
        started: Unix time in seconds.
        finished: Unix time in seconds; None while it runs, or if the runner died.
        result: None while it runs, if the runner died, or if the result was no longer needed.
        place: Where it runs, such as "cuda:1"; empty if there is only one place.
        label: Its name if its arm does not say enough, such as "claim, tip".
        measured: Sum of its phases in seconds; 0 if none were recorded.
    """

    id: int
    experiment: int
    arm: Arm
    seed: int
    commit: str
    started: float
    finished: float | None = None
    result: Measurement | None = None
    place: str = ""
    label: str = ""
    measured: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it kept its place busy: its phases, else from start to end; 0 while it runs."""
        return self.measured or ((self.finished or self.started) - self.started)

    @property
    def score(self) -> float | None:
        """In the unit of the metric, if the trial ended well."""
        return self.result.score if self.result else None


@dataclass(frozen=True)
class Experiment:
    """One proposal carried through to a verdict, as the journal knows it.

    Attributes:
        number: 0 is the baseline (which has no proposal), then 1, 2, ...
        state: How far it has come.
        parent: The incumbent commit that the edit applies to.
        commit: The candidate commit; empty until there is one. Its message, so its hash, gains the verdict
            when that is known; its tree is what was trained.
        proposal: None only for the baseline.
        verdict: None until judged.
        diff: Unified diff from parent to commit; empty until there is one.
        created: Unix time in seconds.
        finished: Unix time in seconds; None until judged.
        trials: Every trial that this experiment asked for, in order; incumbent re-runs included.
        dropped: Proposals that were made ahead while this was the latest experiment, and were given up: they
            cost something and were never tried.
        diagnoses: Trials of the incumbent with edits that only print, made while this was the latest
            experiment. Their scores count for nothing, and are not recorded.
        decided: How many experiments had a verdict by then, itself included; None until judged. With one
            candidate in flight at a time this is its number.
    """

    number: int
    state: State
    parent: str
    created: float
    commit: str = ""
    proposal: Proposal | None = None
    verdict: Verdict | None = None
    diff: str = ""
    finished: float | None = None
    trials: tuple[Trial, ...] = ()
    dropped: tuple[Proposal, ...] = ()
    diagnoses: tuple[Trial, ...] = ()
    decided: int | None = None

    @property
    def order(self) -> int:
        """Its place in the order of verdicts; its number while it has none."""
        return self.number if self.decided is None else self.decided

    @property
    def kept(self) -> bool:
        """Whether the candidate became the incumbent."""
        return self.verdict is not None and self.verdict.kind is VerdictKind.KEEP

    @property
    def own(self) -> tuple[Trial, ...]:
        """Trials of the candidate itself, in order: no re-runs of the incumbent.

        A candidate that was merged onto a later incumbent has others from before, of another program.
        """
        own = [t for t in self.trials if t.arm != Arm.INCUMBENT]
        return tuple(t for t in own if t.commit == own[-1].commit)

    @property
    def scores(self) -> tuple[float, ...]:
        """Scores of the candidate itself, in order; see `own`."""
        return tuple(t.score for t in self.own if t.score is not None)

    @property
    def score(self) -> float | None:
        """Mean score of the candidate, if it has any; without the screening trial if there are others.

        A screening score has been selected for being low, so it would make the mean optimistic.
        """
        fair = [t.score for t in self.own if t.arm != Arm.SCREEN and t.score is not None]
        scores = fair or self.scores
        return sum(scores) / len(scores) if scores else None


def in_order(experiments: Iterable[Experiment]) -> list[Experiment]:
    """The experiments in the order of their verdicts, the baseline first; those without a verdict come last.

    With several candidates in flight this is not the order of their numbers.
    """
    return sorted(experiments, key=lambda e: (bool(e.number) and e.verdict is None, e.order))


@dataclass(frozen=True)
class Diagnosis(Plain):
    """What the incumbent printed when it was trained once with edits that only print.

    Attributes:
        experiment: Number of the incumbent.
        question: What the author of the edits wants to know.
        printed: What it printed: data, never instructions.
        outcome: How the training ended.
        reason: Why it did not end well; empty if it did.
    """

    experiment: int
    question: str
    printed: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Draft:
    """A proposal that was made before its turn.

    Attributes:
        id: Number among the drafts of a search.
        parent: The incumbent commit it was made for; the incumbent may have changed by its turn.
        proposal: The proposal.
        started: When its author was asked, Unix time in seconds.
        created: When it was ready, Unix time in seconds.
    """

    id: int
    parent: str
    proposal: Proposal
    started: float
    created: float


@dataclass(frozen=True)
class Progress:
    """The progress of a running trial.

    Attributes:
        fraction: Share of the budget used, in [0, 1].
        seconds: Since the clock started.
        step: Optimizer steps done.
        loss: Latest training loss in nats per token.
        tokens: Training tokens drawn.
        phase: "start-up", "train", "score", or `WAITING`.
        note: Why it waits, if it does.
    """

    fraction: float
    seconds: float
    step: int = 0
    loss: float | None = None
    tokens: int = 0
    phase: str = "train"
    note: str = ""
