"""The command that checks the chain of a track in a clone."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoresearch.cli.inspect import Json, apart, dumps
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.store.git.repository import Repository
    from autoresearch.swarm.chain.check import Chain
    from autoresearch.swarm.chain.remeasure import Remeasured


def verify_chain(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TRACK] [KEY=VALUE]...", help="Track; settings for --remeasure."),
    ] = None,
    tip: Annotated[str, typer.Option(help="Commit to follow the chain to [the tip that was fetched].")] = "",
    key: Annotated[
        str, typer.Option(help="The server's public key, or a file with it [as `join` saw it first].")
    ] = "",
    signers: Annotated[
        Path | None, typer.Option(help="A file allowed_signers: names and keys that you know.")
    ] = None,
    seen: Annotated[str, typer.Option(metavar="NUMBER:HASH", help="A log entry that you saw before.")] = "",
    remeasure: Annotated[int, typer.Option(min=0, help="So many links are measured again.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Pairs of trainings for each of them.")] = 2,
    choice: Annotated[
        int | None, typer.Option(min=0, help="Chooses the links; without it, nobody can foresee which.")
    ] = None,
    json: Json = False,
) -> None:
    """Check the chain of a track in a clone, offline: who found and measured what, and is nothing changed?"""
    import secrets

    from autoresearch.search.setup.settings import place_of, runs_of
    from autoresearch.store.git.repository import Repository
    from autoresearch.swarm.chain.check import verify_chain as check
    from autoresearch.swarm.chain.signers import Signers
    from autoresearch.swarm.join.outbox import ABOUT

    names, overrides = apart(words)
    repository = Repository(Path.cwd())
    known = _joined(runs_of(place_of(overrides), repository) / ABOUT)
    track = names[0] if names else known.get("track") or _only_track(repository)
    chain = check(
        repository,
        track,
        _tip(repository, track, tip),
        server_key=_key(key) if key else known.get("key", "") if known.get("track") == track else "",
        signers=Signers.read(signers) if signers else None,
        seen=_seen(seen),
    )
    again: list[Remeasured] = []
    if not json:
        typer.echo("\n".join(_lines(chain)))
    if remeasure and chain.links:
        number = secrets.randbits(32) if choice is None else choice
        again = _remeasured(chain, remeasure, seeds, number, overrides, json)
    if json:
        typer.echo(
            dumps({**asdict(chain), "sound": chain.sound, "remeasured": [asdict(one) for one in again]})
        )
    if not chain.sound or any(one.holds is False for one in again):
        raise typer.Exit(2)


def _remeasured(
    chain: Chain, count: int, seeds: int, number: int, overrides: list[str], quiet: bool
) -> list[Remeasured]:
    from autoresearch.cli.run import opened_to_train
    from autoresearch.config import FIXED
    from autoresearch.swarm.chain.remeasure import chosen, remeasure, remeasured_line

    settings = [str(setting) for setting in chain.about.get("settings", ())]
    for setting in settings:
        if setting.partition("=")[0].partition(".")[0] not in FIXED:
            raise UserError(f"The track sets {setting[:80]}, which is no business of a track.")
    links = chosen([one.link for one in chain.links], count, number)
    given = [f"name=verify-{chain.track[:40]}", "tracking=none", "claim=0", *settings, *overrides]
    if not quiet:
        typer.echo(f"Measured again, chosen by --choice {number}:")
    with opened_to_train(given, quiet, start=str(chain.about["base"])) as search:
        found = remeasure(search, links, seeds)
    if not quiet:
        typer.echo("\n".join(map(remeasured_line, found)))
    return found


def _lines(chain: Chain) -> list[str]:
    """What was found, for a terminal."""
    from autoresearch.text import count, one_line

    lines = [f"{chain.track}: a log of length {chain.entries}, signed by {chain.server}"]
    if not chain.trusted:
        lines.append(
            "  Only the log itself says that this is the server's key: compare it, and give it with --key."
        )
    for one in chain.links:
        gain = "" if one.link.effect is None else f" {one.link.effect:+.4g}"
        told = "ok" if not one.problems else "WRONG"
        lines.append(f"  {one.link.commit[:10]}{gain} {one_line(one.author, 40)} {one.who}: {told}")
        lines += [f"    {one_line(problem, 300)}" for problem in one.problems]
        lines += [f"    note: {one_line(note, 300)}" for note in one.notes]
    lines += [f"  {problem}" for problem in chain.problems]
    says = "The chain is sound" if chain.sound else "THE CHAIN IS NOT SOUND"
    lines.append(f"{says} up to {chain.tip[:10]}: {count(len(chain.links), 'link')}.")
    lines.append(f"To notice later if this log is rewritten: --seen {chain.entries - 1}:{chain.head}")
    return lines


def _joined(path: Path) -> dict[str, Any]:
    return dict(jsonlib.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _only_track(repository: Repository) -> str:
    from autoresearch.swarm.chain.links import REF

    found = sorted(ref.removeprefix(REF) for ref in repository.refs(REF.rstrip("/")))
    if len(found) == 1:
        return found[0]
    if not found:
        hint = f"Fetch one: git fetch origin '+{REF}*:{REF}*'"
        raise UserError("This repository holds the chain of no track.", hint)
    raise UserError("This repository holds the chains of several tracks.", f"Name one: {', '.join(found)}")


def _tip(repository: Repository, track: str, tip: str) -> str:

    for name in (tip,) if tip else (f"refs/autoresearch-tracks/{track}", "HEAD"):
        if commit := repository.resolve(name):
            return commit
    raise UserError(f"There is no commit {tip}.", "Give the tip of the track: --tip COMMIT")


def _key(given: str) -> str:
    from autoresearch.swarm.identity import canonical_key

    path = Path(given)
    return canonical_key(path.read_text(encoding="utf-8") if path.is_file() else given)


def _seen(given: str) -> dict[int, str]:

    number, _, digest = given.partition(":")
    if given and not (number.isdigit() and len(digest) == 64):
        raise UserError(f"--seen {given} is no NUMBER:HASH.", "An earlier `verify-chain` printed it.")
    return {int(number): digest} if given else {}
