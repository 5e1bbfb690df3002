"""What proposers say: proposals with edits or knob values, what they cost, and candidates made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autoresearch.types.choices import Category
from autoresearch.types.plain import Knob, Plain


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
        instruction: The instruction of the brief that it follows, in the brief's words; empty if its author
            names none.
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
    instruction: str = ""


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
