"""What the searches of a brief tried is told by theme, in full and in short."""

from __future__ import annotations

from autoresearch.propose.llm.history import MAX_PRINTED, printed
from autoresearch.tasks.brief.result import KEPT, VAIN, in_short, ledger
from autoresearch.types import Experiment, VerdictKind
from tests.support.searches import METRIC, baseline, tried


def night(keeps: int, failures: int) -> list[Experiment]:
    kept = [
        tried(n, VerdictKind.KEEP, ("screen", 1.0), effect=0.01 * n, hypothesis=f"idea {n} " * 40)
        for n in range(1, keeps + 1)
    ]
    failed = [tried(100 + n, VerdictKind.CRASH, hypothesis=f"try {n}") for n in range(failures)]
    return [baseline(1.0, 1.0), *kept, *failed]


def test_what_paid_comes_first_and_what_was_in_vain_is_counted() -> None:
    lines = ledger(night(KEPT + 2, VAIN + 2), METRIC).splitlines()
    assert lines[0] == f"optimizer: {KEPT + VAIN + 4} tried, {KEPT + 2} kept (+0.3600), {VAIN + 2} failed"
    paid = [line for line in lines if line.startswith("  paid")]
    assert len(paid) == KEPT and paid[0].startswith("  paid +0.0800: idea 8")
    assert lines[-2] == f"  in vain: try {VAIN + 1} (crash)" and lines[-1] == "  in vain: 2 more"
    assert ledger([baseline(1.0)], METRIC) == "nothing was tried"


def test_in_short_it_is_shown_whole_in_a_prompt() -> None:
    told = in_short(night(9, 9), METRIC)
    assert told.startswith("kept: optimizer 9 of 18 (+0.4500); best: idea 9")
    assert (
        printed(f"{ledger(night(9, 9), METRIC)}\n{told}\n", MAX_PRINTED).endswith(told)
        and len(told) < MAX_PRINTED
    )
    assert in_short([baseline(1.0)], METRIC) == "kept: nothing was tried"
