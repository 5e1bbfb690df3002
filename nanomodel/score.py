"""The scorer: computes bits per byte of submitted weights, out of the candidate's reach.

    python -m nanomodel.score --cache FOLDER --weights FILE --context 256      once, from the command line
    HARNESS_FD=n python -m nanomodel.score                                     job after job, for a runner

This process holds the validation and test tokens and never runs candidate code. The model runs in servers;
under a runner they are the runner's children, in a sandbox. `scoring.bits_per_byte` computes the score.

    runner -> {"type": "score", cache, splits, context, device, threads, seed, probes, seconds, ...}
              + [weights, a socket for each server in the order in which they are asked]
    scorer -> {"type": "measured"}      the first server is no longer needed; then the next, but the last
    runner -> {"type": "retired"} + [another copy of the weights]       that server is dead
    scorer -> {"type": "scored", "scores": for each split {score, nats, bytes, tokens, pieces, difference,
                                             blind: the score by the blind answers alone, if there are any}}
              + [for each split memory: float64 [pieces, 3]: nats, bytes and document of each piece;
                 the same of each target that was asked for blind (a document each), if any was;
                 the same of all pieces of the slices one after the other, if the job has slices, whose
                 names and numbers of pieces are "slices": [[name, pieces], ...]]
            | {"type": "failed", "outcome": "crash" | "invalid", "reason"}        the candidate's fault
            | {"type": "error", "reason"}                                         the host's fault
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nanomodel.data import DataError
from nanomodel.scoring.bits_per_byte import Job, Score, score
from nanomodel.scoring.client import Failure
from nanomodel.standalone import common_parser, open_prepared
from nanomodel.wire import Closed, Message, Wire, close_all, create_memory, map_memory, pair


def main() -> None:
    """Work for a runner if there is one, otherwise follow the command line."""
    fd = os.environ.get("HARNESS_FD")
    if fd is None:
        return command_line()
    forbid_tracing()
    wire = Wire.from_fd(int(fd))
    with contextlib.suppress(Closed):
        wire.send({"type": "hello"})
        for message, fds in _messages(wire):
            answer, memory = _work(wire, message, fds)
            wire.send(answer, memory)
            close_all(memory)


def forbid_tracing() -> None:
    """Let no process of the same user read this one's memory or descriptors (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def _messages(wire: Wire) -> Iterator[tuple[Message, list[int]]]:
    while True:
        yield wire.recv()


def _work(runner: Wire, message: Message, fds: list[int]) -> tuple[Message, list[int]]:
    """Do one job. No error ends this process, unless the runner is gone."""
    weights, *sockets = fds
    copies: list[int] = []
    servers = [Wire.from_fd(fd) for fd in sockets]
    answering = iter(servers)

    def retire() -> int:
        next(answering).close()
        runner.send({"type": "measured"})
        copies.extend(runner.recv()[1])
        return copies[-1]

    try:
        job = Job(**{k: v for k, v in message.items() if k != "type"})
        done = score(job, weights, servers, retire)
    except Failure as failure:
        return {"type": "failed", "outcome": failure.outcome, "reason": str(failure)}, []
    except Closed:
        raise
    except Exception as error:
        traceback.print_exc()
        return {"type": "error", "reason": f"{type(error).__name__}: {error}"[:2000]}, []
    finally:
        close_all([weights, *copies])
        for server in servers:
            server.close()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # the next training needs the memory
    about = {split: _described(part) for split, part in zip(job.splits, done, strict=True)}
    tables = [_table(part.nats, part.bytes, part.documents) for part in done]
    answers = [part.blind for part in done if part.blind]
    tables += [_table(blind.nats, blind.bytes, np.arange(len(blind.nats))) for blind in answers]
    if not job.slices:
        return {"type": "scored", "scores": about}, tables
    found = {name: table for part in done for name, table in part.slices.items()}
    whole = np.concatenate([np.empty((0, 3)), *found.values()])
    tables.append(_shared(whole))
    sizes = [[name, len(table)] for name, table in found.items()]
    return {"type": "scored", "scores": about, "slices": sizes}, tables


def _described(done: Score) -> Message:
    return {
        "score": done.bits_per_byte,
        "nats": float(done.nats.sum()),
        "bytes": int(done.bytes.sum()),
        "tokens": done.tokens,
        "pieces": len(done.nats),
        "difference": done.difference,
        **({"blind": done.blind.bits_per_byte} if done.blind else {}),
    }


def _table(nats: NDArray[np.floating], sizes: NDArray[np.int64], documents: NDArray[np.int64]) -> int:
    """Memory with nats, bytes and document of each item, float64 [items, 3]."""
    return _shared(np.stack([nats, sizes, documents], axis=1).astype(np.float64))


def _shared(table: NDArray[np.float64]) -> int:
    memory = create_memory(max(1, table.nbytes))
    if table.nbytes:
        with map_memory(memory, table.nbytes) as shared:
            shared[:] = table.tobytes()
    return memory


def command_line(arguments: Sequence[str] | None = None) -> None:
    """Score one file of weights with the `nanomodel.train` that Python finds here; print the result.

    Raises:
        SystemExit: If there is no score.
    """
    options = _parser().parse_args(arguments)
    cache = open_prepared(options.cache)
    job = Job(
        cache=str(cache.path),
        splits=(options.split,),
        context=options.context,
        device=options.device,
        threads=options.threads,
        seed=int.from_bytes(os.urandom(4), "little"),
        probes=options.probes,
        seconds=options.seconds,
    )
    with contextlib.ExitStack() as stack:
        try:
            weights = stack.enter_context(Path(options.weights).open("rb"))
            servers = [stack.enter_context(_server(options.device)) for _ in range(2)]
            done = score(job, weights.fileno(), servers)[0]
        except (Failure, DataError, OSError) as error:
            raise SystemExit(f"There is no score: {error}") from None
    if options.json:
        about = {"split": options.split, "tokens": done.tokens, "bytes": int(done.bytes.sum())}
        numbers = {"bits_per_byte": done.bits_per_byte, **about, "difference": done.difference}
        Path(options.json).write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    name = {"validation": "val_bpb"}.get(options.split, f"{options.split}_bpb")
    print(f"{name:20s} {done.bits_per_byte:.6f}")


@contextlib.contextmanager
def _server(device: str) -> Iterator[Wire]:
    """A model server on this module's own path, without a sandbox."""
    ours, theirs = pair()
    # The size of the script's model depends on the devices that PyTorch sees.
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"} if device == "cpu" else {}
    environment = {**os.environ, **hidden, "HARNESS_FD": str(theirs.fileno())}
    command = [sys.executable, "-m", "nanomodel.serve"]
    process = subprocess.Popen(
        command, env=environment, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
    )
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.kill()
        process.wait()


def _parser() -> argparse.ArgumentParser:
    parser = common_parser("nanomodel.score", "Score weights.")
    parser.add_argument("--weights", required=True, help="what a training run kept with --out")
    parser.add_argument("--split", default="validation", choices=("train", "validation", "test"))
    parser.add_argument("--probes", type=int, default=64, help="windows to check for causality (default: 64)")
    parser.add_argument("--seconds", type=float, default=600.0, help="give up after this long (default: 600)")
    return parser


if __name__ == "__main__":
    main()
