"""The judge of any version of this program, in a process of its own that is spoken to in lines of JSON.

    PYTHONPATH=TREE python benchmarks/judge_process.py BANK

`TREE` holds a version of the program, and `BANK` the losses of trainings as a search keeps them. The process
reads one line with the baseline, a list of [seed, score, number of the training], then an empty object for
each candidate. It answers with the trainings that it wants ({"arm", "seed"}), reads a [score, number] for
each, and ends with a verdict ({"kind", "effect", "trials", "reason"}). One candidate is in flight at a time.

Not covered: what a search does around the judge before a keep, such as the look at unseen text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import autoresearch
from autoresearch.judge import Judge, Observation, create_judge
from autoresearch.store import files


def receive() -> Any:
    """The next message; None at the end."""
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def send(**message: Any) -> None:
    """Answer."""
    print(json.dumps(message), flush=True)


def create(bank: Path, baseline: list[tuple[int, float, int]]) -> Judge:
    """The default judge, told of the documents in the way of its version."""
    root = Path(autoresearch.__file__).parents[1]
    options = dict(OmegaConf.load(root / "configs/judge/default.yaml"))
    scores = [(seed, score) for seed, score, _ in baseline]
    if hasattr(Judge, "with_items"):
        judge = create_judge(baseline=scores, **options)
        parts = {seed: documents(bank, number) for seed, _, number in baseline}
        judge.with_items(parts[scores[0][0]][1], {seed: losses for seed, (losses, _) in parts.items()})
        return judge
    tau = files.sampling_error(bank, [number for _, _, number in baseline])  # type: ignore[attr-defined]
    return create_judge(baseline=scores, tau=tau, **options)


def documents(bank: Path, number: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What the documents of a training contribute to its score, and their shares."""
    return files.document_losses(files.losses_folder(bank, number))


def main() -> None:
    """Judge one candidate after another."""
    bank = Path(sys.argv[1])
    judge = create(bank, receive())
    while receive() is not None:
        judge.candidate()
        verdict = None
        while verdict is None:
            request = judge.next()
            assert request is not None, "the only answer is here, so the judge asks for a training"
            send(arm=request.arm, seed=request.seed)
            if (answer := receive()) is None:
                return
            score, number = answer
            items = (documents(bank, number)[0],) if hasattr(judge, "with_items") else ()
            verdict = judge.observe(request, Observation.finished(score, *items))
        send(kind=verdict.kind, effect=verdict.effect, trials=verdict.trials, reason=verdict.reason)


if __name__ == "__main__":
    main()
