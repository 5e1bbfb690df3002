"""Lets any coding agent with a command line change the script, in a temporary folder.

The folder holds a copy of the task with the incumbent's script, in a new git repository (agents often expect
one, and must not commit to the user's), and `PROMPT.md`, which holds the same prompt as other models get. The
agent's changes of the editable files are the proposal; `HYPOTHESIS.md`, or else the last line of its output,
gives the hypothesis. A change of another file of the task is refused: half of a change would be tried under
the hypothesis of the whole.

Invariants: nothing else that the agent does counts. When `ask` returns, none of its processes is left and the
folder is removed. The agent sees only the environment variables that the configuration names, so it sees our
keys only if they are named. A run that fails or reaches the time limit gives no proposal.

Not covered: protection from the agent. It is the user's own tool and runs with the user's rights.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, InstanceOf, validate_call

from autoresearch.clock import now
from autoresearch.config.roles import for_proposer
from autoresearch.edit.patch import edits_between
from autoresearch.errors import Refused, UserError
from autoresearch.propose.agent_folder import changed_files, make_folder, read_hypothesis, read_text
from autoresearch.propose.base import Check, Context, Proposer, ProposerError, SearchServices
from autoresearch.propose.budget import Budget, Caps, unbilled_before
from autoresearch.propose.llm import prompt
from autoresearch.propose.llm.answer import TOOL_NAME, Answered, accept, as_utf8
from autoresearch.propose.llm.conversation import conversation_name
from autoresearch.propose.llm.request import MIN_HISTORY_TOKENS, NO_ANSWER
from autoresearch.store.files import remove_tree
from autoresearch.text import MIN_SECRET, is_secret
from autoresearch.types import Call, Cost, Proposal

PROMPT, HYPOTHESIS = "PROMPT.md", "HYPOTHESIS.md"

TASK = f"Read {PROMPT} in this folder and do what it asks."

AGAIN = f"""\
# Your last change was not accepted
Why stands at the end of this file. Your files are as you left them: mend this, write {HYPOTHESIS} again, and
end. What follows first is what you were asked for.

"""

MAX_OUTPUT = 20_000
"""Characters of the end of an agent's output that are read."""


class Failed(Exception):
    """The agent failed; the message says how."""


class CommandProposer(Proposer):
    """Lets a coding agent change the script.

    Args:
        argv: The command. In each word `{task}` stands for a sentence that points to the prompt, `{prompt}`
            for the path of the file with the prompt, `{folder}` for the agent's folder.
        environment: Names of the environment variables that it gets.
        timeout: Seconds for one run.
        repairs: How often it runs again after its change is refused.
        ledger_tokens: Budget of the history in the prompt, in tokens.
        max_calls: Largest number of runs in a search; None: no limit.
        services: What the search lends: a folder to work in, the task's files, and a way to run programs.

    Raises:
        UserError: If there is no such program.
    """

    name = "command"
    reads_ideas = True

    @validate_call(config=ConfigDict(arbitrary_types_allowed=True))
    def __init__(
        self,
        *,
        argv: Annotated[list[str], Field(min_length=1)],
        environment: list[str],
        timeout: Annotated[float, Field(gt=0)],
        repairs: Annotated[int, Field(ge=0, le=100)],
        ledger_tokens: Annotated[int, Field(ge=MIN_HISTORY_TOKENS)],
        max_calls: Annotated[int, Field(gt=0)] | None,
        services: InstanceOf[SearchServices],
    ) -> None:
        self._env = {name: os.environ[name] for name in environment if name in os.environ}
        if not shutil.which(argv[0], path=self._env.get("PATH")):
            raise UserError(
                f"there is no program {argv[0]!r} on the PATH",
                "install it, or name another: 'proposer.argv=[program,\"{task}\"]'",
            )
        self._argv = argv
        self._timeout = timeout
        self._repairs = repairs
        self._history_tokens = ledger_tokens
        self._prompts = prompt.Writer()
        self._services = services
        self._folder = services.folder.absolute()
        self._frozen: dict[str, str] = {}
        program = Path(argv[0]).name
        self._author = f"{self.name}:{program}"
        unbilled = unbilled_before(self.name, [program], services)
        self._budget = Budget(self.name, Caps(None, None, max_calls), unbilled)

    @property
    def unbilled(self) -> Mapping[str, Cost]:
        """See `autoresearch.propose.base.Proposer`."""
        return self._budget.unbilled

    @classmethod
    def followed(cls, brief: str) -> str:
        """All but the roles that only a language model carries out."""
        return for_proposer(brief)

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """One proposal; see `autoresearch.propose.base.Proposer`."""
        self._budget.read(context.paid)
        conversation = conversation_name(context)
        asked = self._prompts.build(context, self._history_tokens, prompt.FILES).text
        reason = ""
        try:
            self._frozen = make_folder(self._folder, self._services.export, context.sources, self._author)
            for _ in range(self._repairs + 1):
                try:
                    proposal = self._attempt(context, asked, reason, conversation, check)
                except (Refused, Failed) as error:
                    reason = str(error).replace("the tool call", HYPOTHESIS)
                else:
                    return [self._budget.bill(proposal, conversation)]
        finally:
            remove_tree(self._folder)
        tries = self._repairs + 1
        raise ProposerError(f"{self._author}: nothing usable in {tries} runs; the last: {reason}", retry=True)

    def _attempt(
        self, context: Context, asked: str, reason: str, conversation: str, check: Check
    ) -> Proposal:
        """Run the agent once; returns its answer."""
        words = f"{AGAIN}{asked}\n# Why your last change was not accepted\n{reason}\n" if reason else asked
        self._write_prompt(words)
        started, problem, output, cost = now(), "", "", Cost(calls=1)
        with self._budget.allow(cost, self._author) as payment:
            self._services.record(Call(conversation, self._author, started, words, "", NO_ANSWER, cost))
            try:
                output = self._run()
                return accept(self._result(context, output), self._author, context, check)[0]
            except Exception as error:
                problem = str(error)
                raise
            finally:
                payment.cost = replace(cost, seconds=now() - started)
                call = Call(conversation, self._author, started, words, output, problem, payment.cost)
                self._services.record(call)

    def _write_prompt(self, words: str) -> None:
        """Put the prompt where the agent finds it.

        Raises:
            Failed: If the agent left its folder in a state that prevents it.
        """
        try:
            (self._folder / "task" / PROMPT).write_text(words, encoding="utf-8")
            (self._folder / "task" / HYPOTHESIS).unlink(missing_ok=True)
        except OSError as error:
            raise Failed(f"it left a folder that cannot be used any more ({error.strerror})") from None

    def _run(self) -> str:
        """Run the command; returns the end of its output if it ends well."""
        place, log = self._folder / "task", self._folder / "output.txt"
        values = {"{task}": TASK, "{prompt}": str(place / PROMPT), "{folder}": str(place)}
        argv = [_filled(word, values) for word in self._argv]
        try:
            status = self._services.run_program(
                argv, folder=place, env=self._env, output=log, timeout=self._timeout
            )
        except OSError as error:
            raise Failed(f"it cannot be started ({error.strerror})") from None
        output = self._tail(log)
        if status is None:
            raise Failed(f"it was not done within {self._timeout:g} s")
        if status != 0:
            raise Failed(f"it ended with status {status}: {_last_line(output)}")
        return output

    def _result(self, context: Context, output: str) -> Answered:
        """The agent's files, as an answer."""
        place = self._folder / "task"
        if changed := changed_files(place, self._frozen):
            raise Refused(
                f"{', '.join(changed)} cannot be changed, and you have; put it back, and change only "
                f"{' or '.join(sorted(context.sources))}"
            )
        new = {path: read_text(place / path, path) for path in context.sources}
        edits = edits_between(context.sources, new)
        try:
            stated = read_text(place / HYPOTHESIS, HYPOTHESIS)
        except Refused:
            stated = _last_line(output)
        answer = read_hypothesis(stated, edits)
        if not edits and not answer.get("tune"):
            said = f" Your last words: {last}" if (last := _last_line(output)) else ""
            raise Refused(f"the script is as it was; change {' or '.join(sorted(context.sources))}.{said}")
        return Answered(TOOL_NAME, answer)

    def _tail(self, log: Path) -> str:
        """The end of the output, without the secrets that were passed on."""
        try:
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - MAX_OUTPUT))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        for name, value in self._env.items():
            if is_secret(name, value) and len(value) >= MIN_SECRET:
                text = text.replace(value, "***")
        return as_utf8(text)


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
