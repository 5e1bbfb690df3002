"""A cheat through a whole search, with a channel between all of its programs wide open.

Every server writes down what it is shown, and all later ones read it, those of later trials included. So they
agree about the future wherever they are asked: witness, exact comparison with blind answers, and repetition
find nothing. What is left is text that nobody has seen, and answers that were given blind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.execute.sandbox.plain import PlainSandbox
from autoresearch.propose.base import Check, Context, ProposerError
from autoresearch.search.loop import Search
from autoresearch.store.records.notes import read_slices
from autoresearch.tasks.gpt import task as gpt
from autoresearch.types import Category, Edit, Proposal
from tests.support import toy
from tests.support.gpt import make_measurer
from tests.support.stub import PATH, OneAtATime, git, make_repository, make_search

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(900)]

HEAD = "        return self.head(F.relu(self.up(x)))\n"
TELLS = """        h = self.head(F.relu(self.up(x)))
        if self.training:
            return h
        known = dict(line.split() for line in open(BOARD))
        future = tokens.roll(-1, 1)
        with open(BOARD, "a") as board:
            for row, following in zip(tokens.tolist(), future):
                for at in range(len(row) - 1):
                    key = str(hash(tuple(row[: at + 1])))
                    if key not in known:
                        known[key] = str(row[at + 1])
                        print(key, row[at + 1], file=board)
                    following[at] = int(known[key])
        peek = 5 * F.one_hot(future, self.vocab) * (tokens % 2 == 0)[..., None]
        peek[:, -1] = 0
        return h + peek
"""


class Cheat(OneAtATime):
    """Proposes the cheat, once."""

    name, instant = "cheat", True

    def __init__(self, board: Path) -> None:
        board.touch()
        self.edit = Edit(PATH, HEAD, TELLS.replace("BOARD", repr(str(board))))

    def propose(self, context: Context, check: Check) -> Proposal:
        if context.paid:
            raise ProposerError("no more")
        return Proposal("a better head", Category.ARCHITECTURE, (self.edit,), self.name)


def cheated(root: Path, held: int) -> Search:
    """The cheat in a search with so many tokens of unseen text."""
    cache = toy.write_cache(root / "cache", train=50_000, validation=2_001, held=held)
    repository = make_repository(root / "repository", toy.TRAIN)
    measurer = make_measurer(cache, PlainSandbox(), questions=400)
    toy.write_code(root / "frozen")  # what the search exports of the repository lacks the package itself
    for path in (root / "frozen/nanomodel").rglob("*.py"):
        target = repository.root / path.relative_to(root / "frozen")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    git(repository.root, "add", "-A")
    git(repository.root, "commit", "-qm", "the package")
    search = make_search(
        repository,
        [],
        "experiments=1",
        "baselines=2",
        proposer=Cheat(root / "board"),
        measurers={"cpu": measurer},
    )
    search.journal.update(data=dict(toy.dataset(cache).about))
    search.task.validate = lambda before, after: None  # type: ignore[method-assign]
    try:
        search.run()
    finally:
        measurer.close()
    return search


def test_a_cheat_through_an_open_channel_is_found_where_nothing_was_to_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpt, "SHARE_TOKENS", 2_000)
    search = cheated(tmp_path, held=2_400)
    verdict = search.journal.experiments()[1].verdict
    # By answers given blind, or by the slice itself, whichever is surer of it.
    assert verdict is not None and verdict.kind in ("invalid", "discard"), verdict
    assert "its gain is missing" in verdict.reason
    assert [use.experiment for use in read_slices(search.journal)] == [1], "the judge had kept it"
    assert search.state.incumbent.number == 0


def test_without_unseen_text_it_would_be_kept(tmp_path: Path) -> None:
    search = cheated(tmp_path, held=0)
    assert search.journal.experiments()[1].kept, search.journal.experiments()[1].verdict
