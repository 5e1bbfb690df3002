from pathlib import Path

import pytest

from autoresearch.errors import Refused, UserError
from autoresearch.swarm.chain.signers import Signers
from tests.support.swarm import identity


@pytest.fixture
def key(tmp_path: Path) -> str:
    return identity(tmp_path, "ada").public_key


def read(tmp_path: Path, text: str) -> Signers:
    path = tmp_path / "signers"
    path.write_text(text)
    return Signers.read(path)


def test_lines_are_read_as_ssh_keygen_reads_them(tmp_path: Path, key: str) -> None:
    signers = read(
        tmp_path,
        f"# people\n\nada@example.org,*@lab.example {key} a comment\n"
        f'bob namespaces="git,autoresearch-*",valid-before="20300101Z" {key}\n'
        f"eve valid-after=20260101120000Z,valid-before=20260102Z {key}\n",
    )
    ada, bob, eve = signers.lines
    assert ada.principals == ("ada@example.org", "*@lab.example") and ada.key == key and not ada.namespaces
    assert bob.namespaces == ("git", "autoresearch-*") and bob.before == 1893456000.0
    assert (eve.after, eve.before) == (1767268800.0, 1767312000.0)


def test_who_is_not_in_the_file_may_have_any_key(tmp_path: Path, key: str) -> None:
    signers = read(tmp_path, f"ada@example.org {key}\n")
    signers.check("Nobody", identity(tmp_path, "other").public_key, "git", 0.0)
    signers.check("Ada <ada@example.org>", key, "git", 0.0)
    for author, other in (("Ada <bob@example.org>", key), ("ada@example.org <x@y>", key)):
        with pytest.raises(Refused, match="belongs to"):
            signers.check(author, other, "git", 0.0)
    with pytest.raises(Refused, match="another key"):
        signers.check("Eve <ada@example.org>", identity(tmp_path, "other").public_key, "git", 0.0)


@pytest.mark.parametrize(
    "line",
    [
        "ada",
        "ada ssh-ed25519",
        "ada ssh-ed25519 AAAA",
        "!a,b KEY",
        "ada cert-authority KEY",
        "ada valid-before=soon KEY",
        "a b KEY c=d",
    ],
)
def test_a_line_that_is_not_understood_is_told(tmp_path: Path, key: str, line: str) -> None:
    with pytest.raises(UserError):
        read(tmp_path, line.replace("KEY", key))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Signers.read(tmp_path / "none")
