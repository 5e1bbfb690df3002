import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.errors import Refused, UserError
from autoresearch.swarm.identity import Identity, canonical_key, fingerprint, verify
from tests.support.swarm import identity

SPACE = "autoresearch-contribution"


def keygen(*arguments: object, data: bytes = b"") -> str:
    done = subprocess.run(["ssh-keygen", *map(str, arguments)], input=data, capture_output=True, check=True)
    return done.stdout.decode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


def test_what_a_key_signed_is_accepted_and_nothing_else(keys: Path) -> None:
    ada, bob = identity(keys, "ada"), identity(keys, "bob")
    signature = ada.sign(b"data", SPACE)
    verify(b"data", signature, ada.public_key, SPACE)
    for data, text, key, space in (
        (b"dato", signature, ada.public_key, SPACE),
        (b"data", signature, bob.public_key, SPACE),
        (b"data", signature, ada.public_key, "git"),
        (b"data", bob.sign(b"data", SPACE), ada.public_key, SPACE),
        (b"data", "", ada.public_key, SPACE),
        (b"data", signature * 100, ada.public_key, SPACE),
        (b"data", signature.replace("U1NIU0lH", "U1NIU0lI"), ada.public_key, SPACE),
        (b"data", signature, ada.public_key + " comment", SPACE),
        (b"data", signature, "ssh-ed25519 AAAA", SPACE),
        (b"data", signature, "ssh-dss " + ada.public_key.split()[1], SPACE),
        (b"data", signature, "", SPACE),
    ):
        with pytest.raises(Refused):
            verify(data, text, key, space)


@given(at=st.integers(0, 10_000), to=st.characters(codec="ascii"))
def test_no_changed_signature_is_accepted_for_other_data(keys: Path, at: int, to: str) -> None:
    ada = identity(keys, "ada")
    text = ada.sign(b"data", SPACE)
    at %= len(text)
    changed = text[:at] + to + text[at + 1 :]
    with pytest.raises(Refused):
        verify(b"other", changed, ada.public_key, SPACE)


@given(st.binary(max_size=200), st.text(max_size=300))
def test_garbage_is_refused_with_a_reason(keys: Path, data: bytes, text: str) -> None:
    ada = identity(keys, "ada")
    with pytest.raises(Refused):
        verify(data, text, ada.public_key, SPACE)
    with pytest.raises(Refused):
        verify(data, ada.sign(data, SPACE), text, SPACE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [("ed25519",), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048")]
)
def test_signatures_of_ssh_keygen_are_read_and_ours_are_read_by_it(
    tmp_path: Path, kind: tuple[str, ...]
) -> None:
    path = tmp_path / "key"
    bits = ["-b", kind[1]] if kind[1:] else []
    keygen("-q", "-t", kind[0], *bits, "-N", "", "-C", "a comment", "-f", path)
    made = Identity(path)
    public = path.with_suffix(".pub").read_text()
    assert made.public_key == canonical_key(public) == " ".join(public.split()[:2])
    assert made.fingerprint == fingerprint(made.public_key) == keygen("-l", "-f", path).split()[1]
    theirs = keygen("-Y", "sign", "-f", path, "-n", SPACE, data=b"data")
    verify(b"data", theirs, made.public_key, SPACE)
    with pytest.raises(Refused):
        verify(b"dato", theirs, made.public_key, SPACE)
    (tmp_path / "signature").write_text(made.sign(b"data", SPACE))
    (tmp_path / "signers").write_text(f"ada {made.public_key}\n")
    keygen(
        "-Y",
        "verify",
        "-f",
        tmp_path / "signers",
        "-I",
        "ada",
        "-n",
        SPACE,
        "-s",
        tmp_path / "signature",
        data=b"data",
    )


@pytest.mark.slow
def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    made = Identity.make(path)
    assert Identity.make(path).public_key == made.public_key
    assert path.stat().st_mode & 0o077 == 0
    verify(b"x", made.sign(b"x", SPACE), made.public_key, SPACE)


@pytest.mark.slow
def test_a_key_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Identity(tmp_path / "none")
    (tmp_path / "text").write_text("no key")
    with pytest.raises(UserError, match="no SSH key"):
        Identity(tmp_path / "text")
    keygen("-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", tmp_path / "short")
    with pytest.raises(UserError, match="2048"):
        Identity(tmp_path / "short")
    keygen("-q", "-t", "ed25519", "-N", "secret words", "-f", tmp_path / "locked")
    locked = Identity(tmp_path / "locked")
    with pytest.raises(UserError, match="ssh-keygen failed"):
        locked.sign(b"data", SPACE)
