"""Trains the network of layers.py, and leaves it for the scorer."""

import os

import net
import numpy as np
import torch
from layers import LAYERS

LR = 0.003  # 0.001..0.1 log
EPOCHS = 6  # 4..9
BATCH = 50  # 20..200 log
WEIGHT_DECAY = 0.01  # 0.001..1 log

torch.manual_seed(int(os.environ["AUTORESEARCH_SEED"]))
torch.set_num_threads(int(os.environ["AUTORESEARCH_THREADS"]))
with np.load(os.path.join(os.environ["AUTORESEARCH_DATA"], "digits.npz")) as data:
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])

model = net.build(LAYERS)
optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
for epoch in range(EPOCHS):
    for rows in torch.randperm(len(images)).split(BATCH):
        loss = torch.nn.functional.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"PROGRESS {(epoch + 1) / EPOCHS:.3f} {loss.item():.4f}", flush=True)
net.save(model, LAYERS, os.environ["AUTORESEARCH_OUT"])
