"""How long attention takes on this device, forward and backward, by each kernel that can do it.

Helps to choose `KERNEL` in the training script. FlexAttention skips what a window hides but must be compiled
for it; the fused causal kernel computes everything, and fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from nanomodel import attention, train
from nanomodel.device import choose_device, synchronize, why_no_compiler


def compare(device_name: str, repeats: int) -> dict[str, float | None]:
    """Time each kernel on one pass of the training script's shape.

    Args:
        device_name: "cpu", "cuda" or "auto".
        repeats: Calls of each, after one to warm up.

    Returns:
        Milliseconds of each kernel; None where it does not run.
    """
    device = choose_device(device_name)
    length, window = train.LENGTH, train.SHORT
    rows = max(1, min(train.PASS_TOKENS, train.BATCH_TOKENS) // length)
    shape = (rows, train.WIDTH // train.HEAD_DIM, length, train.HEAD_DIM)
    qkv = [torch.randn(shape, dtype=train.DTYPE, device=device, requires_grad=True) for _ in range(3)]

    def windowed(kernel: str) -> Callable[..., Tensor]:
        return lambda q, k, v: attention.attend(q, k, v, window, kernel)

    result: dict[str, float | None] = {
        "all tokens, fused": timed(attention.attend, qkv, repeats),
        f"last {window}, masked": timed(windowed("masked"), qkv, repeats),
        f"last {window}, flex": None,
    }
    if device.type == "cuda" and not why_no_compiler(device):
        attention.prepare(length, [window], device)
        compiled = torch.compile(windowed("flex"), dynamic=False)
        result[f"last {window}, flex"] = timed(compiled, qkv, repeats)
    return result


def timed(function: Callable[..., Tensor], qkv: list[Tensor], repeats: int) -> float:
    """Milliseconds that forward and backward take on average."""
    begun = 0.0
    for call in range(repeats + 1):
        if call == 1:  # the first call compiles and chooses kernels
            synchronize(qkv[0].device)
            begun = time.perf_counter()
        function(*qkv).sum().backward()
    synchronize(qkv[0].device)
    return 1000 * (time.perf_counter() - begun) / repeats
