"""The training script's own parts, each against a plain reference; then all of it, small, as on a GPU."""

import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import nanomodel
from autoresearch.edit import knobs
from autoresearch.edit.apply import apply
from nanomodel import attention, train
from nanomodel.device import use_own_compile_cache, why_no_compiler
from tests.support import toy

SOURCE = Path(nanomodel.__file__).with_name("train.py").read_text()
SMALL = {
    "DEPTH": 5, "WIDTH": 64, "HEAD_DIM": 32, "SHORT": 8, "LENGTH": 32, "BATCH_TOKENS": 1024,
    "PASS_TOKENS": 256, "EMBED_LR": 0.05,
}  # fmt: skip


def as_on_a_gpu(**values):
    """The script with the GPU's techniques in the CPU's column, at a small size."""
    found = {**knobs.read_values(SOURCE, 1), **SMALL, **values}
    edits = knobs.set_knobs("train.py", SOURCE, found, 0)
    return apply({"train.py": SOURCE}, edits)["train.py"]


def module(source):
    made = types.ModuleType("small")
    exec(compile(source, "train.py", "exec"), made.__dict__)
    return made


def plain_muon(weight, gradient, momentum, variance, lr, beta, knobs):
    """One matrix, in float64, step by step as the papers have it."""
    momentum = beta * momentum + (1 - beta) * gradient
    update = (1 - beta) * gradient + beta * momentum
    update = update / update.norm()
    if tall := update.size(0) > update.size(1):
        update = update.T
    for a, b, c in knobs.POLAR:
        gram = update @ update.T
        update = a * update + b * gram @ update + c * gram @ gram @ update
    update = update.T if tall else update
    rows, columns = update.shape
    if knobs.VARIANCE:
        axis = 1 if rows >= columns else 0
        variance = knobs.VARIANCE * variance + (1 - knobs.VARIANCE) * (update**2).mean(axis)
        even = update / variance.unsqueeze(axis).sqrt()
        update = even * update.norm() / even.norm()
    update = update * max(1, rows / columns) ** 0.5
    weight = weight.clone()
    for i in range(rows):
        for j in range(columns):
            agrees = update[i, j] * weight[i, j] > 0
            weight[i, j] -= lr * (update[i, j] + (knobs.WEIGHT_DECAY * weight[i, j] if agrees else 0))
    return weight, momentum, variance


@pytest.mark.parametrize("variance", [0.0, 0.9])
@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (4, 12)])
def test_muon_is_what_the_papers_say_one_matrix_at_a_time(shape, variance, monkeypatch):
    monkeypatch.setattr(train, "VARIANCE", variance)
    generator = torch.Generator().manual_seed(1)
    matrices = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(3)]
    short = shape[1] if shape[0] < shape[1] else shape[0]
    state = [
        (m.detach().double(), torch.zeros(shape).double(), torch.zeros(short).double()) for m in matrices
    ]
    muon = train.Muon(matrices)
    for step in range(3):
        for i, m in enumerate(matrices):
            m.grad = torch.randn(shape, generator=generator)
            state[i] = plain_muon(state[i][0], m.grad.double(), *state[i][1:], 0.03, 0.9 + 0.01 * step, train)
        muon.step(0.03, 0.9 + 0.01 * step)
    for m, (expected, _, _) in zip(matrices, state, strict=True):
        assert torch.allclose(m.double(), expected, atol=2e-4)


def test_a_step_of_nothing_changes_nothing():
    matrix = torch.randn(4, 3).requires_grad_()
    before = matrix.detach().clone()
    matrix.grad = torch.randn(4, 3)
    train.Muon([matrix]).step(0.0, 0.95)
    assert torch.equal(matrix, before)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 24), st.integers(2, 24), st.integers(0, 99))
def test_singular_values_are_moved_near_one(rows, columns, seed):
    matrices = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(seed))
    before = torch.linalg.svdvals(matrices)
    after = torch.linalg.svdvals(train.orthogonalize(matrices))
    large = before / before.norm(dim=-1, keepdim=True) > 1e-3
    assert ((after - 1).abs()[large] < 0.13).all()


def test_the_quintics_are_the_best_there_are_with_one_percent_of_room():
    low, high = 1e-3, 1.0
    for a, b, c in train.POLAR:
        x = torch.logspace(math.log10(low), math.log10(1.01 * high), 4_001, dtype=torch.float64)
        error = a * x + b * x**3 + c * x**5 - 1
        # Chebyshev: the best of three coefficients errs equally often, in turn, in four places.
        turns = error[:1].tolist()
        turns += [float(e) for e, left, right in zip(error[1:-1], error, error[2:], strict=False)
                  if (e - left) * (right - e) <= 0]  # fmt: skip
        turns.append(float(error[-1]))
        assert len(turns) == 4 and turns[0] < 0 < turns[1]
        worst = max(map(abs, turns))
        assert all(abs(turn) == pytest.approx(worst, abs=1e-2) for turn in turns)
        low, high = 1 - worst, 1 + worst


@given(st.floats(0, 1))
def test_schedules_begin_and_end_where_they_say(progress):
    assert 0 <= train.learning_rate(progress) <= 1 + 1e-9
    assert 0.8 <= train.momentum(progress) <= 0.98
    assert train.learning_rate(1.0) == pytest.approx(train.FLOOR)
    assert train.learning_rate(1 - train.COOLDOWN) == pytest.approx(1.0)


def test_momentum_rises(monkeypatch):
    monkeypatch.setattr(train, "MOMENTUM_WARMUP", 0.2)
    risen = [train.momentum(p) for p in (0.0, 0.1, 0.2, 1.0)]
    assert risen == pytest.approx([0.85, (0.85 + train.MOMENTUM) / 2, train.MOMENTUM, train.MOMENTUM])


def test_the_matrix_products_are_counted_as_they_are(monkeypatch):
    model = train.build_model(300, 64)
    tokens = torch.zeros(2, 32, dtype=torch.int64)
    monkeypatch.setattr(attention, "mean_keys", lambda *_: 0.0)
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    done = counter.get_flop_counts()["Global"]
    products = sum(count for name, count in done.items() if "mm" in str(name))
    assert products == train.flops_per_token(model) * tokens.numel()


def test_the_short_windows_of_the_gpu_profile_see_what_they_should():
    small = module(as_on_a_gpu())
    assert [small.window_of(i) for i in range(5)] == [8, 8, 8, 8, 0]
    model = small.build_model(256, 32)
    for block in model.blocks[1:]:
        torch.nn.init.normal_(block.mlp.down.weight, std=0.1)
    first = model.blocks[0]
    torch.nn.init.normal_(first.attention.out.weight, std=0.1)
    x = torch.randn(1, 32, 64, requires_grad=True)
    first(x, x, None, model.cos[:32], model.sin[:32])[0, 20].sum().backward()
    reached = x.grad.abs().sum(-1)[0] > 0
    assert reached.tolist() == [13 <= i <= 20 for i in range(32)]


@pytest.mark.soak
def test_the_gpu_profile_compiles_without_a_break():
    small = module(as_on_a_gpu())
    model = small.build_model(256, 32)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    tokens = torch.arange(64).view(2, 32)
    assert torch.allclose(compiled(tokens), model(tokens))
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    for p in matrices:
        p.grad = torch.randn_like(p)
    before = [p.detach().clone() for p in matrices]
    update = torch.compile(small.muon_update, backend="eager", fullgraph=True, dynamic=False)
    small.Muon(matrices, update).step(0.01, 0.9)
    expected = [p.detach().clone() for p in matrices]
    for p, old in zip(matrices, before, strict=True):
        p.data.copy_(old)
    small.Muon(matrices).step(0.01, 0.9)
    assert all(torch.allclose(p, e, atol=1e-5) for p, e in zip(matrices, expected, strict=True))


def test_tables_and_activations_in_bfloat16_learn():
    small = module(as_on_a_gpu().replace("at(torch.float32, torch.bfloat16)", "torch.bfloat16"))
    torch.manual_seed(0)
    model = small.build_model(64, 32)
    tokens = torch.arange(33).repeat(2, 1) % 7
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert model.embed.weight.dtype is torch.bfloat16 and model.head.weight.dtype is torch.float32
    assert losses[-1] < 0.5 * losses[0]
    assert (
        model(tokens[:, :-1]).dtype is torch.float32 and model.eval()(tokens[:, :-1]).dtype is torch.bfloat16
    )


@pytest.mark.soak
def test_the_gpu_profile_trains_and_is_scored_at_a_small_size(tmp_path):
    cache = toy.write_cache(tmp_path / "cache", train=20_000, validation=2_000)
    code = toy.write_code(tmp_path / "code", as_on_a_gpu(ALIGNED=0.5))
    command = [sys.executable, "-m", "nanomodel.train", "--cache", str(cache), "--tokens", "20000"]
    command += ["--threads", "1", "--context", "32", "--no-compile", "--json", "record.json"]
    done = subprocess.run(
        command, cwd=code, env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((code / "record.json").read_text())
    numbers = record["metrics"]
    # A fifth of the budget in half batches of two passes, the rest in whole ones of four.
    assert numbers["steps"] == 8 + 16 - 1 and numbers["tokens"] == 78 * 256
    assert numbers["warmup_seconds"] > 0 and numbers["build_seconds"] > 0
    assert record["task"]["context"] == 32 and record["machine"]["torch"] == torch.__version__
    score = next(float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("val_bpb"))
    assert 0.5 < score < 4.0


@pytest.mark.soak
@pytest.mark.timeout(600)  # C++ compilers are slow on a busy machine
@pytest.mark.skipif(bool(why_no_compiler(torch.device("cpu"))), reason="needs a C++ compiler")
def test_the_compiled_gpu_profile_has_no_break_and_is_never_compiled_again(tmp_path):
    # One quintic and two shapes of matrices: compiling C++ is slow, and the others are the same code.
    begin = "\ndef orthogonalize("
    source = as_on_a_gpu(DEPTH=2, MLP_RATIO=1).replace(begin, f"\nPOLAR = POLAR[:1]\n{begin}")
    cache = toy.write_cache(tmp_path / "cache", train=20_000, validation=2_000)
    code = toy.write_code(tmp_path / "code", source)
    command = [sys.executable, "-m", "nanomodel.train", "--cache", str(cache), "--tokens", "8192"]
    command += ["--threads", "1", "--context", "32", "--no-score", "--compile", "--json", "record.json"]
    done = subprocess.run(
        command, cwd=code, env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((code / "record.json").read_text())
    numbers = record["metrics"]
    # Half batches first: a fifth of the budget in steps of two passes, the rest in steps of four.
    assert numbers["steps"] == 4 + 6 and numbers["rows"] == 8
    assert numbers["compiled_graphs"] == 1 + 2, "the loss, and Muon for each shape"
    assert numbers["graph_breaks"] == numbers["compile_failures"] == numbers["recompiles"] == 0
    assert record["warnings"] == []


def test_a_compile_cache_that_cannot_be_written_is_replaced_by_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert use_own_compile_cache() == "" and (tmp_path / "mine").is_dir()
    (tmp_path / "theirs").touch()  # root could write into another user's folder
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "theirs"))
    said, own = use_own_compile_cache(), Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert f"{tmp_path / 'theirs'} cannot be written" in said and str(own) in said
    assert own.parent == tmp_path and own.stat().st_mode & 0o077 == 0
    assert use_own_compile_cache() == ""
