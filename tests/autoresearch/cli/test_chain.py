"""`autoresearch verify-chain`, in a clone."""

import json
from pathlib import Path

import pytest

from autoresearch.edit.candidate import diff
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.chain.links import REF
from autoresearch.swarm.contribution import tree_digest
from tests.support.cli import inside
from tests.support.swarm import Track, contribution, git, identity
from tests.support.toy_task import PATH, SCRIPT, install

BETTER = {PATH: SCRIPT.replace("LEVEL = 1.0", "LEVEL = 1.1")}


@pytest.fixture
def track(tmp_path: Path) -> Track:
    """A track with one link; the gain that its server signed is 0.1 on a score that is maximised."""
    made = Track(tmp_path / "server", {PATH: SCRIPT}, settings=("task=toy",))
    fields = {"patch": diff({PATH: SCRIPT}, BETTER), "tree": tree_digest(BETTER), "parent": made.start}
    signed = contribution(identity(tmp_path, "ada"), **fields)
    made.receive(signed)
    made.keep(signed, BETTER)
    made.publish()
    return made


@pytest.fixture
def clone(track: Track, tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(track.root), str(folder))
    git(folder, "fetch", "-q", "origin", f"+{REF}*:{REF}*", f"{track.tip}:refs/heads/tip")
    return folder


def test_a_clone_is_checked_and_it_is_told_how_to_check_more(track: Track, clone: Path) -> None:
    said = inside(clone, "verify-chain", "--tip", "tip")
    assert f"The chain is sound up to {track.tip[:10]}: 1 link." in said
    assert "Only the log itself says that this is the server's key" in said and "Ada" in said
    seen = said.rpartition("--seen ")[2].strip()
    again = inside(
        clone, "verify-chain", "tiny", "--tip", "tip", "--seen", seen, "--key", track.server.public_key
    )
    assert "Only the log" not in again
    (clone / "runs").mkdir()
    (clone / "runs" / "track.json").write_text(
        json.dumps({"track": "tiny", "key": identity(clone, "eve").public_key, "url": "x"})
    )
    assert "broken at entry 0" in inside(clone, "verify-chain", "--tip", "tip", code=2)
    found = json.loads(
        inside(clone, "verify-chain", "--tip", "tip", "--json", "--key", track.server.public_key)
    )
    assert found["sound"] and found["trusted"] and found["links"][0]["author"] == "Ada"


def test_what_is_wrong_ends_with_an_error(track: Track, clone: Path) -> None:
    added = Repository(clone).commit(track.tip, {PATH: SCRIPT}, "slipped in", 5.0)
    said = inside(clone, "verify-chain", "--tip", added, code=2)
    assert "THE CHAIN IS NOT SOUND" in said and "without having been kept" in said
    (clone / "signers").write_text(f"Ada {identity(clone, 'other').public_key}\n")
    said = inside(clone, "verify-chain", "--tip", "tip", "--signers", "signers", code=2)
    assert "Ada signs with another key" in said


def test_what_is_asked_wrongly_is_told(track: Track, clone: Path) -> None:
    assert "no NUMBER:HASH" in inside(clone, "verify-chain", "--seen", "7", code=2)
    assert "no commit nowhere" in inside(clone, "verify-chain", "--tip", "nowhere", code=2)
    assert "does not hold the chain of other" in inside(clone, "verify-chain", "other", code=2)
    git(clone, "update-ref", f"{REF}second", "HEAD")
    assert "Name one: second, tiny" in inside(clone, "verify-chain", code=2)


@pytest.mark.slow
def test_a_link_is_measured_again_in_a_clone(
    track: Track, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "site")
    asked = ("verify-chain", "--tip", "tip", "--remeasure", "3", "--choice", "1", "executor.device=cpu")
    said = inside(clone, *asked, "sandbox=none")
    assert "Measured again" in said and "in 2 pairs" in said and "it holds" in said
    assert "another task, data, judge, environment here" in said
