"""A scripted model whose proposals are as good as the brief, for every test of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import briefs


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[briefs.Researcher]:
    with briefs.researcher(monkeypatch, tmp_path / "site") as made:
        yield made
