"""A recorded list of proposals, in order: for tests, and to compare judges or budgets on the same ideas.

The file has one JSON object a line, as `Proposal.to_dict` writes it; only hypothesis, category and edits
are needed. Invariant: every line is proposed at most once in a search, however often the search is restarted;
what the search has is recognised by hypothesis and edits. A line that `check` refuses is passed over.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from pydantic import validate_call

from autoresearch.errors import Refused, UserError
from autoresearch.propose.base import BaseProposer, Check, Context, ProposerError, up_to
from autoresearch.types import Proposal


class ReplayProposer(BaseProposer):
    """Proposes what a file says.

    Args:
        path: Of the file; JSON lines.

    Raises:
        UserError: If the file cannot be read, or a line is no proposal.
    """

    name = "replay"
    instant = True

    @validate_call
    def __init__(self, *, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read the recorded proposals in {path}: {error}", "check proposer.path"
            ) from None
        self._path = path
        self._recorded = [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        self._handed: list[Proposal] = []

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        return up_to(n, lambda: self._next(context, check))

    def _next(self, context: Context, check: Check) -> Proposal:
        """The first that the search does not have."""
        done = Counter(map(_key, context.proposals)) | Counter(map(_key, self._handed))
        for proposal in self._recorded:
            if done[_key(proposal)] > 0:
                done[_key(proposal)] -= 1
                continue
            try:
                check(proposal)
            except Refused:
                continue
            self._handed.append(proposal)
            return proposal
        raise ProposerError(f"the {len(self._recorded)} recorded proposals in {self._path.name} are used up")


def _parse(path: Path, number: int, line: str) -> Proposal:
    try:
        recorded = {"proposer": ReplayProposer.name, **json.loads(line)}
        # Ideas and conversations were those of the search that it was recorded in.
        return Proposal.from_dict({**recorded, "idea": None, "conversation": ""})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}, line {number} is not a proposal: {error}",
            "each line needs hypothesis, category and edits (a list of path, search, replace)",
        ) from None


def _key(proposal: Proposal) -> tuple[object, ...]:
    return proposal.hypothesis, proposal.edits
