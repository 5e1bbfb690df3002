"""Scores the network that was left on images that no training saw. Frozen."""

import os

import net
import numpy as np
import torch

with np.load(os.path.join(os.environ["AUTORESEARCH_DATA"], "digits.npz")) as data:
    images, labels = torch.from_numpy(data["images"]), torch.from_numpy(data["labels"])
with torch.no_grad():
    logits = net.load(os.environ["AUTORESEARCH_OUT"])(images)
losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double().numpy()
np.save(os.environ["AUTORESEARCH_ITEMS"], losses)
print(f"METRIC nll={losses.mean():.8f}")
print(f"METRIC accuracy={(logits.argmax(1) == labels).double().mean().item():.6f}")
