"""A contributor's side: joins a track, searches on its own machine, and submits what its own judge keeps.

Everything is in files of the clone: each round is an ordinary search that starts from the tip of its time,
and what is submitted is written down before it is sent. So a contributor that is killed at any instant goes
on with the same command, and sends nothing twice. When the tip has moved, the round ends and the next begins
there; what came back because it no longer fits is merged onto the new tip and tried again. What a server says
is checked like any other text; its code runs here as the code of any repository that one clones and runs.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoresearch.config import FIXED, load
from autoresearch.errors import UserError
from autoresearch.report.estimates import estimate
from autoresearch.search.setup.environment import this_environment
from autoresearch.search.setup.open import open_search
from autoresearch.search.setup.settings import recorded_config
from autoresearch.store.connection import JOURNAL, holds_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.swarm.contribution import canonical, sha256
from autoresearch.swarm.join.outbox import ABOUT, Joined, deliver, fetch_chain, fetch_tip, rebase, write
from autoresearch.swarm.join.remote import Remote, Unreachable
from autoresearch.swarm.join.tried import tried_before
from autoresearch.swarm.web.track import REF
from autoresearch.tasks import create_task
from autoresearch.text import count, one_line

AGREES = 4.0
"""Standard errors by which two measurements of the same commit may differ."""

POLL_SECONDS = 10.0


def clone(remote: Remote, folder: Path) -> Repository:
    """The repository of a track in a folder, made there if it is missing.

    Raises:
        UserError: If the folder holds something else, or the server sends what it should not.
    """
    note = folder / "runs" / ABOUT
    if note.exists():
        known = json.loads(note.read_text(encoding="utf-8"))
        about = remote.about()
        if (known["url"], known["key"]) != (remote.url, about["key"]):
            raise UserError(
                f"{folder} is a clone of {known['url']}, whose key was {known['key']}.",
                "Join in another folder; if the server has a new key, ask its owner why.",
            )
        return Repository(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"The folder {folder} is not empty.", "Join in another one: --folder")
    about = remote.about()
    partial = folder.with_name(f".{folder.name}.partial")  # a kill leaves the whole clone, or none
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bundle = partial / ".bundle"
    remote.download("bundle", bundle)
    repository = Repository.create(partial, bundle, f"{REF}{remote.track}", about["tip"])
    fetch_chain(repository, bundle, remote.track)
    bundle.unlink()
    with (partial / ".git" / "info" / "exclude").open("a") as stream:
        stream.write("runs/\n")
    (partial / "runs").mkdir(exist_ok=True)
    write(partial / "runs" / ABOUT, {"url": remote.url, "track": remote.track, "key": about["key"]})
    partial.replace(folder)  # an empty folder may be there
    return Repository(folder)


def settings_of(about: Mapping[str, Any]) -> list[str]:
    """The settings of a track, which decide what a score means, and nothing else of this machine.

    Raises:
        UserError: If the server sends others.
    """
    found = [str(setting) for setting in about["settings"]]
    for setting in found:
        if setting.partition("=")[0].partition(".")[0] not in FIXED:
            raise UserError(f"The server sets {one_line(setting)}, which is no business of a track.")
    return found


# A round: a search that starts from the tip


def round_name(about: Mapping[str, Any]) -> str:
    """The name of the search that starts from the tip."""
    return f"{about['track'][:40]}-{about['tip'][:10]}"


def search(joined: Joined, about: Mapping[str, Any], view: str = "plain") -> bool:
    """Search from the tip of the track until it moves or the experiments are used up; submits what is kept.

    Returns:
        Whether to go on with another round.

    Raises:
        UserError: If this machine cannot serve the track.
    """
    repository = joined.repository
    if repository.resolve(about["tip"]) is None:
        fetch_tip(repository, joined.remote, about["tip"])
        joined.say(f"The tip is {about['tip'][:10]} now: {one_line(str(about['headline']))}")
    name = round_name(about)
    folder = joined.runs / name
    asked = [f"name={name}", f"runs={joined.runs}", "claim=0", *settings_of(about), *joined.settings]
    left = load(asked, own_file=False).experiments - used(joined.runs, name)
    if left <= 0:
        return False
    if not holds_search(folder) or not _measured(folder):
        with open_search([*asked, "experiments=0"], view, start=about["tip"]) as opened:
            opened.run()
    require_agreement(folder, about)
    rebase(joined, about, folder)
    with (
        open_search([*asked, f"experiments={left}"], view, start=about["tip"]) as opened,
        courier(joined, about),
    ):
        opened.state.elsewhere.update(tried_before(joined, opened))
        done = opened.run()
    deliver(joined)
    return not done


def used(runs: Path, name: str) -> int:
    """How many experiments the rounds before this one have tried."""
    total = 0
    for path in runs.glob(f"*/{JOURNAL}"):
        if path.parent.name != name:
            with Journal(path) as journal:
                total += len(journal.experiments()) - 1
    return total


def require_agreement(folder: Path, about: Mapping[str, Any]) -> None:
    """Check that the tip scores the same here as at the server, within the noise of both.

    Raises:
        UserError: If not; says why, as far as that can be seen.
    """
    with Journal.of(folder) as journal:
        info, found = journal.info(), estimate(journal.experiments())
    if not about["private_data"] and sha256(canonical(dict(info.data))) != about["data"]:
        raise UserError(
            "The data that were prepared here are not those of the track, so scores mean something else.",
            "Update autoresearch to the version of the server: " + one_line(str(about["version"])),
        )
    theirs, ours = about["best"], found.baseline
    if theirs is None or ours is None:
        return
    noise = max(found.noise or 0.0, float(about["noise"] or 0.0))
    ends = theirs["interval"]
    spread = (float(ends[1]) - float(ends[0])) / 4 if ends else noise
    error = (noise**2 / ours.trials + max(spread, noise / 10) ** 2) ** 0.5
    apart = abs(ours.mean - float(theirs["mean"]))
    if apart <= AGREES * error:
        return
    text, theirs_mean = info.metric.text, float(theirs["mean"])
    why = []
    if one_line(info.device) != about["device"]:
        why.append(f"it is {one_line(info.device)}, the server's is {one_line(str(about['device']))}")
    own = this_environment(recorded_config(folder), create_task(recorded_config(folder))).values
    differing = [
        k for k, v in dict(about["environment"]).items() if own.get(k) != v and k not in ("system", "device")
    ]
    why += [f"other versions of {', '.join(map(one_line, differing))}"] if differing else []
    raise UserError(
        f"This machine cannot serve the track: its tip scores {text(ours.mean)} here and {text(theirs_mean)} "
        f"at the server, which is {apart / error:.0f} standard errors apart.",
        f"What differs: {'; '.join(why) or 'nothing that can be seen'}. With a budget of seconds, only "
        "machines of the same speed compare.",
    )


def _measured(folder: Path) -> bool:
    with Journal.of(folder) as journal:
        return journal.judge_state() is not None


@contextmanager
def courier(joined: Joined, about: Mapping[str, Any]) -> Iterator[None]:
    """While a round goes on: submits what is kept, and ends the round when the tip has moved.

    A server that does not answer is asked again later; nothing depends on it meanwhile.
    """
    closed = threading.Event()
    inbox = Inbox(joined.runs / round_name(about))

    def run() -> None:
        told = False
        while not closed.wait(POLL_SECONDS):
            try:
                deliver(joined)
                moved = joined.remote.about()["tip"] != about["tip"]
                told = False
            except Unreachable as error:
                if not told:
                    joined.say(str(error))
                told = True
                continue
            except UserError as error:
                joined.say(str(error))
                continue
            if moved:
                inbox.wish("stop")
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join()


def work(joined: Joined, view: str = "plain") -> None:
    """Search round after round, until the experiments are used up."""
    while True:
        try:
            about = joined.remote.about()
            deliver(joined)
            if not search(joined, about, view):
                break
        except Unreachable as error:
            joined.say(f"{error} Asking again.")
            time.sleep(POLL_SECONDS)
    joined.say(f"Done: {count(len(joined.outbox), 'contribution')} submitted; see {joined.remote.page}")
