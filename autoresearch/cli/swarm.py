"""Commands for research with strangers: serve tracks and verify what comes in; join a track, and submit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Overrides, apart
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.swarm.identity import Identity

Tracks = Annotated[
    list[str] | None,
    typer.Argument(metavar="TRACK... [KEY=VALUE]...", help="Searches to make tracks of, and limits."),
]


def serve(
    words: Tracks = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 8080,
    proxies: Annotated[str, typer.Option(help="Addresses of reverse proxies, which say who asks.")] = "",
    verifiers: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Also verify what comes in, on this machine.")
    ] = True,
) -> None:
    """Serve searches as tracks that anyone can contribute to, and verify what comes in."""
    from contextlib import ExitStack

    from autoresearch.cli.run import say_the_end, told_to_end
    from autoresearch.config import load
    from autoresearch.search.setup.settings import place_of, runs_folder
    from autoresearch.store.git.repository import Repository
    from autoresearch.swarm.web.host import Verifiers, http_server, listen, opened

    names, overrides = apart(words)
    if not names:
        raise UserError("Which searches shall be tracks?", "Name them: autoresearch serve TRACK...")
    repository = Repository(Path.cwd())
    runs = runs_folder(place_of(overrides), repository)
    given = [o for o in overrides if o.startswith("serve.")]
    limits = load(given).serve
    try:
        with told_to_end(), opened(names, runs, repository) as (tracks, store), ExitStack() as stack:
            listener = listen(host, port)
            server = http_server(tracks, store, limits, proxies)
            address = f"http://{host}:{listener.getsockname()[1]}/"
            for track in tracks.values():
                typer.echo(f"track: {address}{track.name}")
            typer.echo(f"key: {store.identity.public_key}")
            typer.echo("Public: the tracks' branches with all of their history, and what is contributed.")
            if verifiers:
                folders = [track.folder for track in tracks.values()]
                stack.enter_context(Verifiers(folders, repository, typer.echo, given))
            server.run(sockets=[listener])
    except KeyboardInterrupt as end:
        say_the_end(end, f"autoresearch serve {' '.join(names)}")


def verify(
    overrides: Overrides = None,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
    once: Annotated[bool, typer.Option("--once", help="End when nothing waits.")] = False,
) -> None:
    """Verify what was contributed to a track; `serve` starts this by itself."""
    import os

    from autoresearch.cli.inspect import chosen
    from autoresearch.cli.run import say_the_end, told_to_end
    from autoresearch.config import load
    from autoresearch.swarm.store import FOLDER, Store
    from autoresearch.swarm.verify.verifier import verify as verify_waiting
    from autoresearch.swarm.verify.verifier import verify_always

    given = [o for o in overrides or () if o.startswith("serve.")]
    folder = chosen([o for o in overrides or () if o not in given])
    limits = load(given).serve if given else None
    try:
        with told_to_end(), Store(folder.parent / FOLDER, say=typer.echo) as store:
            if once:
                verify_waiting(folder, store, "plain", limits=limits)
            else:
                verify_always(folder, store, "plain", lambda: bool(parent) and os.getppid() != parent, limits)
    except KeyboardInterrupt as end:
        say_the_end(end, f"autoresearch verify name={folder.name}")


def join(
    url: Annotated[str, typer.Argument(metavar="URL", help="Page of the track.")],
    overrides: Overrides = None,
    folder: Annotated[Path | None, typer.Option(help="Where to clone it [./TRACK].")] = None,
    author: Annotated[str, typer.Option("--as", help="Your name on the leaderboard.")] = "",
    key: Annotated[Path | None, typer.Option(help="Your SSH key; one is made if you have none.")] = None,
) -> None:
    """Join a track: search on this machine, and submit what is kept; run it again to go on."""
    import os

    from autoresearch.cli.run import say_the_end, told_to_end
    from autoresearch.swarm.join.client import clone, work
    from autoresearch.swarm.join.outbox import Joined
    from autoresearch.swarm.join.remote import Remote

    remote = Remote(url)
    identity, name = _person(key, author)
    typer.echo(f"You are {name}, with the key {identity.fingerprint} ({identity.path}).")
    root = (folder or Path(remote.track)).resolve()
    try:
        with told_to_end():
            clone(remote, root)
            os.chdir(root)
            runs = root / "runs"
            work(Joined(root, runs, remote, identity, name, tuple(overrides or ()), typer.echo))
    except KeyboardInterrupt as end:
        say_the_end(end, f"autoresearch join {url}")


def submit(
    change: Annotated[str, typer.Argument(metavar="PATCH|COMMIT", help="A patch, or a commit.")],
    message: Annotated[str, typer.Option("-m", "--message", help="What it changes, and why.")] = "",
    url: Annotated[str, typer.Option(help="Page of the track; of a clone it is known.")] = "",
    author: Annotated[str, typer.Option("--as", help="Your name on the leaderboard.")] = "",
    key: Annotated[Path | None, typer.Option(help="Your SSH key; one is made if you have none.")] = None,
) -> None:
    """Submit one change to the track of this clone."""
    from autoresearch.swarm.join.by_hand import by_hand
    from autoresearch.swarm.join.outbox import track_of
    from autoresearch.swarm.join.remote import Remote

    identity, name = _person(key, author)
    remote = Remote(url or track_of(Path.cwd()))
    row = by_hand(Path.cwd(), remote, identity, name, change, message)
    typer.echo(
        f"contribution {row['contribution']}: {row['state']}"
        + (f": {row['reason']}" if row["reason"] else "")
    )
    typer.echo(f"Follow it: {remote.page}")


def _person(key: Path | None, author: str) -> tuple[Identity, str]:
    """The key and the name of who contributes."""
    import getpass

    from autoresearch.swarm.identity import Identity

    own = Path("~/.ssh/id_ed25519").expanduser()
    identity = Identity.make(key or own)
    return identity, author or getpass.getuser()


track = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Moderate the tracks that are served from here, back them up and restore them.",
)
Reason = Annotated[str, typer.Option("-m", "--reason", help="Why; anyone can read it in the log.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="TRACK... [KEY=VALUE]...")]


@track.command("ban")
def ban(
    who: Annotated[str, typer.Argument(metavar="WHO", help="Name or key of a contributor.")],
    overrides: Overrides = None,
    reason: Reason = "",
) -> None:
    """Take nothing more of a contributor; without a reason the ban is lifted."""
    from autoresearch.swarm.moderate import opened_store

    with opened_store(_runs(overrides)) as store:
        count = store.ban(store.person(who), reason)
    typer.echo(
        f"{who} is banned; {count} waiting were refused." if reason else f"{who} may contribute again."
    )


@track.command("hide")
def hide(
    number: Annotated[int, typer.Argument(metavar="N", help="Number of a contribution.")],
    overrides: Overrides = None,
    reason: Reason = "",
) -> None:
    """Hide the texts of a contribution of a track (name=TRACK); without a reason they are shown again."""
    from autoresearch.cli.inspect import chosen
    from autoresearch.swarm.moderate import hide, opened_store

    folder = chosen(overrides)
    with opened_store(folder.parent) as store:
        hide(store, folder.name, [number], reason)


@track.command("remove")
def remove(
    who: Annotated[str, typer.Argument(metavar="WHO", help="Name or key of a contributor.")],
    overrides: Overrides = None,
    reason: Reason = "the owner of the track decided so",
) -> None:
    """Rebuild the branch of a track (name=TRACK) without the commits of a contributor."""
    from autoresearch.cli.inspect import chosen
    from autoresearch.swarm.moderate import opened_store, remove

    folder = chosen(overrides)
    with opened_store(folder.parent) as store:
        taken = remove(folder, store, store.person(who), reason)
    numbers = ", ".join(map(str, taken)) or "none"
    typer.echo(f"Taken back: experiments {numbers}. What others had kept on top is measured again.")


@track.command("backup")
def backup(
    words: Names = None, to: Annotated[Path, typer.Option(help="The file.")] = Path("tracks.backup")
) -> None:
    """Write tracks into one file, with everything that was contributed and the server's key."""
    from autoresearch.store.git.repository import Repository
    from autoresearch.swarm.moderate import back_up

    names, overrides = apart(words)
    size = back_up(_runs(overrides), names, Repository(Path.cwd()), to)
    typer.echo(f"{to}: {size:,} bytes. Keep it secret: it holds the server's key.")


@track.command("restore")
def restore(path: Annotated[Path, typer.Argument(metavar="FILE")], overrides: Overrides = None) -> None:
    """Restore tracks from a file that `track backup` wrote."""
    from autoresearch.store.git.repository import Repository
    from autoresearch.swarm.moderate import restore

    names = restore(path, Repository(Path.cwd()), _runs(overrides))
    typer.echo(f"Restored. Serve them: autoresearch serve {' '.join(names)}")


def _runs(overrides: list[str] | None) -> Path:
    """The folder of searches."""
    from autoresearch.search.setup.settings import place_of, runs_of
    from autoresearch.store.git.repository import Repository

    return runs_of(place_of(overrides or []), Repository(Path.cwd()))
