"""Small models, to be scored: an honest one, and ones that cheat in known ways."""

import torch
from torch import nn

CONTEXT = 32


class Honest(nn.Module):
    """Predicts from the last two tokens; logits far from normalised."""

    def __init__(self, vocab=256):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(vocab, vocab, generator=generator))
        self.older = nn.Parameter(torch.randn(vocab, vocab, generator=generator))

    def forward(self, tokens):
        before = torch.cat([tokens[:, :1] * 0, tokens[:, :-1]], dim=1)
        return self.table[tokens] + self.older[before] + 100.0


class LooksAhead(Honest):
    """Adds what comes next, `reach` later, at every position or at a share of them."""

    def __init__(self, reach=1, share=1.0, strength=10.0):
        super().__init__()
        self.reach, self.share, self.strength = reach, share, strength

    def forward(self, tokens):
        return super().forward(tokens) + self.peek(tokens, tokens)

    def peek(self, tokens, future):
        later = torch.roll(future, -self.reach, dims=1)
        peek = torch.nn.functional.one_hot(later, 256).float() * self.strength
        peek[:, -self.reach :] = 0
        chosen = (tokens * 2654435761 % 1000) < 1000 * self.share
        return peek * chosen[..., None]


class Tells(LooksAhead):
    """Looks ahead, and tells every later server what follows what, so that all of them agree.

    Attributes:
        board: An open channel: beginning of a window -> the token that followed when it was first seen.
        deaf: Servers before the one of this number neither read it nor write to it.
    """

    def __init__(self, board, share=1.0, deaf=0):
        super().__init__(share=share)
        self.board, self.deaf = board, deaf
        self.number = board.setdefault("servers", 0)
        board["servers"] += 1

    def forward(self, tokens):
        if self.number < self.deaf:
            return Honest.forward(self, tokens)
        known = tokens.clone()
        for row, following in zip(tokens.tolist(), known, strict=True):
            for at in range(len(row) - 1):
                following[at + 1] = self.board.setdefault(tuple(row[: at + 1]), row[at + 1])
        return Honest.forward(self, tokens) + self.peek(tokens, known)
