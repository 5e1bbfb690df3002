"""The words for a final claim and an audit: in the report, in the terminal, in MLflow.

Owns the wording of what may be said: means with an interval, never the best seed, never the score of the
search; and how often the sealed test split has been looked at.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.judge.audit import SHARE, false_share
from autoresearch.report.page import table
from autoresearch.store.claims import AuditRecord

Fields = Mapping[str, Any]
"""A `ClaimRecord`, or the `Claim` in it, as plain values."""


def sentence(record: Fields) -> str:
    """A claim in a sentence or two."""
    result = record["result"]
    if result is None:
        return "The final claim is not finished." if record["finished"] is None else _failed(record)
    low, high = result["interval"]
    text = (
        f"On the sealed test split {result['baseline']:.4f} became {result['tip']:.4f} bits per byte: "
        f"a gain of {result['effect']:.4f}, 95% interval {low:.4f} to {high:.4f}, "
        f"over {result['seeds'][0]} and {result['seeds'][1]} trainings on fresh seeds."
    )
    return text + (" The interval includes zero: no gain can be claimed." if low <= 0 else "")


def section(s: Mapping[str, Any]) -> list[str]:
    """The part of the report about the claim of the present tip."""
    claim = s["claim"]
    if claim is None:
        return []
    lines = [f"{sentence(claim)} Neither these seeds nor these documents steered the search."]
    if result := claim["result"]:
        lines.append(table(["", ""], _rows(claim, result, s["judge"])))
    lines.append(_looks(s["claims"]))
    return ["## What may be claimed", *lines]


def _rows(claim: Fields, result: Fields, judge: Fields | None) -> list[list[str]]:
    rows = [
        ["Gain on the test split", f"{result['effect']:+.4f} ± {result['error']:.4f}"],
        ["of which chance in its documents", f"± {result['sampling']:.4f}"],
    ]
    if result["overfit"] is not None:
        both = f"{result['effect'] + result['overfit']:+.4f}"
        rows.append(["Gain of the same models on validation", both])
        rows.append(["Overfitting to validation (the difference)", f"{result['overfit']:+.4f}"])
    if failed := sum(bool(a["reason"]) for a in claim["accesses"]):
        rows.append(["Trainings that failed", f"{failed} of {len(claim['accesses'])}"])
    if judge is not None:
        rows.append(
            ["Candidates tried, confirmed, kept", "{candidates}, {confirmed}, {kept}".format(**judge)]
        )
        if judge["expected_false_keeps"] is not None:
            rows.append(["Expected false keeps among them", f"{judge['expected_false_keeps']:.2f}"])
    return rows


def _looks(claims: Sequence[Fields]) -> str:
    dates = [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(c["started"])) for c in claims]
    count = sum(a["started"] is not None for c in claims for a in c["accesses"])
    times = "once" if len(dates) == 1 else f"{len(dates)} times"
    return f"The test split was opened {times} ({', '.join(dates)}), for {count} models."


def _failed(record: Fields) -> str:
    failed = sum(bool(a["reason"]) for a in record["accesses"])
    return f"No claim can be made: {failed} of {len(record['accesses'])} trainings failed."


def audit_lines(record: AuditRecord) -> list[str]:
    """An audit in lines for a terminal."""
    text = [f"{'#':>4}  {'gain':>8}  {'95% interval':>20}  doubt"]
    for i, (number, found) in enumerate(zip(record.keeps, record.audited, strict=True)):
        interval = f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}"
        note = "  to be taken out" if i in record.removed else ""
        note = note or ("" if record.separable[i] else "  later changes build on it")
        text.append(f"{number:4d}  {found.effect:+8.4f}  {interval:>20}  {found.doubt:5.0%}{note}")
    done = sum(run.score is not None for run in record.runs)
    text.append(f"{done} trainings with random halves left out; gains are taken to add up.")
    if record.audited and (share := false_share(record.audited, record.removed)) > SHARE:
        text.append(f"Of what stays, {share:.0%} is expected to gain nothing: it cannot be left out.")
    if record.branch:
        text.append(f"The branch {record.branch} has the rest.")
    return text
