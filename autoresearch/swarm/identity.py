"""Signs and checks bytes with a person's SSH key, in the format of `ssh-keygen -Y sign` and of git.

A signature counts for one namespace only, so one that was made for git, or for a log, is none of a
contribution. A key without a passphrase signs in this process; another by `ssh-keygen`, which asks the SSH
agent. Checking takes a fraction of a millisecond and starts no process. Not covered: whose key it is
(`chain`), hardware keys, and certificates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.errors import Refused, UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

MAGIC = b"SSHSIG"
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}

MAX_SIGNATURE, MAX_KEY = 8_000, 3_000
"""Most characters of a signature and of a public key: room for RSA with 8192 bits."""

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
"""Shorter keys can be broken; longer ones would take long to check."""


class Identity:
    """A private key that signs.

    Attributes:
        path: Where it lies.
        public_key: Type and key in base64, as in a file `.pub`, without the comment.
    """

    def __init__(self, path: Path) -> None:
        """Open a private key of OpenSSH's format.

        Raises:
            UserError: If it cannot be read, or is of a kind that is not supported.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

        self.path, self._key = path, None
        public = path.with_name(f"{path.name}.pub")
        try:
            self._key = load_ssh_private_key(path.read_bytes(), None)
            raw = self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            self.public_key = raw.decode()
            _load(self.public_key)
        except OSError as error:
            raise UserError(
                f"The SSH key {path} cannot be read: {error.strerror}.", "Make one: ssh-keygen -t ed25519"
            ) from None
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:  # a passphrase, or PEM of another kind
            if not public.exists():
                raise UserError(f"{path} is no SSH key that can sign: {error}.", _hint()) from None
            self.public_key = canonical_key(public.read_text(encoding="utf-8", errors="replace"))
        except Refused as error:
            raise UserError(f"The SSH key {path} cannot be used: {error}.", _hint()) from None

    @classmethod
    def make(cls, path: Path) -> Identity:
        """Open the key at a path; one is made there if there is none. Only the user can read it."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "autoresearch", "-f", str(path)]
            _ssh_keygen(command, b"")
        return cls(path)

    @property
    def fingerprint(self) -> str:
        """How people name the key."""
        return fingerprint(self.public_key)

    def sign(self, data: bytes, namespace: str) -> str:
        """The signature of some bytes for a namespace, as armored text.

        Raises:
            UserError: If the key is locked.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if not isinstance(self._key, Ed25519PrivateKey):
            return _ssh_keygen(["ssh-keygen", "-Y", "sign", "-f", str(self.path), "-n", namespace], data)
        made = self._key.sign(_signed(data, namespace.encode(), b"sha512"))
        parts = (_blob(self.public_key), namespace.encode(), b"", b"sha512")
        packed = b"".join(map(_string, (*parts, _string(b"ssh-ed25519") + _string(made))))
        text = base64.b64encode(MAGIC + struct.pack(">I", 1) + packed).decode()
        return "\n".join([BEGIN, *textwrap.wrap(text, 70), END, ""])


def canonical_key(text: str) -> str:
    """A public key without comment and options; one key has one such text.

    Raises:
        UserError: If it is none that is supported.
    """
    words = text.split()
    key = " ".join(words[:2])
    try:
        _load(key)
    except Refused as error:
        raise UserError(f"This is no public key that can be used: {error}.", _hint()) from None
    return key


def fingerprint(public_key: str) -> str:
    """How `ssh-keygen -l` names a key: SHA256:..."""
    digest = hashlib.sha256(_blob(public_key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def verify(data: bytes, signature: str, public_key: str, namespace: str) -> None:
    """Check that the owner of a key signed these bytes for this namespace.

    Args:
        data: What was signed.
        signature: Armored text.
        public_key: As `Identity.public_key`.
        namespace: What the signature is for.

    Raises:
        Refused: If not, with the reason.
    """
    from cryptography.exceptions import InvalidSignature

    if len(signature) > MAX_SIGNATURE:
        raise Refused("the signature is too long")
    lines = signature.strip().splitlines()
    if len(lines) < 3 or lines[0] != BEGIN or lines[-1] != END:
        raise Refused("the signature is not in the format of `ssh-keygen -Y sign`")
    key = _load(public_key)
    try:
        raw = base64.b64decode("".join(lines[1:-1]), validate=True)
        if raw[:10] != MAGIC + struct.pack(">I", 1):
            raise Refused("the signature is of another version")
        signer, space, _, algorithm, made = _strings(raw[10:], 5)
        kind, value = _strings(made, 2)
        if signer != _blob(public_key):
            raise Refused("the signature was made with another key")
        if space != namespace.encode():
            raise Refused(f"the signature is not for {namespace}")
        if algorithm not in HASHES:
            raise Refused("the signature uses an unknown hash")
        _check(key, kind, value, _signed(data, space, algorithm))
    except (binascii.Error, struct.error, ValueError):
        raise Refused("the signature is malformed") from None
    except InvalidSignature:
        raise Refused("the signature does not fit what was sent") from None


def _load(public_key: str) -> Any:
    """The key as an object; refuses what is not exactly one supported key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

    try:
        if len(public_key) > MAX_KEY or not public_key.isascii():
            raise Refused("the public key is too long")
        key = load_ssh_public_key(public_key.encode())
        if not isinstance(key, Ed25519PublicKey | RSAPublicKey | EllipticCurvePublicKey):
            raise Refused("only keys of the kinds ed25519, ECDSA and RSA are supported")
        if key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() != public_key:
            raise Refused("the public key is not written as `ssh-keygen -y` writes it, without a comment")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Refused("the public key is malformed, or of a kind that is not supported") from None
    if isinstance(key, RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise Refused(f"an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    return key


def _check(key: Any, kind: bytes, value: bytes, data: bytes) -> None:
    """Check a raw signature; raises `InvalidSignature` if it does not fit, ValueError if it is malformed."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, utils

    if isinstance(key, ed25519.Ed25519PublicKey) and kind == b"ssh-ed25519":
        key.verify(value, data)
    elif isinstance(key, ec.EllipticCurvePublicKey) and kind == _blob_kind(key):
        size = key.curve.key_size
        hashed = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[size]
        r, s = (int.from_bytes(part, "big", signed=True) for part in _strings(value, 2))
        key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashed))
    elif kind in (b"rsa-sha2-256", b"rsa-sha2-512"):
        key.verify(
            value, data, padding.PKCS1v15(), hashes.SHA256() if kind[-3:] == b"256" else hashes.SHA512()
        )
    else:
        raise Refused("the signature is of another kind than the key")


def _blob_kind(key: EllipticCurvePublicKey) -> bytes:
    return f"ecdsa-sha2-nistp{key.curve.key_size}".encode()


def _signed(data: bytes, namespace: bytes, algorithm: bytes) -> bytes:
    """What a key signs for some data."""
    parts = (namespace, b"", algorithm, HASHES[algorithm](data).digest())
    return MAGIC + b"".join(map(_string, parts))


def _blob(public_key: str) -> bytes:
    return base64.b64decode(public_key.split()[1])


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes, count: int) -> list[bytes]:
    """So many strings with their lengths before them, and nothing after."""
    found = []
    for _ in range(count):
        (size,) = struct.unpack(">I", data[:4])
        found.append(data[4 : 4 + size])
        if len(found[-1]) != size:
            raise ValueError("it is cut off")
        data = data[4 + size :]
    if data:
        raise ValueError("something follows")
    return found


def _ssh_keygen(command: list[str], data: bytes) -> str:
    try:
        done = subprocess.run(command, input=data, capture_output=True)
    except FileNotFoundError:
        raise UserError("ssh-keygen is not installed.", "Install OpenSSH.") from None
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip()
        raise UserError(f"ssh-keygen failed: {why}", "Unlock the key (ssh-add), or choose another.")
    return done.stdout.decode()


def _hint() -> str:
    return "Make one: ssh-keygen -t ed25519"
