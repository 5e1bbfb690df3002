"""What a worker and the executor of a search tell each other, as plain data.

A message is a mapping of JSON values with a "kind"; those of kind "file" have bytes besides, under "data".
As a line of text a message is JSON, with the bytes in base64.

    to a worker:    setup     what it needs before its first trial
                    order     a trial, or a tryout, of one attempt
                    cancel    attempts whose results are not needed
                    file      a piece of a file that it asked for
                    ping      somebody still wants its results
                    close     end
    from a worker:  hello     machine, device
                    need      files that it lacks
                    ready     the measurer is made
                    started, progress, finished       of an attempt
                    file      a piece of a file that a trial left
                    alive     the answer to a ping
                    message   for a person
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.errors import UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.worker.files import Listing
from autoresearch.types import Measurement, Plain

Wire = dict[str, Any]
"""A message."""


@dataclass(frozen=True)
class Setup(Plain):
    """How a worker makes its measurer.

    Attributes:
        search: Name of the search.
        maker: "module:function"; see `worker.Maker`. It is imported on the worker's machine.
        options: For the maker; JSON values.
        folders: Name -> prepared folder, for the maker.
        trusted: Files that the maker finds as the folder "trusted", beside the folders of trials.
        versions: Package -> version on which scores depend; a worker that has others does not measure.
    """

    search: str
    maker: str
    options: Mapping[str, Any] = field(default_factory=dict)
    folders: Mapping[str, Listing] = field(default_factory=dict)
    trusted: Listing | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Order(Plain):
    """One attempt at a trial or a tryout.

    Attributes:
        attempt: Differs for each attempt, also of the same trial.
        spec: The trial; the files of its tree are those of `tree`.
        tree: The candidate's files.
        kept: What an earlier trial submitted, as `spec.submission`; None: it is not there.
        fence: File that says which attempts count; see `fence.Fence`. Empty: there is none.
    """

    attempt: str
    spec: TrialSpec
    tree: Listing
    kept: Listing | None = None
    fence: str = ""


def to_line(message: Wire) -> bytes:
    """A message as one line."""
    if "data" in message:
        message = {**message, "data": base64.b64encode(message["data"]).decode()}
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> Wire:
    """The inverse of `to_line`.

    Raises:
        ValueError: If it is no message.
    """
    message: Wire = json.loads(line)
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ValueError(f"{line[:80]!r} is no message")
    if "data" in message:
        message["data"] = base64.b64decode(message["data"])
    return message


def encode_result(result: Measurement | BaseException | None) -> Wire:
    """How an attempt ended: the values "measurement" or "error", or neither if it was cancelled."""
    if isinstance(result, Measurement):
        return {"measurement": result.to_dict()}
    if isinstance(result, UserError):
        return {"error": {"text": str(result), "hint": result.hint, "code": result.code}}
    if isinstance(result, BaseException):
        return {
            "error": {"text": f"A worker failed: {type(result).__name__}: {result}", "hint": "", "code": 3}
        }
    return {}


def decode_result(message: Wire) -> Measurement | UserError | None:
    """The inverse of `encode_result`; every error becomes a `UserError`."""
    if (found := message.get("measurement")) is not None:
        return Measurement.from_dict(found)
    if (error := message.get("error")) is not None:
        return UserError(error["text"], error["hint"], error["code"])
    return None
