"""Hostile patches and bundles, made of real git objects."""

import hashlib
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoresearch.edit.patch import patched
from autoresearch.edit.rules import check
from autoresearch.errors import Refused
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.contribution import Signed, tree_digest
from autoresearch.swarm.intake import MAX_OBJECT, from_bundle, measure, take
from tests.support.swarm import (
    PATCH,
    RESULT,
    SOURCES,
    Stranger,
    contribution,
    git,
    identity,
    pack_of,
    track_repository,
)
from tests.support.toy_task import ToyTask

EDITABLE = ("train.py",)


class Rules(ToyTask):
    """A toy task with the rules on Python programs."""

    def validate(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        check(before, after, EDITABLE)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("origin") / "repo"
    track_repository(root)
    return root


@pytest.fixture
def start(origin: Path) -> str:
    return git(origin, "rev-parse", "HEAD").decode()


@pytest.fixture
def stranger(origin: Path, tmp_path: Path) -> Stranger:
    return Stranger.of(origin, identity(tmp_path, "ada"))


@pytest.fixture
def repository(origin: Path) -> Repository:
    return Repository(origin)


def usual(stranger: Stranger, start: str, **fields: str) -> bytes:
    """A proper bundle."""
    blob = stranger.add("blob", RESULT["train.py"].encode())
    tree = stranger.change({b"train.py": ("100644", blob)})
    return stranger.bundle(start, stranger.commit(tree, start, **fields))


def state(root: Path) -> tuple[str, ...]:
    files = sorted(f"{path} {path.stat().st_mtime_ns}" for path in (root / ".git").rglob("*"))
    return tuple(files)


# Bundles


def test_a_bundle_of_one_signed_commit_is_taken_as_text(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    before = state(repository.root)
    signed = from_bundle(usual(stranger, start), repository, EDITABLE)
    sent = signed.contribution
    assert (sent.track, sent.title, sent.why) == ("tiny", "Wider", "It is narrow.")
    assert (sent.author, sent.fingerprint) == ("Ada <ada@example.org>", stranger.key.fingerprint)
    assert take(signed, SOURCES) == RESULT
    assert from_bundle(usual(stranger, start), repository, EDITABLE).contribution.digest == sent.digest
    assert state(repository.root) == before
    assert Signed.from_stored(signed.to_json()) == signed


@pytest.mark.slow
def test_what_git_itself_signs_and_bundles_is_taken(
    stranger: Stranger, repository: Repository, start: str, tmp_path: Path
) -> None:
    root = tmp_path / "clone"
    shutil.copytree(repository.root, root)
    (root / "train.py").write_text(RESULT["train.py"])
    signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={stranger.key.path}")
    git(root, *signing, "commit", "-qaS", "-m", "Wider", "-m", "It is narrow.", "-m", "Track: tiny")
    git(root, "bundle", "create", "-q", str(tmp_path / "b"), "HEAD", f"^{start}")
    signed = from_bundle((tmp_path / "b").read_bytes(), repository, EDITABLE)
    assert take(signed, SOURCES) == RESULT
    assert signed.contribution.author == "x@example.org <x@example.org>"


def test_a_signed_commit_counts_for_no_other_patch(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    """Only a bundle shows the tree that was signed, so the JSON of one is not taken from strangers."""
    signed = from_bundle(usual(stranger, start), repository, EDITABLE)
    with pytest.raises(Refused, match="as a bundle"):
        Signed.from_json(signed.to_json())


def entry(stranger: Stranger, start: str, mode: str, name: bytes, content: bytes = b"x\n") -> str:
    kind = "tree" if mode == "40000" else "blob"
    if kind == "tree":
        content = b"100644 x\0" + bytes.fromhex(stranger.add("blob", content))
    changed = {name: (mode, start if mode == "160000" else stranger.add(kind, content))}
    return stranger.change(changed)


NAMES = [
    b"..", b".", b".git", b".GIT", b".git ", b"git~1", b".gitattributes", b".gitmodules", b".gitignore",
    b"hooks",
    ".g\u200cit".encode(), "tra\u0456n.py".encode(), b"TRAIN.PY", b"train.py ", b"\xff\xfe", b"a\nb", b"-rf",
    b"a/b",
    b"../../x", b"/etc/x", b"", b"x" * 5000, b"C:\\x", b"train.py:stream", b"new.py", b"\x1b[2J",
]  # fmt: skip


def test_a_new_file_or_folder_of_any_name_is_refused(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    for mode, name in [*(("100644", name) for name in NAMES), *(("40000", name) for name in NAMES[:4])]:
        stranger.objects.clear()
        tree = entry(stranger, start, mode, name)
        with pytest.raises(Refused) as told:
            from_bundle(stranger.bundle(start, stranger.commit(tree, start)), repository, EDITABLE)
        assert str(told.value).isprintable() and len(str(told.value)) < 500


@pytest.mark.parametrize(
    ("mode", "name", "content"),
    [
        ("120000", b"train.py", b"/etc/passwd"), ("120000", b"pkg", b".git"),
        ("120000", b"link", b"train.py"),
        ("160000", b"train.py", b""), ("160000", b"module", b""), ("100755", b"train.py", b"A = 1\n"),
        ("40000", b"train.py", b"A = 1\n"),
        ("100644", b"pkg", b"A = 1\n"),
        ("100644", b"run.sh", b"echo\n"), ("100644", b"train.py", b"\xff\xfe"),
        ("000000", b"train.py", b"A\n"),
    ],
)  # fmt: skip
def test_another_kind_of_entry_is_refused(
    stranger: Stranger, repository: Repository, start: str, mode: str, name: bytes, content: bytes
) -> None:
    tree = entry(stranger, start, mode, name, content)
    with pytest.raises(Refused):
        from_bundle(stranger.bundle(start, stranger.commit(tree, start)), repository, EDITABLE)


def test_a_tree_in_disorder_or_with_a_name_twice_is_refused(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    one, two = (stranger.add("blob", text) for text in (b"A = 1\n", b"A = 2\n"))
    for names in ((b"train.py", b"train.py"), (b"train.py", b"pkg.py"), (b"train.py",)):
        entries = [("100644", name, blob) for name, blob in zip(names, (one, two), strict=False)]
        bundle = stranger.bundle(start, stranger.commit(stranger.tree(entries), start))
        with pytest.raises(Refused):
            from_bundle(bundle, repository, EDITABLE)


def test_frozen_files_cannot_be_changed_or_removed(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    blob = stranger.add("blob", b"SCORE = 1\n")
    for changes in (
        {b"pkg": ("40000", stranger.tree([("100644", b"frozen.py", blob)]))},
        {b"run.sh": None},
        {b"train.py": None},
        {b"run.sh": ("100755", blob)},
        {},
    ):
        bundle = stranger.bundle(start, stranger.commit(stranger.change(changes), start))
        with pytest.raises(Refused):
            from_bundle(bundle, repository, EDITABLE)


@pytest.mark.parametrize(
    "fields",
    [
        {"message": "No track\n"}, {"message": "x\n\nTrack: a\nTrack: b\n"}, {"extra": "\nencoding latin-1"},
        {"extra": "\nparent " + "a" * 40}, {"author": "Ada"}, {"author": "A\u202e <a@b>"}, {"message": ""},
        {"message": "x" * 20_000 + "\n\nTrack: tiny\n"}, {"author": " <>"}, {"time": "-5"},
        {"time": "9" * 30},
        {"message": "a\x00b\n\nTrack: tiny\n"}, {"extra": "\ngpgsig x"}, {"message": "\n\nTrack: ../x"},
    ],
)  # fmt: skip
def test_a_malformed_commit_is_refused(
    stranger: Stranger, repository: Repository, start: str, fields: dict[str, str]
) -> None:
    with pytest.raises(Refused):
        from_bundle(usual(stranger, start, **fields), repository, EDITABLE)


def test_a_signature_that_is_missing_or_of_another_commit_is_refused(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    blob = stranger.add("blob", RESULT["train.py"].encode())
    tree = stranger.change({b"train.py": ("100644", blob)})
    with pytest.raises(Refused, match="not signed"):
        from_bundle(stranger.bundle(start, stranger.commit(tree, start, signed=False)), repository, EDITABLE)
    good = stranger.objects[stranger.commit(tree, start)][1]
    for old, new in (
        (b"Wider", b"Mine!"),
        (b"Ada <ada@", b"Eve <eve@"),
        (b" 1000 +", b" 9999 +"),
        (b"tiny", b"big"),
    ):
        tip = stranger.add("commit", good.replace(old, new))
        with pytest.raises(Refused, match="does not fit"):
            from_bundle(stranger.bundle(start, tip), repository, EDITABLE)


def test_a_bundle_on_top_of_what_the_track_does_not_have_is_refused(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    blob = stranger.add("blob", RESULT["train.py"].encode())
    tree = stranger.change({b"train.py": ("100644", blob)})
    mine = stranger.commit(stranger.change({}), start)
    tip = stranger.commit(tree, mine)
    for parent in (mine, "0" * 40, "f" * 40, tree, start):
        with pytest.raises(Refused):
            from_bundle(stranger.bundle(parent, tip), repository, EDITABLE)
    with pytest.raises(Refused, match="does not hold the commit"):
        from_bundle(stranger.bundle(start, start), repository, EDITABLE)
    with pytest.raises(Refused, match="refuses the objects"):
        from_bundle(stranger.bundle(start, tree), repository, EDITABLE)


def test_objects_of_the_repository_that_were_not_sent_cannot_be_drawn_out(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    """Who knows the hash of a private object gets neither its content nor a difference against it."""
    secret = git(repository.root, "hash-object", "-w", "--stdin", data=b"SECRET = 1\n").decode()
    named = stranger.change({b"train.py": ("100644", secret)})
    with pytest.raises(Refused, match="does not hold the new content"):
        from_bundle(stranger.bundle(start, stranger.commit(named, start)), repository, EDITABLE)
    delta = bytes([11, 11, 0x90, 11])  # copy eleven bytes of eleven
    pack = pack_of([(7, delta, bytes.fromhex(secret))])
    with pytest.raises(Refused, match="other objects"):
        from_bundle(stranger.bundle(start, "a" * 40, pack), repository, EDITABLE)


def number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_objects_that_expand_are_refused_before_git_sees_them(start: str) -> None:
    large = b"\0" * (MAX_OBJECT + 1)
    half = b"\0" * (MAX_OBJECT // 2)
    expanding = number(100) + number(500_000_000) + bytes([0x90, 100]) * 50
    for pack in (
        pack_of([(3, large, b"")]),
        pack_of([(3, half, b"")] * 40),
        pack_of([(7, expanding, bytes(20))]),
        pack_of([(3, b"a" * 100, b""), (6, expanding, bytes([110]))]),
        pack_of([(7, number(100) + number(1 << 70), bytes(20))]),
        pack_of([(3, b"", b"")] * 2000),
        pack_of([(3, b"x", b"")], count=2**32 - 1),
    ):
        assert len(pack) < 100_000
        with pytest.raises(Refused, match=r"large|objects|damaged"):
            measure(pack)


def test_a_size_that_is_not_true_is_refused() -> None:
    true = pack_of([(3, b"a" * 100_000, b"")])
    lie = bytearray(true)
    lie[12] = lie[12] ^ 1
    with pytest.raises(Refused, match=r"smaller|larger"):
        measure(bytes(lie))
    assert measure(true) == set()


def test_a_corrupted_or_truncated_bundle_is_refused(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    good = usual(stranger, start)
    head = good.index(b"PACK")
    cut = [good[:size] for size in (0, 1, 20, head - 1, head, head + 12, len(good) - 21, len(good) - 1)]
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(head, len(good), 23)]
    resummed = [
        text[:-20] + hashlib.sha1(text[head:-20]).digest() for text in flipped if text[-20:] == good[-20:]
    ]
    for bad in (*cut, *flipped[:8], *resummed[:12], good + b"x", good.replace(b"v2", b"v4", 1)):
        with pytest.raises(Refused):
            from_bundle(bad, repository, EDITABLE)


@pytest.mark.parametrize(
    "header",
    [
        "# v2 git bundle\n{tip} refs/heads/x\n\n",
        "# v2 git bundle\n-{start} x\n\n",
        "# v2 git bundle\n-{start} x\n-{start} y\n{tip} refs/heads/x\n\n",
        "# v2 git bundle\n-{start} x\n{tip} refs/heads/x\n{tip} refs/heads/y\n\n",
        "# v3 git bundle\n@filter=blob:none\n-{start} x\n{tip} refs/heads/x\n\n",
        "# v3 git bundle\n@object-format=sha256\n-{start} x\n{tip} refs/heads/x\n\n",
        "# v2 git bundle\n-{start} " + "x" * 5000 + "\n{tip} refs/heads/x\n\n",
        "{start}\n\n",
    ],
)
def test_a_header_of_another_form_is_refused(
    stranger: Stranger, repository: Repository, start: str, header: str
) -> None:
    good = usual(stranger, start)
    tip = list(stranger.objects)[-1]
    bad = header.format(start=start, tip=tip).encode() + good[good.index(b"PACK") :]
    with pytest.raises(Refused, match="no bundle"):
        from_bundle(bad, repository, EDITABLE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_bytes_are_measured_or_refused(data: bytes, count: int) -> None:
    for pack in (data, b"PACK" + struct.pack(">II", 2, count) + data):
        try:
            measure(pack)
        except Refused:
            continue


def test_a_message_of_git_does_not_tell_where_the_repository_lies(
    stranger: Stranger, repository: Repository, start: str
) -> None:
    tree = stranger.add("tree", b"100644 train.py\0short")
    with pytest.raises(Refused) as told:
        from_bundle(stranger.bundle(start, stranger.commit(tree, start)), repository, EDITABLE)
    assert str(repository.root) not in str(told.value) and "autoresearch-" not in str(told.value)


# Patches

LINK = "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n"


def sent(tmp_path: Path, patch: str, tree: str = "") -> Signed:
    return contribution(identity(tmp_path, "ada"), patch=patch, tree=tree or tree_digest(RESULT))


def test_a_patch_is_taken_as_the_text_that_was_signed(tmp_path: Path) -> None:
    assert take(sent(tmp_path, PATCH), SOURCES) == RESULT
    with pytest.raises(Refused, match="signed as `tree`"):
        take(sent(tmp_path, PATCH, "0" * 64), SOURCES)


def moved(name: str) -> Callable[[str], str]:
    return lambda patch: patch.replace("train.py", name)


@pytest.mark.parametrize(
    "change",
    [
        *map(moved, ["../train.py.x", "/etc/passwd", ".git/config", ".gitattributes", "pkg/frozen.py"]),
        moved("tra\u0456n.py"),
        lambda patch: patch.replace("--- a/train.py", "--- /dev/null"),
        lambda patch: patch.replace("+++ b/train.py", "+++ /dev/null"),
        lambda patch: f"diff --git a/train.py b/train.py\nold mode 100644\nnew mode 120000\n{patch}",
        lambda patch: f"diff --git a/train.py b/x.py\nrename from train.py\nrename to x.py\n{patch}",
        lambda patch: f"{patch}diff --git a/x b/x\nnew file mode 120000\n{LINK}",
        lambda patch: patch + "diff --git a/b.bin b/b.bin\nGIT binary patch\nliteral 0\n",
        lambda patch: patch.replace("WIDTH = 3", "WIDTH = 3\u202e"),
        lambda patch: patch.replace("WIDTH = 3", "WIDTH = (" * 500),
        lambda patch: patch.replace("WIDTH = 3", "W\u0406DTH = 3"),
        lambda patch: patch.replace("WIDTH = 3", "WIDTH = 1  # the same"),
        lambda patch: patch.replace("WIDTH = 3", "WIDTH = 1"),
        lambda patch: patch.replace("WIDTH = 3", "WIDTH = 3\x00"),
        lambda patch: patch.replace("WIDTH = 3", "# coding: utf-7"),
        lambda patch: patch.replace("-WIDTH = 1", "-WIDTH = 7"),
        lambda patch: patch.replace("@@ -1,2 +1,2 @@", "@@ -1,99999999999 +1,2 @@"),
        lambda patch: patch.replace("@@ -1,2 +1,2 @@", "@@ -x +y @@"),
        lambda patch: "@@" * 100_000,
        lambda patch: "no patch",
    ],
)  # fmt: skip
def test_a_hostile_patch_is_refused_as_text_or_by_the_rules_of_the_task(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    patch = change(PATCH)
    with pytest.raises(Refused):
        after = patched(patch, SOURCES)  # what its sender signs as `tree`
        Rules().validate(SOURCES, take(sent(tmp_path, patch, tree_digest(after)), SOURCES))
