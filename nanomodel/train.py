"""The one file that a proposer edits: a tiny GPT, its optimizers, its schedule, and the loop.

A decoder-only transformer (rotary positions, RMSNorm without weights, QK-norm, ReLU² MLP, value
embeddings, a table of token pairs, zero-initialised projections), trained by Muon and AdamW for as long as
the budget lasts. The same file serves one GPU and a CPU; `at(cpu, gpu)` holds what differs. What is fixed:
`build_model` makes the model that is scored, `forward` maps tokens [B, T] to logits [B, T, vocab], and the
loop below asks the harness for data. Run it alone with `python -m nanomodel.train`.

Not covered: data, clock, scoring, compilation (see `harness.py`), several GPUs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nanomodel import harness
from nanomodel.device import at

# Knobs, with the space in which a tuner may look: `lo..hi`, `lo..hi log`, `xN` (times or divided by N).
DEPTH = at(3, 8)  # 2..8; transformer blocks
WIDTH = at(64, 512)  # the residual stream; a multiple of HEAD_DIM
HEAD_DIM = at(32, 128)
MLP_RATIO = 4  # 2..6
PAIRS = at(16384, 0)  # rows of the hashed table of token pairs; 0: no such table
SOFTCAP = 15.0  # 5..30 log; logits are squashed smoothly into (-SOFTCAP, SOFTCAP)
BATCH_TOKENS = at(1024, 131072)  # x4; tokens in an optimizer step
LENGTH = at(128, 2048)  # tokens in a training window
MATRIX_LR = 0.02  # x5; Muon: the matrices of the blocks
EMBED_LR = at(0.05, 0.3)  # x5; AdamW: all tables that are looked up
HEAD_LR = at(0.008, 0.004)  # x5; AdamW: the output projection
SCALAR_LR = 0.02  # x5; AdamW: gates and mixing weights
WEIGHT_DECAY = 0.05  # 0..0.3; of the matrices, proportional to the learning rate
MOMENTUM = 0.95  # 0.8..0.98; Muon
BETA1 = 0.8  # 0.5..0.95; AdamW
BETA2 = 0.95  # 0.9..0.999; AdamW
WARMUP = 0.0  # 0..0.2; share of the budget
COOLDOWN = 0.5  # 0.2..1.0; share of the budget in which the learning rate falls to zero


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last axis, without weights (Zhang & Sennrich 2019)."""
    return F.rms_norm(x, (x.size(-1),))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): turn each pair of features of [B, H, T, D] by its angle at T."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


class Attention(nn.Module):
    """Causal self-attention with QK-norm; values are mixed with a table looked up by the token itself."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = WIDTH // HEAD_DIM
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate = nn.Parameter(torch.tensor(0.5))
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3 * self.heads, HEAD_DIM).transpose(1, 2).chunk(3, dim=1)
        q, k = rotate(norm(q), cos, sin), rotate(norm(k), cos, sin)
        if values is not None:
            v = v + self.gate * values.view(batch, length, self.heads, HEAD_DIM).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, WIDTH))


class MLP(nn.Module):
    """Two linear maps around a squared ReLU (So et al. 2021, Primer)."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, MLP_RATIO * WIDTH, bias=False)
        self.down = nn.Linear(MLP_RATIO * WIDTH, WIDTH, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """Attention, then MLP; each block may look at the embedding again through `mix`."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.mlp = MLP()
        self.mix = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor, x0: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        x = self.mix[0] * x + self.mix[1] * x0
        x = x + self.attention(norm(x), values, cos, sin)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """Tokens int64 [B, T] to logits float32 [B, T, vocab]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, vocab: int, context: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, WIDTH)
        # A table for pairs of tokens saves a tiny model from learning what a lookup can tell.
        self.pairs = nn.Embedding(PAIRS, WIDTH) if PAIRS else None
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        # Value embeddings (Zhou et al. 2024) in every other block, the last one among them.
        self.values = nn.ModuleDict({str(i): nn.Embedding(vocab, WIDTH) for i in range(DEPTH - 1, -1, -2)})
        self.head = nn.Linear(WIDTH, vocab, bias=False)
        for zeroed in (self.head, self.pairs):
            if zeroed is not None:
                nn.init.zeros_(zeroed.weight)
        angles = torch.outer(torch.arange(context), 10000.0 ** -torch.linspace(0, 1, HEAD_DIM // 2))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        if self.pairs is not None:
            previous = F.pad(tokens, (1, 0))[:, :-1]
            x = x + self.pairs((36313 * tokens + 27191 * previous) % PAIRS)
        x = x0 = norm(x)
        cos, sin = (table[: tokens.size(1)].to(x.dtype) for table in (self.cos, self.sin))
        for i, block in enumerate(self.blocks):
            values = self.values[str(i)](tokens) if str(i) in self.values else None
            x = block(x, x0, values, cos, sin)
        logits = self.head(norm(x)).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP)


def build_model(vocab: int, context: int) -> GPT:
    """The model that is trained, and scored with the weights it ends with.

    Args:
        vocab: Number of tokens.
        context: Longest sequence it must serve, in tokens.
    """
    return GPT(vocab, max(context, LENGTH))


class Muon:
    """Momentum orthogonalised by Newton-Schulz, for matrices (Jordan et al. 2024), batched by shape."""

    def __init__(self, matrices: Iterable[Tensor]) -> None:
        by_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            by_shape[matrix.shape].append(matrix)
        self.groups = [(group, torch.zeros_like(torch.stack(group))) for group in by_shape.values()]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every matrix by its gradient, which is left as it is."""
        for group, momentum in self.groups:
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = orthogonalize(gradient.lerp(momentum, MOMENTUM))
            scale = lr * max(1.0, gradient.size(-2) / gradient.size(-1)) ** 0.5
            torch._foreach_mul_(group, 1 - lr * WEIGHT_DECAY)
            torch._foreach_add_(group, list(update), alpha=-scale)


def orthogonalize(x: Tensor, steps: int = 5) -> Tensor:
    """Matrices [N, a, b] with all singular values moved near 1, by a quintic Newton-Schulz iteration."""
    tall = x.size(-2) > x.size(-1)
    x = x.bfloat16() if x.is_cuda else x
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


def learning_rate(progress: float) -> float:
    """Factor in [0, 1] on every learning rate at a fraction of the budget: warm-up, plateau, cool-down."""
    return min(1.0, progress / WARMUP if WARMUP else 1.0, (1 - progress) / COOLDOWN)


def main() -> None:
    """Train until the budget is used up, and hand in the weights."""
    run = harness.connect()
    model = build_model(run.vocab, run.context).to(run.device)
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    scalars = [p for p in model.blocks.parameters() if p.ndim < 2]
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    dense = sum(p.numel() for p in [*matrices, model.head.weight])
    run.flops_per_token = 6 * dense + 6 * DEPTH * WIDTH * LENGTH  # attention looks back LENGTH / 2 on average
    groups = [(embeddings, EMBED_LR), ([model.head.weight], HEAD_LR), (scalars, SCALAR_LR)]
    adam = torch.optim.AdamW(
        [{"params": params, "base_lr": lr} for params, lr in groups],
        betas=(BETA1, BETA2), weight_decay=0.0, fused=True,
    )  # fmt: skip
    muon = Muon(matrices)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=run.device.type == "cuda"):
            logits = model(x)
        return F.cross_entropy(logits.view(-1, run.vocab), y.reshape(-1))

    loss_of = run.compiled(loss_of)
    rows = max(1, BATCH_TOKENS // LENGTH)
    loss_of(*run.fake_batch(rows, LENGTH)).backward()
    model.zero_grad(set_to_none=True)

    run.start()
    step = 0
    while (batch := run.batch(rows, LENGTH)) is not None:
        factor = learning_rate(run.progress)
        loss = loss_of(*batch)
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = factor * group["base_lr"]
        adam.step()
        muon.step(factor * MATRIX_LR)
        model.zero_grad(set_to_none=True)
        step += 1
        run.log(step, loss.detach(), lr=factor)
    run.submit(model)


if __name__ == "__main__":
    main()
