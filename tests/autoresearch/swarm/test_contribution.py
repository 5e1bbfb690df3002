import json
from pathlib import Path
from typing import Any

import pytest

from autoresearch.errors import Refused
from autoresearch.swarm.contribution import MAX_BYTES, Signed, canonical, strict_json, tree_digest
from tests.support.swarm import SOURCES, contribution, identity


@pytest.fixture
def sent(tmp_path: Path) -> Signed:
    return contribution(identity(tmp_path, "ada"))


def changed(sent: Signed, **fields: Any) -> str:
    data = json.loads(sent.to_json())
    data["contribution"] |= fields
    return json.dumps(data)


def test_what_is_sent_arrives_as_it_was(sent: Signed) -> None:
    for text in (sent.to_json(), sent.to_json().encode(), json.dumps(json.loads(sent.to_json()), indent=3)):
        found = Signed.from_json(text)
        assert found == sent
        assert found.contribution.digest == sent.contribution.digest


def test_two_contributions_with_the_same_content_differ(tmp_path: Path) -> None:
    ada = identity(tmp_path, "ada")
    assert contribution(ada).contribution.digest != contribution(ada).contribution.digest


def test_whole_numbers_are_signed_as_they_are_read(tmp_path: Path) -> None:
    sent = contribution(identity(tmp_path, "ada"), time=5)
    assert Signed.from_json(sent.to_json()).contribution.digest == sent.contribution.digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("track", "other"), ("parent", "c" * 40), ("patch", "--- a\n"), ("tree", "0" * 64), ("title", "Mine"),
        ("why", "Because."), ("author", "Bob"), ("time", 2000.0), ("nonce", "0" * 32), ("version", 2),
        ("evidence", {"pairs": [[1, 0.5, 0.1]], "device": "cpu", "environment": "b" * 64}),
    ],
)  # fmt: skip
def test_no_field_can_be_changed_after_the_signature(sent: Signed, field: str, value: object) -> None:
    with pytest.raises(Refused):
        Signed.from_json(changed(sent, **{field: value}))


def test_another_s_contribution_cannot_be_sent_under_one_s_own_key(tmp_path: Path, sent: Signed) -> None:
    bob = identity(tmp_path, "bob")
    with pytest.raises(Refused, match="another key"):
        Signed.from_json(changed(sent, public_key=bob.public_key))
    theft = {"contribution": json.loads(changed(sent, public_key=bob.public_key))["contribution"]}
    theft["signature"] = bob.sign(sent.contribution.canonical, "autoresearch-contribution")
    with pytest.raises(Refused, match="does not fit"):
        Signed.from_json(json.dumps(theft))


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "two\nlines"}, {"title": ""}, {"title": "x" * 201},
        {"title": "\u202egnp.exe"}, {"title": " x"},
        {"author": "a\x1b[2J"}, {"author": "\ud800"}, {"author": "zero\u200bwidth"}, 
        {"author": "\uff21da"}, {"time": -1.0}, {"time": 1e300}, {"why": "y" * 4001},
        {"why": "\x00"}, {"patch": " \n"}, {"patch": "+" * 400_001}, {"patch": "\udc80"}, {"track": "../x"},
        {"track": ""}, {"track": "-x"}, {"parent": "HEAD"}, {"parent": "A" * 40},
        {"tree": "ab"}, {"nonce": "\n"},
        {"version": 3}, {"time": float("inf")}, {"time": "1"}, {"time": None}, {"evidence": None},
        {"evidence": {"pairs": [], "device": "", "environment": "", "more": 1}},
        {"evidence": {"pairs": [[1, 0.5]], "device": "", "environment": ""}},
        {"evidence": {"pairs": [[-1, 0.5, 0.5]], "device": "", "environment": ""}},
        {"evidence": {"pairs": [[2**63, 0.5, 0.5]], "device": "", "environment": ""}},
        {"evidence": {"pairs": [[1, 0.5, float("nan")]], "device": "", "environment": ""}},
        {"evidence": {"pairs": [[1, 0.5, 0.5]] * 65, "device": "", "environment": ""}},
        {"evidence": {"pairs": [], "device": "d" * 201, "environment": ""}},
        {"unknown": 1}, {"public_key": ["x"]},
    ],
)  # fmt: skip
def test_a_field_that_is_not_as_it_should_be_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    """The signature is right: it is made over the bad field."""
    ada = identity(tmp_path, "ada")
    data = json.loads(changed(contribution(ada), **fields))
    signed = json.dumps(data["contribution"], sort_keys=True, separators=(",", ":")).encode()
    data["signature"] = ada.sign(signed, "autoresearch-contribution")
    with pytest.raises(Refused):
        Signed.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"1", b"\xff\xfe{}", b"{", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"a":1,"a":1}',
        b'{"contribution": {}, "signature": ""}', b"NaN", b"1" * 5000, b"-Infinity", b" " * (MAX_BYTES + 1),
    ],
)  # fmt: skip
def test_what_is_no_contribution_is_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        Signed.from_json(body)


def test_a_key_twice_is_refused_at_any_depth(sent: Signed) -> None:
    text = sent.to_json().replace('"author":"Ada"', '"author":"Ada","author":"Ada"')
    with pytest.raises(Refused, match="twice"):
        Signed.from_json(text)


def test_canonical_json_does_not_depend_on_order(sent: Signed) -> None:
    data = json.loads(sent.to_json())
    assert canonical(dict(reversed(data.items()))) == canonical(data) == sent.to_json().encode()
    assert strict_json(canonical({"é": [1, 0.1, None, True]})) == {"é": [1, 0.1, None, True]}


def test_the_digest_of_files_tells_names_and_texts_apart() -> None:
    trees = [{"a": "b", "c": "d"}, {"a": "d", "c": "b"}, {"a": "bcd"}, {"ab": "", "c": "d"}, SOURCES, {}]
    assert len({tree_digest(tree) for tree in trees}) == len(trees)
    assert tree_digest({"a": "b", "c": "d"}) == tree_digest({"c": "d", "a": "b"})
