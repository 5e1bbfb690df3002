"""The proposer seam: what a proposer does, what it may know, and what the search lends it.

To add a proposer, write one file::

    class MyProposer(Proposer):
        name = "mine"
        instant = True

        def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
            edit = Edit("train.py", "LR = 0.02", "LR = 0.03")
            return [Proposal("A larger LR learns faster.", Category.OPTIMIZER, (edit,), self.name)]

and register it under the entry point group "autoresearch.proposers" (see `autoresearch.registry`). The
options of its constructor are the settings of `proposer=mine`. A constructor with a parameter `services` gets
what the search lends (`SearchServices`); one with a parameter `column` gets the index of the active argument
of `at(cpu, gpu)`. `autoresearch.testing.proposers` tests that a proposer keeps the contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from pydantic import ConfigDict

from autoresearch.errors import Refused, UserError
from autoresearch.judge import AskBars, Bars, unknown_bars
from autoresearch.tasks.base import Limit, PromptText
from autoresearch.text import one_line
from autoresearch.types import Call, Cost, Diagnosis, Experiment, Idea, Metric, Proposal


@dataclass(frozen=True)
class Context:
    """Everything that a proposer may know when it is asked for the next proposal.

    Attributes:
        search: Name of the search.
        brief: The Markdown that steers the research.
        sources: The incumbent's editable files: path -> text.
        baseline_sources: The same files as they were when the search began. Search spaces are derived
            from these, so that they stay fixed while the incumbent moves.
        history: Every judged experiment, oldest first; the first one is the baseline.
        incumbent_score: Current estimate of the incumbent's score.
        noise: Standard deviation of the score over seeds.
        facts: Numbers from the incumbent's trials: steps, peak_memory_mb, ...
        notes: A person's notes to the proposer, written while the search ran.
        ideas: People's ideas that no proposal tests yet.
        seed: Seed of the search; proposers that use randomness derive theirs from it.
        under_way: Experiments without a verdict yet, oldest first. A proposal that is made ahead must not
            repeat them.
        ask_bars: Computes `bars`.
        memory_mb: Memory of the device that a candidate may use; None if not known.
        about: What the task says of data, scale and interfaces, the same in all of the search.
        limits: What a candidate may not use more of; `facts` says what the incumbent uses.
        experiments_left: Experiments that may follow the one that is asked for; None if not known.
        request: What is asked for this time, as a sentence; empty: anything.
        without_history: Whether a model is not to be told what was tried, as a control.
        diagnoses: What the incumbents printed when they were trained with edits that only print.
        diagnoses_left: How often that may still be asked for.
        column: Which argument of `at(cpu, gpu)` counts here: 0 for CPU, 1 for GPU.
        seconds_left: Seconds until nothing more is asked for; None if there is no such limit.
        advice: What a scout suggests for this proposal, if the brief has one; see `propose.llm.roles`.
        beside: How many other questions are under way, whose answers nobody knows yet.
        task: What the task says about itself to a language model.
        metric: What `incumbent_score` is measured in, and which direction is better.
    """

    search: str
    brief: str
    sources: Mapping[str, str]
    baseline_sources: Mapping[str, str]
    history: tuple[Experiment, ...]
    incumbent_score: float
    noise: float
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ideas: tuple[Idea, ...] = ()
    seed: int = 0
    under_way: tuple[Experiment, ...] = ()
    ask_bars: AskBars = field(default=unknown_bars, compare=False)
    memory_mb: float | None = None
    about: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    experiments_left: int | None = None
    seconds_left: float | None = None
    request: str = ""
    without_history: bool = False
    diagnoses: tuple[Diagnosis, ...] = ()
    diagnoses_left: int = 0
    column: int = 0
    beside: int = 0
    advice: str = ""
    task: PromptText = field(kw_only=True)
    metric: Metric = field(kw_only=True)

    @property
    def bars(self) -> Bars | None:
        """What a gain must be to be kept; None if not known. It takes a while when it is first asked for."""
        return self.ask_bars()

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """Every proposal that was tried, or will be."""
        return tuple(e.proposal for e in (*self.history, *self.under_way) if e.proposal is not None)

    @property
    def paid(self) -> tuple[Proposal, ...]:
        """Every proposal that this search has paid for, tried or not."""
        known = (*self.history, *self.under_way)
        return tuple(p for e in known for p in (e.proposal, *e.dropped) if p is not None)


Check = Callable[[Proposal], None]
"""A function that tells a proposer whether the search would accept a proposal. If not, it raises `Refused`
with the reason, and the nearest text if a search block was not found."""


class ProposerError(Exception):
    """The proposer has no proposal.

    Attributes:
        retry: Whether asking again later may help (an outage), or never (a bad key, an empty queue).
        exhausted: Whether nothing is left to propose, so that the search is done. A bad key is no such end: a
            person can mend it, and go on.
    """

    def __init__(self, message: str, retry: bool = False, exhausted: bool = True) -> None:
        super().__init__(message)
        self.retry = retry
        self.exhausted = exhausted


class Defect(ProposerError):
    """The proposer has failed in a way that it does not know; asking again may help, but not often."""

    def __init__(self, name: str, error: Exception) -> None:
        what = one_line(f"{type(error).__name__}: {error}", 300)
        super().__init__(f"{name} failed unexpectedly ({what})", retry=True, exhausted=False)


class Proposer(ABC):
    """Suggests the next change. It owns its randomness and its conversations, never the files.

    `Context.history` is enough to rebuild its state, so that a killed search continues.

    Attributes:
        name: As in `proposer=NAME`; proposals name it too.
        instant: Whether it answers at once. If so, the search asks it at the last moment, when it knows most.
            If not, the search asks it ahead, while other experiments run.
        reads_ideas: Whether it reads people's ideas in words.
        questions: How many questions it can answer at the same time, in threads of their own. Several are
            asked when more places are free than one answer can fill.
    """

    name: str
    instant: bool = False
    reads_ideas: bool = False
    questions: int = 1

    @property
    def unbilled(self) -> Mapping[str, Cost]:
        """Cost of calls that led to no proposal so far, by proposer and model; empty if there is none."""
        return {}

    @classmethod
    def followed(cls, brief: str) -> str:
        """What of a brief its proposals can depend on; two briefs of which that is equal are one to it."""
        return brief

    @abstractmethod
    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        """Suggest what to try next.

        Args:
            context: Everything that the proposer may know.
            check: Tests a proposal; repair a proposal that it refuses.
            n: Largest number of proposals.

        Returns:
            At least one proposal and at most `n`, each with its own cost.

        Raises:
            ProposerError: If it has no proposal. It raises nothing else.
        """

    def tell(self, experiment: Experiment) -> None:  # noqa: B027 (most proposers need not hear it)
        """Learn the verdict of an experiment of any proposer; `Context.history` holds it too."""


class Nobody(Proposer):
    """Stands for a proposer that nobody will ask, as in a claim; it needs no key, and proposes nothing.

    Args:
        name: Of the proposer that it stands for.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        """Raises that it proposes nothing."""
        raise ProposerError("nothing is proposed here")


def asked(proposer: Proposer, context: Context, check: Check, n: int = 1) -> list[Proposal]:
    """Ask a proposer; whatever goes wrong in it is a `ProposerError`.

    Args:
        proposer: The proposer.
        context: See `Proposer.ask`.
        check: See `Proposer.ask`.
        n: See `Proposer.ask`.

    Raises:
        ProposerError: If it has no proposal; a `Defect` if it raises something else, or gives what is none.
        Refused: If the check refuses a proposal, and the proposer does not mend it.
        UserError: If the check ends the search.
    """
    try:
        found = [Proposal.from_dict(proposal.to_dict()) for proposal in proposer.ask(context, check, n)]
    except (ProposerError, Refused, UserError):
        raise
    except Exception as error:
        raise Defect(proposer.name, error) from error
    if not found:
        raise Defect(proposer.name, ValueError("it gave no proposal"))
    return found


def up_to(n: int, propose: Callable[[], Proposal]) -> list[Proposal]:
    """At least one proposal and at most `n`, for proposers that make one at a time, at once.

    Raises:
        ProposerError: If there is not even one.
    """
    found = [propose()]
    while len(found) < n:
        try:
            found.append(propose())
        except ProposerError:
            break
    return found


@runtime_checkable
class Inbox(Protocol):
    """The inbox with people's ideas; see `autoresearch.store.inbox`."""

    def ideas(self) -> tuple[Idea, ...]:
        """The ideas that are open, oldest first."""

    def reopen(self, tested: Collection[int]) -> None:
        """Open taken ideas again, except these."""

    def take(self, number: int) -> None:
        """A proposal tests this idea."""

    def refuse(self, number: int, reason: str) -> None:
        """This idea cannot be tested."""


@runtime_checkable
class RunProgram(Protocol):
    """Runs a program and kills all of its processes; see `autoresearch.execute.sandbox.plain`."""

    def __call__(
        self, argv: list[str], *, folder: Path, env: Mapping[str, str], output: Path, timeout: float
    ) -> int | None:
        """The exit status, or None if time was up."""


def _nothing(name: str) -> Cost:
    return Cost()


def _ignore(*said: object) -> None:
    pass


@dataclass(frozen=True)
class SearchServices:
    """What a search lends to its proposers.

    Attributes:
        folder: A folder where an agent may work; a proposer may empty it.
        export: Writes the task's files into a folder.
        run_program: Runs programs.
        inbox: The inbox with people's ideas; None if there is no inbox.
        record: Records a call of a language model. The same conversation, model and time mean the same call.
            It must not raise.
        unbilled: The earlier cost of a proposer, or of one of its models ("anthropic:claude-sonnet-5-5"),
            beyond the cost of its proposals.
        say: Tells a person something.
        refused: Records that a proposal was refused for good, and why; it counts among what was given up.
    """

    __pydantic_config__ = ConfigDict(
        arbitrary_types_allowed=True
    )  # constructors may validate their arguments

    folder: Path
    export: Callable[[Path], None]
    run_program: RunProgram
    inbox: Inbox | None = None
    record: Callable[[Call], None] = _ignore
    unbilled: Callable[[str], Cost] = _nothing
    say: Callable[[str], None] = _ignore
    refused: Callable[[Proposal, str], None] = _ignore
