"""Carries out the roles of a brief: a scout before the proposer is asked, a critic after it has answered.

Each is one more question to a model, in a prompt that differs from the proposer's in its last words only, so
that a provider's cache holds for all of them. The scout's answer goes to the proposer as data. The critic is
shown the proposal, and its reasons go back to the proposer once; what the proposer answers then is taken as
it is. A role that fails changes nothing: the proposal is made without it. Its calls are recorded, paid and
capped like any other, as `PROPOSER:MODEL:ROLE`.

Not covered: the files of a brief (`config.roles`), the conversation with the proposer (`conversation`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.config.roles import Role, split
from autoresearch.errors import UserError
from autoresearch.propose.budget import price_table
from autoresearch.text import escape_tags, quoted
from autoresearch.types import Proposal

SCOUT, CRITIC = "scout", "critic"
MOST = 6000
"""Characters of a role's answer that are passed on."""

_ASK = {
    SCOUT: "You are not asked for a proposal now. You are the scout: who proposes reads your answer next. "
    "Answer in words, without calling a tool: at most five ideas, the best first, each in a sentence or two.",
    CRITIC: "You are not asked for a proposal now. You are the critic of the proposal below, which another "
    "model made and nothing has measured yet. Answer in words, without calling a tool. The first line is "
    "ACCEPT or REVISE. Say REVISE only for what its author can mend: an error, a repetition of what the "
    "ledger shows to fail, a better way to test the same idea. Below it give your reasons, in short.",
}
_VERDICT = re.compile(r"\W*(ACCEPT|REVISE)\b[\s:*.]*", re.IGNORECASE)


def ask_of(role: Role, proposals: Sequence[Proposal] = ()) -> str:
    """The last words of the prompt of a role.

    Args:
        role: Its instructions come from the person who wrote the brief.
        proposals: For a critic: what it is to judge.
    """
    told = f"# Your part\n{_ASK[role.name]}\n<brief>\n{escape_tags(role.words)}\n</brief>"
    return "\n\n".join([told, *(f"# The proposal\n{quoted(_shown(p))}" for p in proposals)])


def _shown(proposal: Proposal) -> str:
    lines = [f"hypothesis: {proposal.hypothesis}", f"mechanism: {proposal.mechanism}"]
    for edit in proposal.edits:
        lines += [f"in {edit.path}, instead of:", edit.search or "(the whole file)", "now:", edit.replace]
    return "\n".join(lines)


def objections(answer: str) -> str:
    """The reasons of a critic; empty if it accepts, or does not say what it wants."""
    found = _VERDICT.match(answer)
    if found is None or found[1].upper() == "ACCEPT":
        return ""
    return answer[found.end() :].strip()[:MOST]


def check_roles(brief: str, proposer: Mapping[str, Any]) -> None:
    """Check that a proposer can carry out the roles of a brief, before a search begins.

    Args:
        brief: Its text.
        proposer: The configuration group of that name.

    Raises:
        UserError: If a role does not exist, or the price of its model is not known.
    """
    for role in split(brief)[1].values():
        if role.model and "prices" in proposer:
            try:
                free = proposer["name"] == "openai" and proposer.get("max_dollars") is None
                price_table(proposer["prices"], [role.model], free=free)
            except UserError as error:
                raise UserError(f"The {role.name} of the brief: {error}.", error.hint) from None
