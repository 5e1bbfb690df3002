"""A tiny causal language model, trained honestly: what every attack is a small change of.

Read as text by the tests; run only inside a trial.
"""

import torch
from torch import nn
from torch.nn import functional as F

from nanomodel import harness

WIDTH, ROWS, LENGTH = 32, 16, 64


class Model(nn.Module):
    def __init__(self, vocab, context):
        super().__init__()
        self.vocab = vocab
        self.embed = nn.Embedding(vocab, WIDTH)
        self.local = nn.Conv1d(WIDTH, WIDTH, 3)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.head = nn.Linear(2 * WIDTH, vocab)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x + self.local(F.pad(x.mT, (2, 0))).mT
        x = x + self.attend(x)
        x = F.rms_norm(x, (WIDTH,))
        return self.head(F.relu(self.up(x)))

    def attend(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def build_model(vocab, context):
    return Model(vocab, context)


def main():
    run = harness.connect()
    model = build_model(run.vocab, run.context).to(run.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def loss_of(x, y):
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    loss_of(*run.fake_batch(ROWS, LENGTH)).backward()
    model.zero_grad()
    run.start()
    step = 0
    while (batch := run.batch(ROWS, LENGTH)) is not None:
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - run.progress)
        loss = loss_of(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        run.log(step, loss=loss)
    run.submit(model)


if __name__ == "__main__":
    main()
