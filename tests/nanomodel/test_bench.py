import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import nanomodel.kernels
from benchmarks.noise import Training, components, measured
from nanomodel import bench
from nanomodel.data import open_cache
from tests.support import toy


@pytest.mark.parametrize("path", sorted(bench.BUDGETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_budgets_are_read_as_the_search_reads_them(path):
    assert bench.read_budget(path.stem) == OmegaConf.to_container(OmegaConf.load(path))
    assert bench.read_budget(str(path)) == bench.read_budget(path.stem)


def test_a_budget_may_be_json(tmp_path):
    (tmp_path / "mine.json").write_text('{"kind": "tokens", "amount": 5}')
    assert bench.read_budget(str(tmp_path / "mine.json")) == {"kind": "tokens", "amount": 5}


def test_an_unknown_budget_is_named_with_those_that_exist():
    with pytest.raises(bench.BenchError, match="gpu_5min"):
        bench.read_budget("gpu_5mins")


def run(folder, *arguments):
    command = [sys.executable, "-m", "nanomodel.bench", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def place(tmp_path):
    toy.write_cache(tmp_path / "cache", train=20_000, validation=2_000)
    return toy.write_code(tmp_path / "code")


@pytest.mark.soak
def test_two_seeds_make_a_table_and_json(place):
    budget = {"kind": "tokens", "amount": 20480, "vocab": 256, "context": 32, "compile": False}
    caps = {"startup_seconds": 100, "max_seconds": 100, "score_seconds": 100}
    (place / "toy.json").write_text(json.dumps(budget | caps))
    options = ["--budget", "toy.json", "--cache", "../cache", "--seeds", "2", "--threads", "1"]
    done = run(place, *options, "--json", "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((place / "result.json").read_text())
    one, two = result["runs"]
    assert (one["seed"], two["seed"]) == (0, 1) and one["val_bpb"] != two["val_bpb"]
    assert result["task"]["budget"] == {"kind": "tokens", "amount": 20480} and not result["task"]["compile"]
    assert result["machine"]["torch"] == torch.__version__
    assert all(one[phase] > 0 for phase in bench.PHASES)
    assert one["tokens"] == 20480 and one["steps"] == 20 and 1.0 < one["val_bpb"] < 4.0
    score = result["summary"]["val_bpb"]
    assert score["mean"] == pytest.approx((one["val_bpb"] + two["val_bpb"]) / 2)
    assert score["sd"] == pytest.approx(abs(one["val_bpb"] - two["val_bpb"]) / 2**0.5)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("device ") and lines[1].split() == list(bench.COLUMNS)
    assert lines[2].split()[1] == f"{one['val_bpb']:.6f}" and "unknown" in lines[2], "MFU of a CPU"
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "mean", "sd"]


@pytest.mark.slow
def test_data_of_another_vocabulary_is_refused(place, monkeypatch, capfd):
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit, match="failed with exit code 1"):
        bench.main(["--budget", str(bench.BUDGETS / "gpu_5min.yaml"), "--cache", "../cache"])
    said = capfd.readouterr().err
    assert "vocabulary of 256, not 8192" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (("seconds", 60), 600 + 60 + 60),
        (("seconds", 2000), 600 + 2000 + 60),
        (("tokens", 1e6), None),
    ],
)
def test_patience_follows_what_was_asked_for(asked, seconds):
    assert bench.patience(bench.read_budget("gpu_1min"), *asked) == seconds


def test_patience_for_more_tokens_grows_with_them():
    budget = bench.read_budget("smoke")
    one, two, less = (bench.patience(budget, "tokens", n * budget["amount"]) for n in (1, 2, 0.5))
    assert two - one == budget["max_seconds"] and less == one
    assert bench.patience({}, "seconds", 20) is None


TASK = {"machine": {"device": "one"}, "task": {"compile": True}, "warnings": []}
NUMBERS = {"val_bpb": 1.0, "compiled_graphs": 3.0, "graph_breaks": 0.0, "compile_failures": 0.0}


def test_a_seed_that_is_done_is_on_disk_whatever_comes(tmp_path, monkeypatch, capsys):
    def one_seed(options, budget, seed, folder):
        if seed:
            assert json.loads((tmp_path / "bench.json").read_text())["runs"][0]["val_bpb"] == 1.0
            raise bench.BenchError("nanomodel.train was not done after 5 s")
        return dict(TASK), {"seed": seed, **NUMBERS}

    monkeypatch.setattr(bench, "one_seed", one_seed)
    with pytest.raises(SystemExit, match="not done after 5 s"):
        bench.main(["--seconds", "1", "--seeds", "2", "--json", str(tmp_path / "bench.json")])
    assert len(json.loads((tmp_path / "bench.json").read_text())["runs"]) == 1
    assert "1.000000" in capsys.readouterr().err


@pytest.mark.parametrize("found", [{"compiled_graphs": 0.0}, {"compile_failures": 1.0}, {"recompiles": 2.0}])
def test_a_profile_that_was_not_compiled_as_it_should_be_fails(found, tmp_path, monkeypatch, capsys):
    warned = {**TASK, "warnings": ["something"]}
    monkeypatch.setattr(bench, "one_seed", lambda *_: (dict(warned), {"seed": 0, **NUMBERS, **found}))
    with pytest.raises(SystemExit) as ended:
        bench.main(["--seconds", "1", "--json", str(tmp_path / "bench.json")])
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and "WARNING: seed 0: something" in err and "val_bpb" in out
    assert json.loads((tmp_path / "bench.json").read_text())["warnings"] == ["seed 0: something"]


def test_it_asks_for_a_budget():
    with pytest.raises(SystemExit, match="--budget"):
        bench.main(["--cache", "anywhere"])


def test_kernels_are_timed(monkeypatch):
    for name, value in {"LENGTH": 32, "SHORT": 8, "BATCH_TOKENS": 64}.items():
        monkeypatch.setattr(nanomodel.kernels.train, name, value)
    result = nanomodel.kernels.compare("cpu", repeats=2)
    assert list(result) == ["all tokens, fused", "last 8, masked", "last 8, flex"]
    assert result["last 8, flex"] is None and result["all tokens, fused"] > 0


def test_the_noise_is_split_by_what_makes_it():
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        main = rng.normal(0, 1, (4, 1, 1)) + rng.normal(0, 5, (1, 4, 1)) + rng.normal(0, 2, (1, 1, 4))
        found.append(list(components(main + rng.normal(0, 1.5, (4, 4, 4))).values()))
    assert np.sqrt(np.square(found).mean(0)) == pytest.approx([1, 5, 2, 1.5], rel=0.1)


@pytest.mark.slow
def test_each_source_of_noise_is_varied_alone_and_a_training_that_is_kept_is_not_repeated(tmp_path):
    toy.write_cache(tmp_path / "cache", train=20_000, validation=2_000)
    data, keep = open_cache(tmp_path / "cache"), str(tmp_path / "trainings.jsonl")
    budget = {"context": 32, "amount": 3072}
    plan = [Training(1, 1, 1), Training(2, 1, 1), Training(1, 2, 1)]
    first = dict(measured(plan, data, budget, keep))
    scores = [first[training].bits_per_byte for training in plan]
    assert len(set(scores)) == 3
    again = dict(measured(plan, data, {}, keep))  # without a budget nothing could be trained
    assert [again[training].bits_per_byte for training in plan] == scores
