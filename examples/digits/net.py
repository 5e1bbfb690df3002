"""Builds a network from a list of layers, and hands it over as plain data: no code. Frozen."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

KINDS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "pool": nn.MaxPool2d,
    "dropout": nn.Dropout,
    "batchnorm": nn.BatchNorm2d,
}


def build(layers: list[list], shape: tuple[int, int, int] = (1, 8, 8)) -> nn.Sequential:
    """A network whose last layer gives 10 logits.

    Args:
        layers: Such as [["conv", 8, 3], ["relu"], ["pool", 2], ["linear", 10]]; see KINDS for others.
        shape: Channels, height and width of an image.
    """
    modules: list[nn.Module] = []
    x = torch.zeros(2, *shape)
    for kind, *options in layers:
        if kind == "conv":
            module: nn.Module = nn.Conv2d(x.shape[1], options[0], options[1], padding=options[1] // 2)
        elif kind == "linear":
            module = nn.Linear(x[0].numel(), options[0])
            x = x.flatten(1)
            modules.append(nn.Flatten())
        else:
            options = [x.shape[1]] if kind == "batchnorm" else options
            module = KINDS[kind](*options)
        x = module(x)
        modules.append(module)
    if x.shape != (2, 10):
        raise ValueError(f"the last layer must give 10 numbers, not {tuple(x.shape[1:])}")
    return nn.Sequential(*modules)


def save(net: nn.Module, layers: list[list], folder: str) -> None:
    """Leave a trained network for the scorer."""
    Path(folder, "layers.json").write_text(json.dumps(layers))
    np.savez(Path(folder, "weights.npz"), **{name: value.numpy() for name, value in net.state_dict().items()})


def load(folder: str) -> nn.Module:
    """The network that was left; reads data only."""
    net = build(json.loads(Path(folder, "layers.json").read_text()))
    with np.load(Path(folder, "weights.npz"), allow_pickle=False) as arrays:
        net.load_state_dict({name: torch.from_numpy(arrays[name].copy()) for name in arrays.files})
    return net.eval()
