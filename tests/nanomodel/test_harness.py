import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanomodel import device as machine
from nanomodel.batches import Batches, draw_windows
from nanomodel.data.token_budget import PASSAGE, draw_tokens
from nanomodel.harness import Budget, Run
from nanomodel.meter import Diverged
from nanomodel.runner import HarnessError, RunnerProcess
from nanomodel.standalone import Standalone, open_prepared
from nanomodel.wire import pair
from tests.support import toy


class FakeRunner:
    """A runner in the same process."""

    def __init__(self, tokens=None, kind="tokens", amount=10_000, **task):
        self.tokens = toy.prose(5_000, 0) if tokens is None else tokens
        self.given = {
            "seed": 3,
            "device": "cpu",
            "threads": 1,
            "vocab": 256,
            "context": 64,
            "budget": {"kind": kind, "amount": amount},
            "compile": False,
            **task,
        }
        self.logged = []
        self.submitted = None

    def task(self):
        return self.given

    def start(self):
        return self.tokens

    def log(self, message):
        self.logged.append(message)

    def submit(self, weights, metrics):
        self.submitted = (weights, metrics)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told to."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("nanomodel.harness.time.monotonic", clock)
    return clock


def started(**options):
    run = Run(FakeRunner(**options))
    run.start()
    return run


@given(st.integers(1, 8), st.integers(1, 50), st.integers(0, 2**31), st.integers(0, 1000))
def test_windows_are_runs_of_the_stream(rows, width, seed, index):
    tokens = np.arange(60, dtype=np.uint16)
    drawn = draw_windows(tokens, rows, width, seed, index)
    assert drawn.shape == (rows, width) and drawn.dtype == np.int64
    assert (np.diff(drawn, axis=1) == 1).all()
    assert drawn.min() >= 0 and drawn.max() < 60
    assert (drawn == draw_windows(tokens, rows, width, seed, index)).all()


def test_every_start_is_drawn_the_last_included():
    tokens = np.arange(12, dtype=np.uint16)
    starts = {int(row[0]) for i in range(50) for row in draw_windows(tokens, 8, 10, 0, i, read=72 * i)}
    assert starts == {0, 1, 2}


@given(st.integers(1, 8), st.integers(0, 10_000), st.integers(0, 2**31))
def test_any_stretch_of_a_run_covers_the_stream_evenly(rows, before, seed):
    """The largest gap between starts is near the least possible one; independent ones leave five times it."""
    tokens = np.arange(60_000, dtype=np.uint16)
    batches = range(before, before + 64)
    starts = [draw_windows(tokens, rows, 17, seed, i, read=16 * rows * i)[:, 0] for i in batches]
    ordered = np.sort(np.concatenate(starts))
    gaps = np.diff(np.append(ordered, ordered[0] + len(tokens)))
    assert gaps.max() <= 2.7 * len(tokens) / (64 * rows)


def test_batches_are_targets_one_later_and_differ_from_each_other():
    batches = Batches(np.arange(5000, dtype=np.uint16), seed=1, device=torch.device("cpu"))
    x, y = batches.next(4, 16)
    assert x.shape == y.shape == (4, 16) and x.dtype == y.dtype == torch.int64
    assert torch.equal(x + 1, y)
    assert not torch.equal(x, batches.next(4, 16)[0])


def test_a_batch_depends_on_seed_and_number_alone():
    tokens = np.arange(5000, dtype=np.uint16)
    one, other = (Batches(tokens, 1, torch.device("cpu")) for _ in range(2))
    one.next(4, 16)
    other.next(2, 32)
    assert torch.equal(one.next(3, 8)[0], other.next(3, 8)[0])


@pytest.mark.parametrize("in_order", [False, True])
def test_working_ahead_changes_no_batch(in_order):
    tokens = toy.prose(5_000, 0)
    cpu = torch.device("cpu")
    plain, ahead = (Batches(tokens, 1, cpu, prefetch=p, in_order=in_order) for p in (False, True))
    # Shapes change on the way: what was made ahead for another shape is made again.
    for rows, length, aligned in (
        [(4, 16, 0.0)] * 3 + [(2, 32, 0.0)] * 2 + [(2, 32, 0.5)] * 3 + [(4, 16, 0.0)]
    ):
        one, other = plain.next(rows, length, aligned), ahead.next(rows, length, aligned)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@given(st.integers(1, 5000), st.integers(300, 3000), st.integers(0, 100))
def test_a_token_budget_is_so_many_tokens_in_passages_of_the_stream(amount, size, seed):
    stream = np.arange(size, dtype=np.uint16)
    drawn = draw_tokens(stream, amount, seed)
    assert drawn.dtype == np.uint16 and len(drawn) == amount + 1
    breaks = np.flatnonzero(np.diff(drawn.astype(np.int64)) != 1) + 1
    assert set((breaks % PASSAGE).tolist()) <= {0}
    assert (drawn == draw_tokens(stream, amount, seed)).all()


@given(st.integers(20, 200), st.integers(0, 2**31))
def test_a_token_budget_has_one_passage_of_each_part_of_the_stream_and_neighbours_far_apart(count, seed):
    stream = np.arange(60_000, dtype=np.uint16)
    starts = draw_tokens(stream, count * PASSAGE - 1, seed)[::PASSAGE].astype(np.int64)
    place = starts / (len(stream) - PASSAGE + 1) * count  # in units of parts
    assert (np.abs(np.sort(place) - np.arange(count) - 0.5) < 0.51).all()
    assert np.abs(np.diff(place)).min() > count / 4 - 2
    early = np.sort(starts[: count // 2])
    assert np.diff(early).max() < 6 * len(stream) / count, "the first half alone covers it, too"


def test_two_seeds_get_other_tokens():
    stream = np.arange(60_000, dtype=np.uint16)
    assert (draw_tokens(stream, 5000, 1) != draw_tokens(stream, 5000, 2)).mean() > 0.9


def test_an_edit_that_draws_random_numbers_or_adds_weights_keeps_data_and_the_other_weights():
    def train(edited):
        run = Run(FakeRunner())
        if edited:
            torch.rand(7)
        blocks = [torch.nn.Linear(4, 4) for _ in range(3 if edited else 2)]
        wide, table = torch.nn.Linear(4, 8), torch.nn.Embedding(5, 4)
        run.start()
        drawn = torch.rand(3)
        if edited:
            torch.rand(5)
        return [*(p for m in (*blocks[:2], wide, table) for p in m.parameters()), drawn, run.batch(2, 16)[0]]

    plain, edited = train(False), train(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, edited, strict=True))
    assert not torch.equal(plain[0], plain[2]), "two layers of one shape begin differently"


def test_initial_weights_follow_the_seed_until_the_clock_starts():
    def weights(seed, started=False):
        run = Run(FakeRunner(seed=seed))
        if started:
            run.start()
            torch.manual_seed(0)
        return torch.nn.Linear(4, 4).weight

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
    assert torch.equal(weights(1, started=True), weights(2, started=True)), (
        "then the script's own seed counts"
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 40)), min_size=1, max_size=12), st.booleans())
def test_a_token_budget_is_read_once_from_beginning_to_end(shapes, prefetch):
    amount = sum(rows * length for rows, length in shapes)
    batches = Batches(np.arange(amount + 1, dtype=np.uint16), 1, torch.device("cpu"), prefetch, in_order=True)
    targets = torch.cat([batches.next(rows, length)[1].flatten() for rows, length in shapes])
    assert targets.tolist() == list(range(1, amount + 1))


@given(st.integers(1, 8), st.integers(2, 200), st.integers(0, 1000))
def test_aligned_windows_begin_at_the_next_document(rows, width, index):
    tokens = toy.prose(5_000, 0)
    drawn = draw_windows(tokens, rows, width, 7, index)
    aligned = draw_windows(tokens, rows, width, 7, index, aligned=1.0)
    text = tokens.tobytes()
    for before, after in zip(drawn, aligned, strict=True):
        found = np.flatnonzero(before == 255)
        moves = len(found) and text.find(before.astype("<u2").tobytes()) // 2 + found[0] + width <= len(
            tokens
        )
        if moves:
            assert after[0] == 255 and (after[: width - found[0]] == before[found[0] :]).all()
        else:
            assert (after == before).all()


def test_a_share_of_windows_is_aligned():
    tokens = toy.prose(50_000, 0)
    first = draw_windows(tokens, 2000, 600, 1, 0, aligned=0.5)[:, 0]
    assert 0.45 < (first == 255).mean() < 0.55


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(1, 32), st.integers(1, 20_000))
def test_a_token_budget_is_never_exceeded_and_used_up(rows, length, amount):
    if amount < rows * length:
        with pytest.raises(HarnessError, match="less than one batch"):
            started(amount=amount).batch(rows, length)
        return
    run = started(amount=amount)
    drawn = 0
    while (batch := run.batch(rows, length)) is not None:
        drawn += batch[0].numel()
    assert amount - rows * length < drawn <= amount
    assert math.isclose(run.progress, drawn / amount)


def test_a_seconds_budget_leaves_room_for_the_last_step_and_the_weights(clock):
    run = started(kind="seconds", amount=10.0)
    steps = 0
    while run.batch(2, 16) is not None:
        assert 0 <= run.progress <= 1
        clock.now += 0.3
        steps += 1
    assert 9.0 < run.seconds <= 9.9
    assert steps >= 30


def test_progress_reaches_the_end_of_a_seconds_budget(clock):
    run = started(kind="seconds", amount=10.0)
    assert run.progress == 0
    clock.now += 9.9
    assert run.progress == pytest.approx(1)
    clock.now += 1
    assert run.progress == 1


def test_the_first_batch_of_a_tiny_seconds_budget_is_served(clock):
    run = started(kind="seconds", amount=0.01)
    assert run.batch(2, 16) is not None


def test_data_before_the_clock_is_refused():
    with pytest.raises(HarnessError, match=r"run\.start"):
        Run(FakeRunner()).batch(2, 16)


def test_windows_longer_than_the_data_are_refused():
    with pytest.raises(HarnessError, match="5000 training tokens"):
        started().batch(1, 5000)


def test_fake_batches_are_tokens_and_leave_randomness_alone():
    run = Run(FakeRunner())
    before = torch.random.get_rng_state()
    x, y = run.fake_batch(3, 20)
    assert x.shape == y.shape == (3, 20) and x.dtype == torch.int64
    assert int(x.min()) >= 0 and int(x.max()) < 256
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_are_halved_until_they_fit():
    run = Run(FakeRunner())
    tried = []

    def attempt(rows):
        tried.append(rows)
        if rows > 10:
            raise torch.OutOfMemoryError("too much")

    assert run.fit(attempt, 48) == 6 and tried == [48, 24, 12, 6]

    def never(rows):
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(torch.OutOfMemoryError):
        run.fit(never, 4)


def test_other_failures_of_the_warm_up_are_not_mistaken_for_memory():
    def attempt(rows):
        raise ValueError("shapes")

    with pytest.raises(ValueError, match="shapes"):
        Run(FakeRunner()).fit(attempt, 4)


def test_randomness_after_the_start_does_not_depend_on_the_warm_up():
    def draw(warm_up):
        run = Run(FakeRunner())
        torch.rand(warm_up)
        run.start()
        return torch.rand(4)

    assert torch.equal(draw(1), draw(7))


def test_log_looks_at_its_arguments_a_few_times_a_second_only(clock):
    runner = FakeRunner()
    run = Run(runner)
    run.start()

    class Loss:
        looked = 0

        def __float__(self):
            Loss.looked += 1
            return 2.5

    for step in range(1, 101):
        run.batch(1, 8)
        run.log(step, loss=Loss(), lr=0.1)
        clock.now += 0.01
    assert 3 <= Loss.looked <= 5
    assert len(runner.logged) == Loss.looked
    assert runner.logged[-1] | {"progress": 0} == {
        "type": "log",
        "step": runner.logged[-1]["step"],
        "loss": 2.5,
        "lr": 0.1,
        "tokens": 8 * runner.logged[-1]["step"],
        "progress": 0,
    }


def test_the_loss_that_is_reported_is_the_mean_since_the_report_before(clock):
    runner = FakeRunner()
    run = Run(runner)
    run.start()
    for step, loss in enumerate((9.0, 5.0, torch.tensor(4.0), torch.tensor(3.0, dtype=torch.bfloat16)), 1):
        run.batch(1, 8)
        run.log(step, loss=loss)
        clock.now += 0.1
    assert [entry["loss"] for entry in runner.logged] == [9.0, 4.0], "the first at once, then all three"


@pytest.mark.parametrize("loss", [math.nan, math.inf, torch.tensor(math.nan)])
def test_a_loss_that_is_not_finite_ends_the_run(loss):
    with pytest.raises(Diverged, match="at step 7"):
        started().log(7, loss=loss)


@pytest.mark.slow
def test_submit_saves_raw_weights_and_reports_the_last_step(tmp_path, monkeypatch, clock):
    monkeypatch.chdir(tmp_path)
    runner = FakeRunner()
    run = Run(runner)
    run.start()
    model = torch.nn.Linear(3, 2)
    for step in (1, 2, 3):
        run.batch(2, 10)
        run.log(step, loss=torch.tensor(1.0 / step, requires_grad=True))
        clock.now += 0.1
    compiled = torch.compile(model)
    run.submit(compiled, mine=4.0)
    weights, metrics = runner.submitted
    state = torch.load(weights, weights_only=True)
    assert set(state) == {"weight", "bias"} and torch.equal(state["weight"], model.weight)
    assert metrics["steps"] == 3 and metrics["tokens"] == 60 and metrics["parameters"] == 8
    assert metrics["train_loss"] == pytest.approx((1 / 2 + 1 / 3) / 2), "since the report before"
    assert metrics["tokens_per_second"] == pytest.approx(60 / 0.3)
    assert metrics["mine"] == 4.0 and metrics["peak_memory_mb"] > 10 and "mfu" not in metrics


def test_untrained_weights_are_not_handed_in(tmp_path, monkeypatch, clock):
    monkeypatch.chdir(tmp_path)
    run = started(kind="seconds", amount=10.0)
    # The first accumulation of a large step outlasts the budget: the script sees None, and no step is done.
    while run.batch(2, 16) is not None:
        clock.now += 4.0
    with pytest.raises(HarnessError, match="before the first optimizer step"):
        run.submit(torch.nn.Linear(3, 2))
    assert run._runner.submitted is None and not list(tmp_path.iterdir())
    tried = started(kind="steps", amount=1)
    tried.batch(2, 16)
    tried.submit(torch.nn.Linear(3, 2))
    assert tried._runner.submitted


def test_rows_and_epochs_are_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(FakeRunner(tokens=toy.prose(1_000, 0), amount=2_000))
    run.fit(lambda rows: None, 8)
    run.start()
    for step in range(1, 21):
        run.batch(4, 20)
        run.log(step, loss=1.0)
    run.submit(torch.nn.Linear(3, 2))
    _, metrics = run._runner.submitted
    assert metrics["rows"] == 8 and metrics["epochs"] == pytest.approx(1.6)
    assert "recompiles" not in metrics, "nothing was to be compiled"


@pytest.mark.slow
def test_what_is_compiled_when_is_counted():
    run = Run(FakeRunner(compile=True, threads=1))
    run._meter.begin(compiling=True)
    before = run._meter.numbers(0, 1.0)

    def broken(x):
        return x + 1

    def backend(graph, inputs):
        raise RuntimeError("no such kernel")

    def breaks(x):
        x = x + 1
        print("broken")
        return x * 2

    assert machine.compile_or_not(broken, backend=backend)(torch.ones(2)).tolist() == [2.0, 2.0]
    failed = run._meter.numbers(0, 1.0)
    compiled = machine.compile_or_not(breaks, backend="eager", dynamic=False)
    compiled(torch.ones(2))
    broke = run._meter.numbers(0, 1.0)
    compiled(torch.ones(3))
    again = run._meter.numbers(0, 1.0)
    names = ("compiled_graphs", "graph_breaks", "compile_failures", "recompiles")
    counted = [[numbers[name] for name in names] for numbers in (before, failed, broke, again)]
    one, two, three = (
        [int(b - a) for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(counted)
    )
    assert one == [0, 0, 1, 1]
    assert two[:3] == [2, 1, 0] and two[3] >= 2
    assert three[0] == 2 and three[3] >= 2


def test_the_peak_of_memory_is_that_of_the_training(monkeypatch):
    forgotten = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    machine.reset_peak_memory(torch.device("cpu"))
    machine.reset_peak_memory(machine.choose_device("cuda"))
    assert forgotten == [torch.device("cuda", 0)]


def test_mfu_is_what_was_done_over_what_the_device_could_do(clock):
    run = started()
    run._meter.peak, run.flops_per_token = 1e6, 500.0
    run.batch(10, 10)
    clock.now += 1.0
    assert run._meter.numbers(100, run.seconds)["mfu"] == pytest.approx(0.05)


def test_a_gpu_has_the_number_that_torch_asks_for(monkeypatch):
    device = machine.choose_device("cuda")
    assert (device.type, device.index) == ("cuda", 0)
    chosen = []
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda wanted: None)
    machine.prepare(device, 1, seed=0)
    assert chosen == [0]


@pytest.mark.parametrize(("there", "kind"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_chosen_where_there_is_one(there, kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert machine.choose_device("auto").type == kind and machine.choose_device("cpu").type == "cpu"


def test_the_peak_of_a_cpu_is_unknown():
    assert machine.peak_flops(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H20", 148.0),
        ("NVIDIA A100-SXM4-80GB", 311.9),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA RTX A4000", None),
        ("Tesla K80", None),
    ],
)
def test_peaks_go_by_whole_names(name, tflops, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    peak = machine.peak_flops(torch.device("cuda"))
    assert peak is None if tflops is None else peak == pytest.approx(1e12 * tflops)


def test_without_a_compiler_nothing_is_compiled_and_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    run = Run(FakeRunner(compile=True))
    assert run.compile is False
    assert "no C++ compiler" in capsys.readouterr().out

    def function():
        return 1

    assert run.compiled(function) is function


def test_the_runner_gives_task_and_data_by_the_protocol(tmp_path):
    ours, theirs = pair()
    runner = RunnerProcess(theirs)
    ours.send({"type": "task", "seed": 1})
    assert runner.task()["seed"] == 1
    assert ours.recv(1.0)[0] == {"type": "hello", "protocol": 1}
    np.arange(100, dtype="<u2").tofile(tmp_path / "train.bin")
    with (tmp_path / "train.bin").open("rb") as file:
        ours.send({"type": "start"}, [file.fileno()])
    tokens = runner.start()
    assert ours.recv(1.0)[0] == {"type": "ready"}
    assert isinstance(tokens, np.memmap) and len(tokens) == 100 and tokens[7] == 7
    with pytest.raises(ValueError):
        tokens[0] = 1
    runner.submit(tmp_path, {"good": 1.0, "bad": math.nan})
    assert ours.recv(1.0)[0] == {"type": "submit", "metrics": {"good": 1.0}}
    ours.close()
    with pytest.raises(HarnessError, match="runner is gone"):
        runner._expect("start")


def test_budgets_are_values():
    assert Budget("tokens", 5.0) == Budget("tokens", 5.0)


@pytest.mark.slow
@pytest.mark.parametrize("scored", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_the_script_works_alone_and_may_be_scored(tmp_path, scored):
    cache = toy.write_cache(tmp_path / "cache", train=20_000, validation=2_000)
    code = toy.write_code(tmp_path / "code")
    command = [sys.executable, "-m", "nanomodel.train", "--cache", str(cache), "--tokens", "20000"]
    command += ["--threads", "1", "--context", "32", "--out", "kept.pt", "--json", "record.json"]
    command += [] if scored else ["--no-score"]
    done = subprocess.run(
        command, cwd=code, env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    numbers = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    assert numbers["steps"] == "19" and numbers["tokens"] == "19,456"
    assert (code / "kept.pt").exists()
    assert f"data: toy, vocabulary 256, in {cache}" in done.stderr and "not compiling" not in done.stdout
    record = json.loads((code / "record.json").read_text())
    assert record["task"]["compile"] is torch.cuda.is_available() and record["data"]["path"] == str(cache)
    assert ("val_bpb" in numbers) == scored
    if scored:
        assert 1.0 < float(numbers["val_bpb"]) < 4.0
        assert record["metrics"]["val_bpb"] == pytest.approx(float(numbers["val_bpb"]), abs=1e-6)


def test_the_cache_that_was_named_is_taken_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NANOMODEL_CACHE", raising=False)
    small = toy.write_cache(tmp_path / "runs" / "cache" / "small")
    other = toy.write_cache(tmp_path / "elsewhere" / "one")
    os.utime(small / "meta.json", (1, 1))
    newest = toy.write_cache(tmp_path / "runs" / "cache" / "newest")
    for folder in (newest, other):
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps({**meta, "corpus": folder.name}))
    assert open_prepared(None).path == newest and "newest of 2" in capsys.readouterr().err
    assert open_prepared("runs/cache/small").path == small
    assert open_prepared(str(tmp_path / "elsewhere")).path == other and "data: one" in capsys.readouterr().err
    monkeypatch.setenv("NANOMODEL_CACHE", str(other))
    assert open_prepared(None).path == other and open_prepared(str(small)).path == small
    with pytest.raises(SystemExit, match="no prepared data in "):
        open_prepared("nowhere")


def test_alone_the_gpus_script_is_not_trained_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SystemExit, match="CUDA_VISIBLE_DEVICES=-1"):
        Standalone.from_arguments(["--device", "cpu"])


def test_alone_without_data_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NANOMODEL_CACHE", raising=False)
    with pytest.raises(SystemExit, match="--cache"):
        Standalone.from_arguments([])
