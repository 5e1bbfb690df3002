"""What a server shows of a track, as JSON-ready values: rules, tip, chain, who found what, what was tried.

All of it is read from the journal of the track's search and from the store, and read anew when one of them
has changed. Texts of strangers are clean and without secrets. What is not shown: patches that still wait,
addresses, the secret of the seeds, where data lie on this machine, and anything of the sealed split but the
result of a claim. Not covered: HTTP (`server`), and how it looks (`page`).
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from autoresearch import __version__
from autoresearch.config import FIXED
from autoresearch.errors import Refused, UserError
from autoresearch.report.markdown import claim_sentence, direction, headline
from autoresearch.report.summary import Summary, summarize
from autoresearch.search.setup.environment import read_environments
from autoresearch.search.setup.settings import recorded_config
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.swarm import intake
from autoresearch.swarm.chain.links import REF as CHAIN
from autoresearch.swarm.contribution import Signed, canonical, sha256
from autoresearch.swarm.queue import Record, claimed
from autoresearch.swarm.store import Received, State, Store
from autoresearch.swarm.verify.follower import contribution_of
from autoresearch.tasks import create_task
from autoresearch.text import clean, one_line, scrub
from autoresearch.types import Experiment, in_order

FRESH = 1.0
"""Seconds for which what was read of a search that goes on is shown."""

SHOWN = 200
"""Contributions that are listed, the latest."""

PRIVATE = ("data.path", "data.other_path")
"""Settings that name places of this machine."""

REF = "refs/autoresearch-tracks/"
"""Where the tip of a track is kept for its bundle; the branch may be checked out, and lag behind."""

SCHEME = (
    "Claims order the queue and are no evidence. The verifier trains a contribution with its own seeds "
    "beside the tip; the judge keeps it if the gain is beyond the noise at the stated rate of false keeps."
)


class Track:
    """One track.

    Args:
        folder: Of its search.
        store: Of the server.
        repository: With its commits.
    """

    def __init__(self, folder: Path, store: Store, repository: Repository) -> None:
        self.folder, self.name = folder, folder.name
        self.store, self.repository = store, repository
        self.config = recorded_config(folder)
        self.task = create_task(self.config)
        self.journal = Journal.of(folder)
        self._lock = threading.Lock()
        self._read_at, self._version = -math.inf, -2
        self._summary: Summary | None = None
        self.sources = lru_cache(maxsize=32)(self._sources)

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def begin(self) -> None:
        """Begin the log of the track, if it has none.

        Raises:
            UserError: If the baseline of its search has no score yet.
        """
        info = self.journal.info()
        if self.summary.estimates.baseline is None:
            raise UserError(
                f"The starting point of {self.name} has not been measured yet.",
                f"Measure it: autoresearch run name={self.name} experiments=0",
            )
        about = {"base": info.base_commit, "tip": self.links[-1].commit, "task": info.task}
        about |= {"metric": info.metric.name, "data": self.data, "key": self.store.identity.public_key}
        editable = self.repository.matching(info.base_commit, self.task.editable)
        self.store.add_track(self.name, {**about, "settings": self.settings, "editable": editable})
        self.store.publish(self.name, self.repository)

    # What may be sent

    @property
    def summary(self) -> Summary:
        """The search, as its journal tells of it."""
        version = self.store.decisions(self.name)
        with self._lock:
            old = version != self._version or time.monotonic() - self._read_at > FRESH
            if self._summary is None or old:
                self._summary = summarize(self.journal)
                self._read_at, self._version = time.monotonic(), version
            return self._summary

    def check(self, signed: Signed) -> float:
        """Check that a contribution may be tried, as far as that can be seen without reading it as a program.

        Returns:
            The gain that it claims; see `queue.claimed`.

        Raises:
            Refused: With the reason, for its sender.
        """
        sent, summary = signed.contribution, self.summary
        if not any(e.commit == sent.parent and (e.kept or e.number == 0) for e in summary.experiments):
            raise Refused(f"{sent.parent[:10]} is no commit of this track; build on its tip")
        intake.take(signed, self.sources(sent.parent))
        return claimed(sent.evidence.pairs, summary.metric, summary.estimates.noise)

    def _sources(self, commit: str) -> Mapping[str, str]:
        """The editable files of a commit."""
        return self.repository.sources(commit, self.task.editable)

    @property
    def links(self) -> list[Experiment]:
        """The chain: the start, then what was kept, in order."""
        return [e for e in in_order(self.summary.experiments) if e.kept or e.number == 0]

    # What is shown

    @cached_property
    def settings(self) -> list[str]:
        """Settings that a contributor needs for scores that mean the same."""
        given = dict(o.partition("=")[::2] for o in self.config.overrides)
        chosen = {key: choice for key, choice in self.config.choices.items() if key in FIXED}
        own = {k: v for k, v in given.items() if k.partition(".")[0] in FIXED and k not in (*PRIVATE, "seed")}
        return [f"{key}={value}" for key, value in {**chosen, **own}.items()]

    @cached_property
    def data(self) -> str:
        """Digest of what the prepared data are."""
        return sha256(canonical(dict(self.journal.info().data)))

    def about(self) -> dict[str, Any]:
        """The rules of the track, and where it stands."""
        summary, info, prompt = self.summary, self.journal.info(), self.task.prompt()
        now, best = summary.estimates, summary.estimates.best
        environments = read_environments(self.journal)
        gain = summary.gain
        return {
            "track": self.name,
            "version": __version__,
            "key": self.store.identity.public_key,
            "headline": headline(summary),
            "task": info.task,
            "role": prompt.role,
            "rules": list(prompt.rules),
            "budget": prompt.budget,
            "editable": list(self.task.editable),
            "settings": self.settings,
            "private_data": any(o.startswith(PRIVATE) for o in self.config.overrides),
            "data": self.data,
            "trust": str(self.task.trust),
            "evidence": SCHEME,
            "judge": dict(self.config.judge),
            "brief": info.brief_text,
            "device": one_line(info.device),
            "environment": dict(environments[-1].values) if environments else {},
            "metric": {
                "name": info.metric.name,
                "unit": info.metric.unit,
                "better": direction(info.metric),
                "digits": info.metric.digits,
            },
            "base": info.base_commit,
            "tip": self.links[-1].commit,
            "noise": now.noise,
            "noise_freedom": now.freedom,
            "baseline": now.baseline and {"mean": now.baseline.mean, "interval": now.baseline.interval},
            "best": best and {"mean": best.estimate.mean, "interval": best.estimate.interval},
            "gain": gain and {"absolute": gain.absolute, "interval": gain.interval},
            "claim": claim_sentence(summary.claim, info.metric) if summary.claim else "",
            "waiting": sum(one.state in (State.WAITING, State.TAKEN) for one in self._received),
        }

    @property
    def _received(self) -> Sequence[Received]:
        return self.store.contributions(self.name)

    def chain(self) -> list[dict[str, Any]]:
        """The links of the chain, the start first."""
        received = {one.number: one for one in self._received}
        flags = self.flags()
        return [self._link(e, received, flags) for e in self.links]

    def _link(
        self, e: Experiment, received: Mapping[int, Received], flags: Mapping[str, str]
    ) -> dict[str, Any]:
        number = contribution_of(e.proposal)
        found = received.get(number) if number is not None else None
        verdict, proposal = e.verdict, e.proposal
        title = "the start" if proposal is None else _text(proposal.hypothesis)
        return {
            "commit": e.commit,
            "experiment": e.number,
            "title": "(hidden)" if found and found.hidden else title,
            "author": found.author if found else "",
            "who": found.who if found else "",
            "contribution": found.digest if found else "",
            "gain": verdict.effect if verdict else None,
            "interval": verdict.interval if verdict else None,
            "trials": verdict.trials if verdict else len(e.trials),
            "time": e.finished,
            "flagged": flags.get(e.commit, ""),
        }

    def flags(self) -> dict[str, str]:
        """Commit -> why it was flagged."""
        found = {}
        for entry in self.store.flagged(self.name):
            found[str(entry.data.get("commit", ""))] = str(entry.data.get("reason", ""))
        return found

    def contributions(self, most: int = SHOWN) -> list[dict[str, Any]]:
        """What was received and what became of it, the latest first."""
        return [self.shown(one) for one in self.store.contributions(self.name, most)]

    def row(self, digest: str) -> dict[str, Any] | None:
        """What became of one contribution."""
        found = self.store.find(digest)
        return self.shown(found) if found and found.track == self.name else None

    def shown(self, one: Received) -> dict[str, Any]:
        """What is told of a contribution."""
        return {
            "number": one.number,
            "contribution": one.digest,
            "title": "(hidden)" if one.hidden else _text(one.title),
            "author": _text(one.author),
            "who": one.who,
            "received": one.received,
            "state": str(one.state),
            "reason": _text(one.hidden or one.reason, 600),
            "claim": one.claim,
            "gain": one.effect,
            "experiment": one.experiment,
            "commit": one.commit,
        }

    def people(self) -> list[dict[str, Any]]:
        """Everybody who sent something, by the share of the confirmed gain."""
        received, records = self._received, self.store.records(self.name)
        kept = [one for one in received if one.state is State.KEPT and one.effect is not None]
        whole = sum(max(one.effect or 0.0, 0.0) for one in kept)
        noise = self.summary.estimates.noise
        states: dict[str, Counter[str]] = {}
        names: dict[str, str] = {}
        for one in received:
            states.setdefault(one.who, Counter())[str(one.state)] += 1
            names[one.who] = one.author
        rows = []
        for who, counts in states.items():
            gain = sum(max(one.effect or 0.0, 0.0) for one in kept if one.who == who)
            measured = [
                one for one in received if one.who == who and one.effect is not None and one.claim > 0
            ]
            ratios = [(one.effect or 0.0) / noise / one.claim for one in measured if noise]
            rows.append(
                {
                    "author": _text(names[who]),
                    "who": who,
                    "gain": gain,
                    "share": gain / whole if whole else 0.0,
                    "sent": counts.total(),
                    "states": dict(counts),
                    "trust": records.get(who, Record()).trust,
                    "calibration": median(ratios) if ratios else None,
                }
            )
        return sorted(rows, key=lambda row: (-row["gain"], -row["trust"], row["author"]))

    def tried(self) -> list[dict[str, Any]]:
        """Every experiment with its verdict and its change, so that nobody repeats it."""
        hidden = {one.number for one in self._received if one.hidden}
        return [
            {
                "experiment": e.number,
                "title": _text(e.proposal.hypothesis),
                "verdict": str(e.verdict.kind),
                "gain": e.verdict.effect,
                "reason": _text(e.verdict.reason, 600),
                "parent": e.parent,
                "diff": scrub(e.diff),
            }
            for e in in_order(self.summary.experiments)
            if e.proposal and e.verdict and contribution_of(e.proposal) not in hidden
        ]

    def ideas(self) -> list[str]:
        """Ideas in words that the track's owner left, and nobody has tried."""
        return [_text(idea.text, 1000) for idea in Inbox(self.folder).ideas() if not idea.patch]

    def bundle(self) -> Path:
        """A file with the tip of the track, its history, and its chain, for `git`."""
        tip, chain = self.links[-1].commit, self.repository.resolve(f"{CHAIN}{self.name}")
        folder = self.store.path.parent / "bundles"
        path = folder / f"{self.name}-{tip}-{chain}.bundle"
        with self._lock:
            if path.exists():
                return path
            folder.mkdir(exist_ok=True)
            self.repository.update_refs({f"{REF}{self.name}": tip})
            partial = path.with_suffix(".partial")
            self.repository.bundle(partial, [f"{REF}{self.name}", f"{CHAIN}{self.name}"])
            partial.replace(path)
            for old in folder.glob(f"{self.name}-*.bundle"):
                if old != path:
                    with suppress(OSError):  # somebody may be reading it
                        old.unlink()
        return path


def _text(text: str, limit: int = 300) -> str:
    return one_line(scrub(clean(text)), limit)
