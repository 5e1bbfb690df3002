import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanomodel import attention

CPU = torch.device("cpu")


def qkv(length, heads=2, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, heads, length, dim, generator=generator) for _ in range(3)]


def plain(q, k, v, window):
    """Position by position, as it is defined."""
    result = torch.empty_like(v)
    for i in range(q.size(-2)):
        first = max(0, i + 1 - window) if window else 0
        keys, values = k[..., first : i + 1, :], v[..., first : i + 1, :]
        weights = torch.softmax(q[..., i : i + 1, :] @ keys.mT / math.sqrt(q.size(-1)), -1)
        result[..., i : i + 1, :] = weights @ values
    return result


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(0, 25), st.integers(0, 99))
def test_every_window_is_what_it_is_defined_as(length, window, seed):
    q, k, v = qkv(length, seed=seed)
    assert torch.allclose(attention.attend(q, k, v, window), plain(q, k, v, window), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("window", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_flex_attention_computes_the_same(window):
    q, k, v = qkv(16)
    blocks = attention.block_mask(16, window, CPU)
    assert torch.allclose(attention.flex(q, k, v, blocks), plain(q, k, v, window), atol=1e-5)


@pytest.mark.slow
def test_a_block_mask_hides_what_nobody_sees():
    blocks = attention.block_mask(1024, 128, CPU)
    assert blocks.sparsity() > 70


def test_gradients_flow_through_a_window_only():
    q, k, v = (x.requires_grad_() for x in qkv(10))
    attention.attend(q, k, v, 3)[..., 7, :].sum().backward()
    reached = v.grad.abs().sum(dim=(0, 1, 3)) > 0
    assert reached.tolist() == [5 <= i <= 7 for i in range(10)]


@pytest.mark.slow
def test_a_compiled_step_has_no_break_with_windows():
    def function(q, k, v):
        return attention.attend(q, k, v, 4) + attention.attend(q, k, v)

    q, k, v = qkv(12)
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(q, k, v), plain(q, k, v, 4) + plain(q, k, v, 0), atol=1e-5)


def test_a_compiled_step_looks_up_the_block_mask_without_a_break(monkeypatch):
    monkeypatch.setattr(attention, "_block_masks", {(16, 4, "cpu"): attention.block_mask(16, 4, CPU)})

    def function(q, k, v):
        assert torch.compiler.is_compiling()
        return attention.flex(q, k, v, attention._block_masks.get((16, 4, q.device.type)))

    q, k, v = qkv(16)
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(q, k, v), plain(q, k, v, 4), atol=1e-5)


def test_preparing_does_nothing_on_a_cpu():
    attention.prepare(64, [0, 8, 128], CPU)
    assert not attention._block_masks


@given(st.integers(1, 60), st.integers(0, 70))
def test_the_cost_of_a_window_is_counted(length, window):
    seen = [min(i + 1, window or length) for i in range(length)]

    assert attention.mean_keys(length, window) == pytest.approx(sum(seen) / length)
