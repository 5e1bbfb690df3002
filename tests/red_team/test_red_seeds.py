"""A candidate that knows which seeds decide: it gains on the first few, and loses on all later ones."""

import json
import secrets
import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autoresearch.config import load
from autoresearch.execute.base import TrialSpec
from autoresearch.search.loop import Search
from autoresearch.search.setup.create import begin
from autoresearch.search.trials import program_seed
from autoresearch.types import Experiment, Measurement
from tests.support.stub import PATH, StubMeasurer, make_repository, make_search

TRICK = 'OTHER = -0.02 if globals()["SEED"] <= 3 else 0.02'
SECRET = secrets.token_hex(32)


class Obedient(StubMeasurer):
    """Runs the line of the script that reads its seed, and adds what it gives to the score."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: list[int] = []

    def measure(self, tree: Path, spec: TrialSpec, *rest: Any) -> Measurement:
        self.seeds.append(spec.seed)
        names: dict[str, Any] = {"SEED": spec.seed}
        exec((tree / PATH).read_text().splitlines()[1], names)
        done = super().measure(tree, spec, *rest)
        return done if done.score is None else replace(done, score=done.score + names["OTHER"])


def judged(root: Path, secret: str) -> tuple[Experiment, list[int], Search]:
    """The attack in a search of its own: its experiment, and the seeds that programs saw."""
    measurer = Obedient()
    search = make_search(make_repository(root), [TRICK], "experiments=1", measurers={"cpu": measurer})
    if secret:
        search.journal.set("seed_secret", secret)
        search = make_search(search.repository, [TRICK], "experiments=1", measurers={"cpu": measurer})
    search.run()
    return search.journal.experiment(1), measurer.seeds, search


def test_a_candidate_cannot_gain_on_the_first_seeds(tmp_path: Path) -> None:
    attack, seen, search = judged(tmp_path / "repo", SECRET)
    assert not attack.kept
    assert min(seen) > 3
    known = [t.seed for e in search.journal.experiments() for t in e.trials]
    assert max(known) < 10, "journal and judge count seeds from 0"
    assert seen == [program_seed(SECRET, index) for index in known]


def test_if_it_were_told_the_index_it_would_pay(tmp_path: Path) -> None:
    attack, _, _ = judged(tmp_path / "repo", "")
    assert attack.kept


def test_seeds_of_programs_fit_every_library() -> None:
    import numpy as np
    import torch

    seeds = {program_seed(SECRET, index) for index in range(300)}
    assert len(seeds) == 300 and all(0 <= seed < 2**31 for seed in seeds)
    for seed in (max(seeds), 2**31 - 1):
        torch.manual_seed(seed)
        np.random.default_rng(seed)
        np.random.seed(seed)
    other = secrets.token_hex(32)
    assert not seeds & {program_seed(other, index) for index in range(300)}


def test_the_secret_lies_in_the_journal_alone(tmp_path: Path) -> None:
    repository, config = make_repository(tmp_path / "repo"), load(["name=x", "budget=smoke"], {})
    folder = tmp_path / "runs/x"
    journal = begin(config, repository, folder, "brief", {})
    secret = journal.seed_secret()
    assert len(secret) == 64
    written = [path for path in folder.rglob("*") if secret.encode() in path.read_bytes()]
    assert all(path.name.startswith("journal.db") for path in written)
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in written)
    assert secret not in json.dumps(asdict(journal.info()), default=str)


def test_a_search_of_an_older_version_keeps_its_seeds(tmp_path: Path) -> None:
    _, seen, search = judged(tmp_path / "repo", "")
    assert seen == [t.seed for e in search.journal.experiments() for t in e.trials]
