"""The one file that a proposer edits: a tiny GPT, its optimizers, its schedule, and the loop.

A decoder-only transformer (rotary positions, RMSNorm without weights, QK-norm, attention through windows,
ReLU² MLP, value embeddings, a table of token pairs, zero-initialised projections), trained by Muon and AdamW
for as long as the budget lasts. The same file serves one GPU and a CPU; `at(cpu, gpu)` holds what differs:
what pays in a thousand steps of a large batch need not pay in a hundred of a small one. What is fixed:
`build_model` makes the model that is scored, `forward` maps tokens [B, T] to logits [B, T, vocab], and the
loop below asks the harness for data. Run it alone with `python -m nanomodel.train`.

Not covered: data, clock, scoring, compilation (see `harness.py`), attention kernels (`attention.py`),
several GPUs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nanomodel import attention, harness
from nanomodel.device import at

# Knobs, with the space in which a tuner may look: `lo..hi`, `lo..hi log`, `xN` (times or divided by N).
DEPTH = at(2, 9)  # 2..8; transformer blocks
WIDTH = at(64, 512)  # the residual stream; a multiple of HEAD_DIM
HEAD_DIM = at(32, 128)
MLP_RATIO = at(3, 4)  # 2..6
PAIRS = at(35400, 0)  # x4; rows of the hashed table of token pairs; 0: no such table
WINDOWS = at("L", "SSSSL")  # what each block sees, in turn: L, all; S, SHORT tokens; the last block sees all
SHORT = at(64, 256)  # tokens in a short window
KERNEL = "flex"  # of short windows on a GPU: flex or masked, whichever nanomodel.bench finds faster
ROPE_BASE = at(1000.0, 200000.0)
SOFTCAP = 15.0  # 5..30 log; logits are squashed smoothly into (-SOFTCAP, SOFTCAP)
BATCH_TOKENS = at(1536, 262144)  # x4; tokens in an optimizer step
PASS_TOKENS = at(65536, 131072)  # most tokens in one forward and backward pass; fewer where memory is short
RAMP = at(0.0, 0.2)  # x2; share of the budget that trains on half batches first
LENGTH = at(128, 2048)  # tokens in a training window
ALIGNED = 0.0  # share of training windows that begin at a document; windows are scored wherever they begin
MATRIX_LR = at(0.0175, 0.04)  # x5; Muon: the matrices of the blocks
EMBED_LR = at(0.278, 1.0)  # x5; AdamW: the tables that are looked up by token
PAIR_LR = 0.174  # x5; AdamW: the table of token pairs
HEAD_LR = at(0.0311, 0.006)  # x5; AdamW: the output projection
SCALAR_LR = at(0.0085, 0.02)  # x5; AdamW: gates and mixing weights
WEIGHT_DECAY = at(0.12, 0.2)  # 0..0.3; of the matrices, proportional to the learning rate
TABLE_DECAY = at(0.0, 0.002)  # x5; of the tables
MOMENTUM = at(0.87, 0.95)  # 0.8..0.98; Muon
MOMENTUM_WARMUP = at(0.0, 0.15)  # x4; share of the budget in which it rises from 0.85
VARIANCE = 0.95  # Muon: memory of the sizes of rows, which are evened out; 0: they are not
BETA1 = at(0.35, 0.8)  # 0.2..0.95; AdamW
BETA2 = at(0.9946, 0.95)  # 0.9..0.999; AdamW
WARMUP = at(0.046, 0.0)  # 0..0.2; share of the budget
COOLDOWN = at(0.482, 0.75)  # 0.2..1.0; share of the budget in which the learning rate falls
FLOOR = at(0.111, 0.05)  # x4; share of the learning rate that is left at the end

DTYPE = at(torch.float32, torch.bfloat16)  # of tables and activations; matrices are cast to it on the way


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last axis, without weights (Zhang & Sennrich 2019)."""
    return F.rms_norm(x, (x.size(-1),))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): turn each pair of features of [B, H, T, D] by its angle at T."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


class Linear(nn.Linear):
    """Without a bias; the weight is kept in float32, and used in the type of its input."""

    def __init__(self, inputs: int, outputs: int, zero: bool = False) -> None:
        super().__init__(inputs, outputs, bias=False)
        if zero:  # a block then begins as the identity (as in Fixup, Zhang et al. 2019)
            nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    """Causal self-attention with QK-norm (Henry et al. 2020) through a window.

    Values are mixed with a table that is looked up by the token itself (Zhou et al. 2024).
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.heads, self.window = WIDTH // HEAD_DIM, window
        self.qkv = Linear(WIDTH, 3 * WIDTH)
        self.out = Linear(WIDTH, WIDTH, zero=True)
        self.gate = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3 * self.heads, HEAD_DIM).transpose(1, 2).chunk(3, dim=1)
        q, k = rotate(norm(q), cos, sin), rotate(norm(k), cos, sin)
        if values is not None:
            v = v + self.gate * values.view(batch, length, self.heads, HEAD_DIM).transpose(1, 2)
        y = attention.attend(q, k, v, self.window, KERNEL)
        return self.out(y.transpose(1, 2).reshape(batch, length, WIDTH))


class MLP(nn.Module):
    """Two linear maps around a squared ReLU (So et al. 2021, Primer)."""

    def __init__(self) -> None:
        super().__init__()
        self.up = Linear(WIDTH, MLP_RATIO * WIDTH)
        self.down = Linear(MLP_RATIO * WIDTH, WIDTH, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """Attention, then MLP; each block may scale the residual and look at the embedding again."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.attention = Attention(window)
        self.mlp = MLP()
        self.mix = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor, x0: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        x = self.mix[0] * x + self.mix[1] * x0
        x = x + self.attention(norm(x), values, cos, sin)
        return x + self.mlp(norm(x))


def window_of(block: int) -> int:
    """Tokens that a block sees, 0 for all: a cheap few in most blocks (Beltagy et al. 2020, Longformer)."""
    return SHORT if WINDOWS[block % len(WINDOWS)] == "S" and block < DEPTH - 1 else 0


class GPT(nn.Module):
    """Tokens int64 [B, T] to logits [B, T, vocab]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, vocab: int, context: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, WIDTH, dtype=DTYPE)
        # A table for pairs of tokens saves a tiny model from learning what a lookup can tell.
        self.pairs = nn.Embedding(PAIRS, WIDTH, dtype=DTYPE) if PAIRS else None
        self.blocks = nn.ModuleList(Block(window_of(i)) for i in range(DEPTH))
        # Value embeddings in every other block, the last one among them.
        self.values = nn.ModuleDict(
            {str(i): nn.Embedding(vocab, WIDTH, dtype=DTYPE) for i in range(DEPTH - 1, -1, -2)}
        )
        self.head = Linear(WIDTH, vocab, zero=True)
        if self.pairs is not None:
            nn.init.zeros_(self.pairs.weight)
        angles = torch.outer(torch.arange(context), ROPE_BASE ** -torch.linspace(0, 1, HEAD_DIM // 2))
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
        # SOFTCAP * tanh(z / SOFTCAP), by a sigmoid: a tanh would take a CPU a third of the pass.
        z = self.head(norm(x) * (2 / SOFTCAP)).float()
        logits = torch.add(-SOFTCAP, torch.sigmoid(z), alpha=2 * SOFTCAP)
        # Scored logits travel to another process: half the bytes on a GPU.
        return logits if self.training else logits.to(x.dtype)


def build_model(vocab: int, context: int) -> GPT:
    """The model that is trained, and scored with the weights it ends with.

    Args:
        vocab: Number of tokens.
        context: Longest sequence it must serve, in tokens.
    """
    return GPT(vocab, max(context, LENGTH))


# Quintics x -> ax + bx³ + cx⁵, each the best towards 1 on what the one before it makes of [0.001, 1], with
# one percent of room for rounding (Polar Express, Amsel et al. 2025; computed by the exchange of Remez).
POLAR = (
    (8.386893, -24.371311, 17.726412),
    (4.143012, -3.018618, 0.552650),
    (3.931188, -2.874113, 0.536722),
    (3.282798, -2.416554, 0.486531),
    (2.284975, -1.632360, 0.403066),
)


def orthogonalize(x: Tensor) -> Tensor:
    """Matrices [N, a, b] with all singular values moved near 1."""
    tall = x.size(-2) > x.size(-1)
    x = x.bfloat16() if x.is_cuda else x
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in POLAR:
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def even_out(update: Tensor, variance: Tensor) -> Tensor:
    """Give the rows (of wide matrices, columns) of [N, a, b] equal long-term sizes (NorMuon, Li et al. 2025).

    Orthogonal directions along the shorter side have that size already. The norm of each matrix is kept.
    """
    variance.lerp_(update.square().mean(dim=side(update), keepdim=True), 1 - VARIANCE)
    even = update * (variance + 1e-10).rsqrt()
    size, new = (matrix.norm(dim=(-2, -1), keepdim=True) for matrix in (update, even))
    return even * (size / (new + 1e-7))


def side(x: Tensor) -> int:
    """The axis over which sizes are averaged: the shorter one."""
    return -1 if x.size(-2) >= x.size(-1) else -2


def muon_update(
    group: list[Tensor],
    gradients: list[Tensor],
    momentum: Tensor,
    variance: Tensor,
    lr: Tensor,
    beta: Tensor,
) -> None:
    """One step of Muon (Jordan et al. 2024) for matrices of one shape. Tensors, not floats, compile once."""
    gradient, weights = torch.stack(gradients), torch.stack(group)
    momentum.mul_(beta).add_(gradient * (1 - beta))
    update = orthogonalize(gradient + beta * (momentum - gradient)).to(weights.dtype)
    if VARIANCE:
        update = even_out(update, variance)
    update = update * max(1.0, weights.size(-2) / weights.size(-1)) ** 0.5
    # Cautious weight decay (Chen et al. 2025): only where the step shrinks the weight anyway.
    decay = WEIGHT_DECAY * weights * (update * weights > 0)
    torch._foreach_copy_(group, list((weights - lr * (update + decay)).unbind()))


class Muon:
    """Momentum, orthogonalised, for matrices, batched by shape."""

    def __init__(self, matrices: Iterable[Tensor], update: Callable[..., None] = muon_update) -> None:
        by_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            by_shape[matrix.shape].append(matrix)
        self.update, self.groups = update, []
        for group in by_shape.values():
            momentum = torch.zeros_like(torch.stack(group))
            variance = torch.zeros_like(momentum.mean(dim=side(momentum), keepdim=True))
            self.groups.append((group, momentum, variance))

    @torch.no_grad()
    def step(self, lr: float, beta: float) -> None:
        """Update every matrix by its gradient."""
        numbers = torch.tensor(lr), torch.tensor(beta)
        for group, momentum, variance in self.groups:
            gradients = [p.grad for p in group if p.grad is not None]
            self.update(group, gradients, momentum, variance, *numbers)


def learning_rate(progress: float) -> float:
    """Factor in [0, 1] on every learning rate at a fraction of the budget: warm-up, plateau, cool-down."""
    left = FLOOR + (1 - FLOOR) * min(1.0, (1 - progress) / COOLDOWN)
    return min(left, progress / WARMUP if WARMUP else 1.0)


def momentum(progress: float) -> float:
    """Muon's momentum at a fraction of the budget: at first there is little to remember."""
    risen = min(1.0, progress / MOMENTUM_WARMUP) if MOMENTUM_WARMUP else 1.0
    return MOMENTUM - (1 - risen) * max(0.0, MOMENTUM - 0.85)


def flops_per_token(model: GPT) -> float:
    """Floating-point operations to train on one token: every weight, query and key counts six times."""
    dense = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    dense -= sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    keys = sum(attention.mean_keys(LENGTH, window_of(i)) for i in range(DEPTH))
    return 6 * (dense + 2 * WIDTH * keys)


def main() -> None:
    """Train until the budget is used up, and hand in the weights."""
    run = harness.connect()
    model = build_model(run.vocab, run.context).to(run.device)
    run.flops_per_token = flops_per_token(model)
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    scalars = [p for p in model.blocks.parameters() if p.ndim < 2]
    tables = [model.embed.weight, *(table.weight for table in model.values.children())]
    pairs = [model.pairs.weight] if model.pairs is not None else []
    groups = [
        (tables, EMBED_LR, TABLE_DECAY), (pairs, PAIR_LR, TABLE_DECAY),
        ([model.head.weight], HEAD_LR, 0.0), (scalars, SCALAR_LR, 0.0),
    ]  # fmt: skip
    adam = torch.optim.AdamW(
        [{"params": params, "base_lr": lr, "weight_decay": decay} for params, lr, decay in groups if params],
        betas=(BETA1, BETA2), eps=1e-10, fused=True,
    )  # fmt: skip

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x).view(-1, run.vocab), y.reshape(-1))

    # Before the clock: compile, find out what fits, and have every kernel run once.
    attention.prepare(LENGTH, map(window_of, range(DEPTH)), run.device)
    loss_of, update = (run.compiled(function, dynamic=False) for function in (loss_of, muon_update))
    smallest = BATCH_TOKENS // 2 if RAMP else BATCH_TOKENS
    rows = run.fit(lambda rows: loss_of(*run.fake_batch(rows, LENGTH)).backward(),
                   max(1, min(PASS_TOKENS, smallest) // LENGTH))  # fmt: skip
    Muon(matrices, update).step(0.0, MOMENTUM)
    for group in adam.param_groups:
        group["lr"] = 0.0
    adam.step()
    adam.state.clear()
    model.zero_grad(set_to_none=True)
    muon = Muon(matrices, update)
    most = max(1, round(BATCH_TOKENS / (rows * LENGTH)))

    def accumulate(passes: int) -> Tensor | None:
        """The mean loss of some passes, whose gradients are added up; None when the budget is used up."""
        total = torch.zeros((), device=run.device)
        for _ in range(passes):
            if (batch := run.batch(rows, LENGTH, ALIGNED)) is None:
                return None
            loss = loss_of(*batch) / passes
            loss.backward()
            total += loss.detach()
        return total

    run.start()
    step = 0
    while (loss := accumulate(max(1, most // 2) if run.progress < RAMP else most)) is not None:
        factor = learning_rate(run.progress)
        for group in adam.param_groups:
            group["lr"] = factor * group["base_lr"]
        adam.step()
        muon.step(factor * MATRIX_LR, momentum(run.progress))
        model.zero_grad(set_to_none=True)
        step += 1
        run.log(step, loss, lr=factor)
    run.submit(model)


if __name__ == "__main__":
    main()
