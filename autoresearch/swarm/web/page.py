"""The pages of a server of tracks, without any script: a list, a leaderboard for each track, an Atom feed.

Everything of strangers is text, escaped by the template. Not covered: what is shown (`track`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from autoresearch.swarm.web.track import Track
from autoresearch.text import count

if TYPE_CHECKING:
    from jinja2 import Environment

FEED_ENTRIES = 50

STATES = {
    "waiting": "waits for the verifier",
    "taken": "is being measured",
    "kept": "kept",
    "discarded": "not confirmed",
    "returned": "sent back: no longer fits the tip",
    "refused": "refused",
    "removed": "taken back",
}
"""State of a contribution -> what people read."""


def index(tracks: Sequence[Track], address: str) -> str:
    """The list of tracks."""
    rows = [{"name": track.name, "about": track.about(), "links": len(track.links)} for track in tracks]
    return _render("index.html", title="Tracks", tracks=rows, address=address)


def track_page(track: Track, address: str) -> str:
    """The leaderboard of a track."""
    about = track.about()
    rows = track.contributions()
    return _render(
        "track.html",
        title=track.name,
        about=about,
        people=track.people(),
        chain=track.chain()[::-1],
        open=[row for row in rows if row["state"] in ("waiting", "taken")],
        closed=[row for row in rows if row["state"] not in ("waiting", "taken")],
        score=track.summary.metric.text,
        address=address,
        states=STATES,
    )


def feed(track: Track, address: str) -> str:
    """The links of the chain as an Atom feed, the latest first."""
    links = track.chain()[1:][::-1][:FEED_ENTRIES]
    latest = links[0]["time"] if links else track.journal.info().created
    return _render("feed.xml", track=track, links=links, latest=latest, address=address)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("autoresearch.swarm.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"when": _when, "stamp": _stamp, "share": _share, "key": _key, "ago": _ago}
    found.filters["short"] = short
    found.globals["count"] = count
    return found


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(**values)


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) + " UTC" if seconds else ""


def _ago(seconds: float | None) -> str:
    return time.strftime("%b %d", time.gmtime(seconds)) if seconds else ""


def _stamp(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds or 0))


def _share(part: float) -> str:
    return f"{100 * part:.0f}%"


def _key(fingerprint: str) -> str:
    """A colour of a key, so that two people of similar names are told apart at a glance."""
    return f"hsl({int(hashlib.sha256(fingerprint.encode()).hexdigest()[:4], 16) % 360} 55% 45%)"


def short(fingerprint: str) -> str:
    """The beginning of a fingerprint: two people whose names look the same are told apart by it."""
    return fingerprint.removeprefix("SHA256:")[:8]
