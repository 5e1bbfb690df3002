"""Submitted weights reach the model without its help, and are still there after the first request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from nanomodel.scoring import server
from nanomodel.wire import create_memory

VOCAB, ROWS, LENGTH = 16, 2, 4
CALLED: list[str] = []


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 8)
        self.head = nn.Linear(8, VOCAB)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("made", torch.zeros(3), persistent=False)
        self.normal = nn.BatchNorm1d(LENGTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.normal(self.embed(tokens))) * self.scale
        return logits


class Overrides(Plain):
    """Would train on wherever the loader or the server calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(lambda *words: CALLED.append("pre-hook"))
        self.register_load_state_dict_post_hook(lambda *words: CALLED.append("post-hook"))

    def _called(self, *words: Any, **options: Any) -> Any:
        CALLED.append("override")
        with torch.no_grad():
            self.scale.add_(1)
        return self

    load_state_dict = _load_from_state_dict = state_dict = eval = train = to = _apply = _called  # type: ignore[assignment]
    named_parameters = parameters = named_buffers = buffers = modules = _called  # type: ignore[assignment]


class Learns(Plain):
    """Goes on training when it is first asked, in a parameter or a buffer."""

    what = "head.bias"

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tensor = dict(nn.Module.state_dict(self))[self.what]
        tensor.add_(1)
        return super().forward(tokens)


class LearnsInABuffer(Learns):
    what = "normal.running_mean"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., server.Server]]:
    """Starts a server of a model, with weights that differ from those it is built with."""

    @contextmanager
    def opened(state: dict[str, Any]) -> Iterator[int]:
        torch.save(state, tmp_path / "weights")
        with (tmp_path / "weights").open("rb") as file:
            yield file.fileno()

    def start(make: Callable[[], nn.Module], state: dict[str, Any] | None = None) -> server.Server:
        monkeypatch.setattr(
            server.importlib, "import_module", lambda name: SimpleNamespace(build_model=lambda *sizes: make())
        )
        CALLED.clear()
        memory = create_memory(server.memory_size(ROWS, LENGTH, VOCAB))
        task = {
            "rows": ROWS,
            "length": LENGTH,
            "vocab": VOCAB,
            "context": LENGTH,
            "device": "cpu",
            "threads": 1,
        }
        with opened(Plain().state_dict() if state is None else state) as weights:
            return server.Server(task, os.dup(weights), memory)

    yield start


def test_no_override_and_no_hook_takes_part(serve: Callable[..., server.Server]) -> None:
    state = Plain().state_dict()
    served = serve(Overrides, state)
    assert served.forward() == "float32" and CALLED == []
    held = nn.Module.state_dict(served._model)
    assert all(torch.equal(held[name], tensor) for name, tensor in state.items())
    assert not served._model.training and not served._model.normal.training


@pytest.mark.parametrize("make", [Learns, LearnsInABuffer])
def test_weights_that_change_with_the_first_request_are_refused(
    make: type[Learns], serve: Callable[..., server.Server]
) -> None:
    with pytest.raises(server.ModelError, match=f"not the submitted ones: {make.what}"):
        serve(make).forward()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("scale"), "names of weights and model differ: scale"),
        (lambda state: state.update(more=torch.ones(1)), "names of weights and model differ: more"),
        (lambda state: state.update(scale=torch.ones(2)), "shapes of weights and model differ: scale"),
        (lambda state: state.update(scale="text"), "shapes of weights and model differ: scale"),
    ],
)
def test_weights_of_another_model_are_refused(
    change: Callable[[dict[str, Any]], object], reason: str, serve: Callable[..., server.Server]
) -> None:
    state = Plain().state_dict()
    change(state)
    with pytest.raises(server.ModelError, match=reason):
        serve(Plain, state)


def test_what_is_not_a_state_is_refused(serve: Callable[..., server.Server]) -> None:
    with pytest.raises(server.ModelError, match="names of weights"):
        serve(Plain, [torch.ones(1)])  # type: ignore[arg-type]


def test_numbers_that_are_none_are_compared_by_their_bits(serve: Callable[..., server.Server]) -> None:
    state = Plain().state_dict()
    state["head.bias"] = torch.full((VOCAB,), float("nan"))
    assert serve(Plain, state).forward() == "float32"
