"""Searches of the stub task that ask a scripted model for proposals: the real proposer over real HTTP."""

from __future__ import annotations

from typing import Any

from autoresearch.propose import create_proposer, settings
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from tests.support import messages_server as api
from tests.support.services import make_services
from tests.support.stub import PATH, make_search


def make_asking_search(repository: Repository, url: str, *overrides: str, **options: Any) -> Search:
    """A search whose proposer, with these options, asks the server at `url`; `told` is what it has said."""
    folder = repository.root / "runs" / "x"
    folder.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    values = settings("anthropic") | {"base_url": url, "retries": 0, "fallback": None} | options
    proposer = create_proposer("anthropic", column=0, services=make_services(folder, said), **values)
    made = make_search(repository, [], *overrides, proposer=proposer, inbox=Inbox(folder))
    made.told = said  # type: ignore[attr-defined]
    return made


def useless(number: int) -> Any:
    """A proposal that changes nothing that counts, unlike that of any other number."""
    words = f"{'abcdefghij'[number % 10] * 9} {number}"
    edit = ("OTHER = 0", f"OTHER = {100 + number}", PATH)
    return api.proposal(*edit, hypothesis=words, difference="Another number.")
