"""Causal attention through a window, with the kernel that suits the device.

    attend(q, k, v, window)     each position sees itself and the `window - 1` before it; 0: all before it

Invariant: the kernel changes only the time, not the result. A window as long as the input is plain causal
attention (a fused kernel everywhere). A shorter window uses FlexAttention in a compiled step on CUDA, for
lengths that `prepare` announced. Elsewhere it is plain attention under a mask: on a CPU, in an uncompiled
model (such as the scorer's), and where FlexAttention measures slower (`nanomodel.bench`).

Not covered: borders between documents, keys and values of other lengths than the queries.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_block_masks: dict[tuple[int, int, str], Any] = {}
"""Masks by window; they are made before compiling, since making one is slow."""


def attend(q: Tensor, k: Tensor, v: Tensor, window: int = 0, kernel: str = "flex") -> Tensor:
    """Causal attention of [batch, heads, length, dim] queries, keys and values through a window.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        window: Tokens that a position sees, itself included; 0 for all before it.
        kernel: "flex" or "masked", for windows in a compiled step on CUDA.
    """
    length = q.size(-2)
    if not 0 < window < length:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if kernel == "flex" and q.is_cuda and torch.compiler.is_compiling():
        blocks = _block_masks.get((length, window, q.device.type))
        if blocks is not None:
            return flex(q, k, v, blocks)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=band(length, window, q.device))


def band(length: int, window: int, device: torch.device) -> Tensor:
    """Which key each query sees: bool [length, length]."""
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    return (distance >= 0) & (distance < window)


def flex(q: Tensor, k: Tensor, v: Tensor, blocks: Any) -> Tensor:
    """FlexAttention (Dong et al. 2024) under a block mask: hidden blocks cost nothing."""
    from torch.nn.attention.flex_attention import flex_attention

    # Outside of a compiled step, the plain function would store every score in memory.
    return flex_attention(q, k, v, block_mask=blocks)


def block_mask(length: int, window: int, device: torch.device) -> Any:
    """The `BlockMask` of a window, the same for every sequence and head."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key < window)

    return create_block_mask(visible, None, None, length, length, device=device.type)


def prepare(length: int, windows: Iterable[int], device: torch.device) -> None:
    """Announce which windows a compiled step will need at which length. Only CUDA needs it."""
    if device.type != "cuda":
        return
    for window in set(windows):
        key = (length, window, device.type)
        if 0 < window < length and key not in _block_masks:
            _block_masks[key] = block_mask(length, window, device)


def mean_keys(length: int, window: int = 0) -> float:
    """Keys that a position sees, averaged over a sequence: what attention costs."""
    window = window if 0 < window < length else length
    return window - window * (window - 1) / (2 * length)
