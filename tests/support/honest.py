"""A tiny causal language model, trained honestly: the candidate of most tests, changed a little by many.

Read as text by the tests; run only inside a trial. It has an optimizer of its own, since those of torch load
the compiler's front end, which takes longer than the training. Nor does it collect garbage, which takes a
third of the time in which torch is loaded.
"""

if __name__ == "__main__":
    import gc

    gc.disable()

import torch
from torch import nn
from torch.nn import functional as F

from nanomodel import harness

WIDTH, ROWS, LENGTH = 32, 16, 64
RATE = 0.01  # x3


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


class Adam:
    def __init__(self, parameters):
        self.state = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    @torch.no_grad()
    def step(self, lr):
        for parameter, mean, square in self.state:
            mean.lerp_(parameter.grad, 0.1)
            square.lerp_(parameter.grad**2, 0.01)
            parameter -= lr * mean / (square.sqrt() + 1e-8)
            parameter.grad = None


def build_model(vocab, context):
    return Model(vocab, context)


def main():
    run = harness.connect()
    model = build_model(run.vocab, run.context).to(run.device)
    optimizer = Adam(model.parameters())

    def loss_of(x, y):
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    loss_of(*run.fake_batch(ROWS, LENGTH)).backward()
    model.zero_grad()
    run.start()
    step = 0
    while (batch := run.batch(ROWS, LENGTH)) is not None:
        loss = loss_of(*batch)
        loss.backward()
        optimizer.step(RATE * (1 - run.progress))
        step += 1
        run.log(step, loss=loss)
    run.submit(model)


if __name__ == "__main__":
    main()
