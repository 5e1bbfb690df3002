import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoresearch.edit.candidate import diff
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.chain.check import Chain, verify_chain
from autoresearch.swarm.chain.links import REF, SEGMENT, Published, published
from autoresearch.swarm.chain.signers import Signer, Signers
from autoresearch.swarm.contribution import Signed, tree_digest
from autoresearch.swarm.intake import from_bundle
from autoresearch.swarm.log import BrokenLog, Kind, append, entries
from tests.support.swarm import RESULT, SOURCES, Stranger, Track, contribution, git, identity

DEEPER = {"train.py": "WIDTH = 1\nDEPTH = 9\n"}
APART = {"train.py": "WIDTH = 1\n# one\n# two\n# three\nDEPTH = 2\n"}
BOTH = {"train.py": "WIDTH = 3\n# one\n# two\n# three\nDEPTH = 9\n"}


@pytest.fixture
def track(tmp_path: Path) -> Track:
    return Track(tmp_path / "server")


def offer(track: Track, name: str, before: dict[str, str], after: dict[str, str], /, **fields: Any) -> Signed:
    made = {"patch": diff(before, after), "tree": tree_digest(after), "parent": track.tip, "author": name}
    return contribution(identity(track.root, name), **{**made, **fields})


def kept(track: Track, name: str, before: dict[str, str], after: dict[str, str], **fields: Any) -> Signed:
    signed = offer(track, name, before, after, **fields)
    track.receive(signed)
    track.keep(signed, after)
    return signed


def problems(chain: Chain) -> str:
    return "; ".join([*chain.problems, *(problem for one in chain.links for problem in one.problems)])


def test_an_honest_chain_is_sound_and_tells_who_found_what(track: Track, tmp_path: Path) -> None:
    kept(track, "ada", SOURCES, RESULT)
    kept(track, "bob", RESULT, BOTH)
    track.log(Kind.REFUSED, {"contribution": "0" * 64, "reason": "malformed"})
    chain = track.chain()
    assert chain.sound and chain.trusted, problems(chain)
    assert [one.author for one in chain.links] == ["ada", "bob"]
    assert [one.link.commit for one in chain.links] == list(track.kept)
    assert chain.links[0].who == identity(track.root, "ada").fingerprint
    assert chain.entries == 6 and chain.server == track.server.fingerprint
    git(tmp_path, "clone", "-q", "--bare", str(track.root), "copy")
    git(tmp_path / "copy", "fetch", "-q", "origin", f"{REF}*:{REF}*")
    git(tmp_path / "copy", "fetch", "-q", "origin", f"{track.tip}:refs/heads/tip")
    shutil.move(track.root, tmp_path / "gone")
    git(tmp_path, "clone", "-q", "copy", "clone")
    git(tmp_path / "clone", "fetch", "-q", "origin", f"{REF}*:{REF}*")
    again = verify_chain(Repository(tmp_path / "clone"), "tiny", track.tip)
    assert again == replace(chain, trusted=False), "the same in a clone, without the server"


def test_a_merged_contribution_is_merged_again_and_compared(tmp_path: Path) -> None:
    track = Track(tmp_path / "server", APART)
    one = offer(track, "ada", APART, {"train.py": APART["train.py"].replace("WIDTH = 1", "WIDTH = 3")})
    two = offer(track, "bob", APART, {"train.py": APART["train.py"].replace("DEPTH = 2", "DEPTH = 9")})
    for signed in (one, two):
        track.receive(signed)
    track.keep(one, {"train.py": APART["train.py"].replace("WIDTH = 1", "WIDTH = 3")})
    track.keep(two, BOTH)
    chain = track.chain()
    assert chain.sound and len(chain.links) == 2, problems(chain)


def with_text(track: Track, text: str) -> None:
    signed = offer(track, "ada", SOURCES, RESULT)
    track.receive(signed)
    track.keep(signed, {"train.py": text})


def not_received(track: Track) -> None:
    track.keep(offer(track, "ada", SOURCES, RESULT), RESULT)


def received_after(track: Track) -> None:
    signed = offer(track, "ada", SOURCES, RESULT)
    track.keep(signed, RESULT)
    track.receive(signed)


def under_another_name(track: Track) -> None:
    """The server says that the finder is somebody else."""
    signed = offer(track, "ada", SOURCES, RESULT)
    track.receive(signed, author="bob")
    track.keep(signed, RESULT)


def for_another_key(track: Track) -> None:
    signed = offer(track, "ada", SOURCES, RESULT)
    track.receive(signed, who=identity(track.root, "bob").fingerprint)
    track.keep(signed, RESULT)


def forged_by_the_server(track: Track) -> None:
    """The server makes a contribution in somebody's name, whose key it does not have."""
    signed = offer(track, "ada", SOURCES, RESULT)
    forged = replace(signed, contribution=replace(signed.contribution, title="Forged"))
    track.receive(forged)
    track.keep(forged, RESULT)


def of_another_track(track: Track) -> None:
    signed = offer(track, "ada", SOURCES, RESULT, track="other")
    track.receive(signed)
    track.keep(signed, RESULT)


def stolen(track: Track) -> None:
    """Two sent the same files, and the second was given the link."""
    first, second = offer(track, "ada", SOURCES, RESULT), offer(track, "bob", SOURCES, RESULT)
    track.receive(first)
    track.receive(second)
    track.keep(second, RESULT)


def name_taken(track: Track) -> None:
    kept(track, "ada", SOURCES, RESULT)
    signed = offer(track, "bob", RESULT, BOTH, author="ada")
    track.receive(signed)
    track.keep(signed, BOTH)


def twice(track: Track) -> None:
    signed = offer(track, "ada", SOURCES, RESULT)
    track.receive(signed)
    track.keep(signed, RESULT)
    track.keep(signed, {"train.py": RESULT["train.py"] + "# again\n"})


def in_the_message(track: Track) -> None:
    signed = offer(track, "ada", SOURCES, RESULT)
    track.receive(signed)
    track.keep(signed, RESULT, "kept\n\nProposer: contributor:bob\n")


def with_a_frozen_file(track: Track) -> None:
    signed = offer(track, "ada", SOURCES, RESULT)
    track.receive(signed)
    track.keep(signed, {**RESULT, "pkg/frozen.py": "SCORE = 9\n"})


def unlogged(track: Track) -> None:
    kept(track, "ada", SOURCES, RESULT)
    track.kept[track.repository.commit(track.tip, BOTH, "slipped in", 5.0)] = next(iter(track.kept.values()))


def about_another_parent(track: Track) -> None:
    signed = offer(track, "ada", SOURCES, RESULT)
    track.receive(signed)
    track.keep(signed, RESULT)
    entry = [entry for entry in entries(track.db, "tiny") if entry.kind is Kind.VERDICT][-1]
    track.log(Kind.VERDICT, {**entry.data, "link": {**entry.data["link"], "parent": "b" * 40}})


@pytest.mark.parametrize(
    ("cheat", "told"),
    [
        (lambda track: with_text(track, DEEPER["train.py"]), "another text"),
        (lambda track: with_text(track, RESULT["train.py"] + "import os\n"), "another text"),
        (not_received, "does not say that its contribution was received"),
        (received_after, "before its contribution was received"),
        (under_another_name, "another one than the server says"),
        (for_another_key, "another one than the server says"),
        (forged_by_the_server, "does not fit"),
        (of_another_track, "another one than the server says"),
        (stolen, "offered the same files before"),
        (name_taken, "belonged to another key"),
        (twice, "stands for commit"),
        (in_the_message, "says that it is from bob"),
        (with_a_frozen_file, "not editable"),
        (unlogged, "without having been kept"),
        (about_another_parent, "another parent"),
    ],
)
def test_what_a_dishonest_server_does_is_found(
    track: Track, cheat: Callable[[Track], None], told: str
) -> None:
    cheat(track)
    chain = track.chain()
    assert not chain.sound
    assert told in problems(chain)


def test_a_log_with_another_server_key_is_refused(track: Track) -> None:
    kept(track, "ada", SOURCES, RESULT)
    track.publish()
    with pytest.raises(BrokenLog, match="another key"):
        verify_chain(track.repository, "tiny", track.tip, server_key=identity(track.root, "eve").public_key)


def test_a_chain_that_was_rewritten_is_found_by_who_saw_it(track: Track) -> None:
    kept(track, "ada", SOURCES, RESULT)
    chain = track.chain()
    seen = {chain.entries - 1: chain.head}
    assert track.chain(seen=seen).sound
    track.log(Kind.REFUSED, {})
    assert track.chain(seen=seen).sound
    with pytest.raises(BrokenLog, match="rewritten"):
        track.chain(seen={chain.entries - 1: "0" * 64})


def test_a_hidden_contribution_cannot_be_checked_and_that_is_said(track: Track) -> None:
    signed = kept(track, "ada", SOURCES, RESULT)
    track.log(Kind.MODERATED, {"contribution": signed.contribution.digest, "reason": "spam"})
    track.kept[track.tip] = offer(track, "bob", SOURCES, BOTH).to_json()
    chain = track.chain()
    assert "its signed contribution is not there" in problems(chain)
    assert chain.links[0].notes == ("moderated: spam",)


def test_a_branch_that_does_not_lead_back_to_the_start_is_found(track: Track) -> None:
    kept(track, "ada", SOURCES, RESULT)
    track.publish()
    alone = track.repository.commit("", {"train.py": "A = 1\n"}, "alone", 0.0)
    chain = verify_chain(track.repository, "tiny", alone)
    assert "does not lead back" in problems(chain)


def test_without_a_chain_a_person_is_told_how_to_get_it(track: Track) -> None:
    with pytest.raises(UserError) as told:
        verify_chain(track.repository, "tiny", track.start)
    assert "git fetch origin" in told.value.hint


# The two holes of signed commits


def test_a_known_name_with_another_key_is_found(track: Track) -> None:
    """A signer may write any author: the key decides whose work it is."""
    ada, eve = (identity(track.root, name) for name in ("ada", "eve"))
    kept(track, "eve", SOURCES, RESULT, author="Ada <ada@example.org>")
    assert track.chain().sound, "nobody is known, so a key is known by the name that it gives"
    known = Signers((Signer(("ada@example.org",), ada.public_key),))
    assert "signs with another key" in problems(track.chain(signers=known))
    both = Signers((*known.lines, Signer(("eve@example.org",), eve.public_key)))
    assert "the key belongs to eve@example.org" in problems(track.chain(signers=both))


def test_an_expired_key_with_a_backdated_time_is_found(track: Track) -> None:
    """The server's time of receipt counts, whatever time the signer wrote."""
    ada = identity(track.root, "ada")
    kept(track, "ada", SOURCES, RESULT, author="ada", time=1.0)
    [received] = [e.time for e in entries(track.db, "tiny") if e.kind is Kind.RECEIVED]
    line = Signer(("ada",), ada.public_key, before=received - 0.5)
    assert line.before > 1.0, "when it was signed, as the signer says, the key was valid"
    assert "not valid" in problems(track.chain(signers=Signers((line,))))
    assert track.chain(signers=Signers((replace(line, before=received),))).sound
    early = replace(line, before=float("inf"), after=received + 1)
    assert "not valid" in problems(track.chain(signers=Signers((early,))))


def test_a_commit_signed_with_git_is_a_link_and_both_holes_are_closed(track: Track) -> None:
    ada = identity(track.root, "ada")
    stranger = Stranger.of(track.root, ada)
    blob = stranger.add("blob", RESULT["train.py"].encode())
    tree = stranger.change({b"train.py": ("100644", blob)})
    bundle = stranger.bundle(track.start, stranger.commit(tree, track.start))
    signed = from_bundle(bundle, track.repository, ["train.py"])
    track.receive(signed)
    track.keep(signed, RESULT)
    assert track.chain().sound
    [received] = [e.time for e in entries(track.db, "tiny") if e.kind is Kind.RECEIVED]
    own = Signer(("ada@example.org",), ada.public_key, namespaces=("git",))
    assert track.chain(signers=Signers((own,))).sound
    other = replace(own, principals=("bob@example.org",))
    assert "belongs to bob@example.org" in problems(track.chain(signers=Signers((other,))))
    old = replace(own, before=received - 0.5)
    assert "not valid" in problems(track.chain(signers=Signers((old,))))
    space = replace(own, namespaces=("file",))
    assert "not for this" in problems(track.chain(signers=Signers((space,))))


def test_a_signed_commit_with_another_patch_is_found(track: Track) -> None:
    """The signature covers the tree of the commit, so the patch must give that tree."""
    stranger = Stranger.of(track.root, identity(track.root, "ada"))
    blob = stranger.add("blob", RESULT["train.py"].encode())
    tree = stranger.change({b"train.py": ("100644", blob)})
    signed = from_bundle(
        stranger.bundle(track.start, stranger.commit(tree, track.start)), track.repository, ["train.py"]
    )
    other = replace(signed.contribution, patch=diff(SOURCES, DEEPER), tree=tree_digest(DEEPER))
    forged = replace(signed, contribution=other)
    track.receive(forged)
    track.keep(forged, DEEPER)
    assert "another tree than that of the signed commit" in problems(track.chain())


# The published chain


def test_the_published_chain_grows_and_the_same_log_gives_the_same_commits(tmp_path: Path) -> None:
    track = Track(tmp_path / "one")
    assert published(track.repository, "tiny") == 0
    track.publish()
    track.db.execute("BEGIN IMMEDIATE")
    for number in range(SEGMENT + 5):
        append(track.db, track.server, "tiny", Kind.REFUSED, {"number": number}, when=2000.0)
    track.db.execute("COMMIT")
    tip = track.publish()
    assert published(track.repository, "tiny") == SEGMENT + 6
    assert track.publish() == tip, "nothing new, no commit"
    assert list(Published(track.repository, "tiny").entries()) == list(entries(track.db, "tiny"))
    files = track.repository.files(str(tip), ["."])
    assert files == ["log/000000.jsonl", "log/000001.jsonl"]


def test_a_damaged_chain_is_told(track: Track) -> None:
    track.publish()
    bad = track.repository.commit("", {"log/000000.jsonl": "{}\n"}, "bad", 0.0)
    track.repository.update_refs({f"{REF}tiny": bad})
    with pytest.raises(UserError, match="damaged"):
        verify_chain(track.repository, "tiny", track.start)
