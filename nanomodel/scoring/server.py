"""One loaded model, and the shared memory for its inputs and logits.

As soon as this process imports `nanomodel.train`, it runs the candidate's code. So it runs in a sandbox and
sees inputs only, and the scorer checks every answer (`nanomodel.scoring.client`).

The weights are read before that, put into the model without its methods, and compared with it after the first
request. So a model that is scored does not go on training by an override or a hook. A candidate can still
change this code in its own process: the runner's price on the process's time holds against that.
"""

from __future__ import annotations

import importlib
import mmap
import traceback
from collections.abc import Iterator
from typing import IO, Any, cast

import torch

from nanomodel.device import choose_device, lock_pages, prepare
from nanomodel.wire import Closed, Message, Wire, map_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PAGE = 4096
State = dict[str, torch.Tensor]


class ModelError(RuntimeError):
    """The model does not fit its weights, changes them, or returns something other than logits."""


def logits_offset(rows: int, length: int) -> int:
    """Offset of the logits in shared memory: the first page after the int64 tokens [rows, length]."""
    return -(-rows * length * 8 // PAGE) * PAGE


def memory_size(rows: int, length: int, vocab: int) -> int:
    """Bytes of shared memory for tokens and float32 logits [rows, length, vocab]."""
    return logits_offset(rows, length) + rows * length * vocab * 4


class Server:
    """One loaded model, and the shared memory for its inputs and logits."""

    def __init__(self, task: Message, weights: int, memory: int) -> None:
        rows, length, vocab = (int(task[key]) for key in ("rows", "length", "vocab"))
        self._device = choose_device(str(task["device"]))
        prepare(self._device, int(task["threads"]), seed=0)
        torch.set_float32_matmul_precision("highest")
        self._model = load_model(weights, vocab, int(task["context"]))
        place(self._model, self._device)
        self._loaded = {name: tensor.detach().clone() for name, tensor in _tensors(self._model).items()}
        buffer = map_memory(memory, memory_size(rows, length, vocab))
        lock_pages(torch.frombuffer(buffer, dtype=torch.uint8), self._device)
        self._tokens = torch.frombuffer(buffer, dtype=torch.int64, count=rows * length).view(rows, length)
        self._answers = {
            name: torch.frombuffer(
                buffer, dtype=dtype, count=rows * length * vocab, offset=logits_offset(rows, length)
            ).view(rows, length, vocab)
            for name, dtype in DTYPES.items()
        }

    def forward(self) -> str:
        """Run the model on the tokens in memory, and put its logits there.

        Returns:
            The name of their type.

        Raises:
            ModelError: If the model returns anything but logits [rows, length, vocab], or has changed its
                weights during the first request.
        """
        with torch.inference_mode():
            logits = self._model(self._tokens.to(self._device))
            shape = self._answers["float32"].shape
            if not isinstance(logits, torch.Tensor):
                raise ModelError(f"the model returned {type(logits).__name__}, not logits")
            if logits.shape != shape:
                raise ModelError(f"the model returned logits of shape {[*logits.shape]}, not {[*shape]}")
            if not logits.is_floating_point():
                raise ModelError(f"the model returned logits of type {logits.dtype}")
            # No precision is lost: bfloat16 logits stay bfloat16, all others become float32.
            dtype = "bfloat16" if logits.dtype is torch.bfloat16 else "float32"
            self._answers[dtype].copy_(logits)
        if self._loaded:
            check_weights(self._model, self._loaded)
            self._loaded = {}
        return dtype


def load_model(weights: int, vocab: int, context: int) -> torch.nn.Module:
    """Build the candidate's model and put the submitted weights into it.

    The file is read before any candidate code runs, and no method or hook of the model takes part.

    Args:
        weights: Descriptor of the file that `Run.submit` wrote.
        vocab: Number of tokens.
        context: Longest input.

    Raises:
        Exception: Anything that the candidate's code raises, or that loading a wrong state raises.
    """
    # Mapped, not read: two servers share this descriptor and its position.
    with mmap.mmap(weights, 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as file:
        state: State = torch.load(cast(IO[bytes], file), map_location="cpu", weights_only=True)
    importlib.invalidate_caches()  # the script may be newer than this process's last look into its folder
    train = importlib.import_module("nanomodel.train")
    model = train.build_model(vocab, context)
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"build_model returned {type(model).__name__}, not a module")
    _fill(model, state)
    check_weights(model, state)
    return model


def place(model: torch.nn.Module, device: torch.device) -> None:
    """Move a model to a device, ready to serve, without its methods."""
    for _, own in _modules(model):
        own["training"] = False
        for parameter in [p for p in own["_parameters"].values() if p is not None]:
            parameter.data = parameter.data.to(device)
        for name, buffer in own["_buffers"].items():
            own["_buffers"][name] = None if buffer is None else buffer.to(device)


def _modules(model: torch.nn.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """The prefix and the attributes of each module in a model, without asking the model."""
    pending: list[tuple[str, torch.nn.Module]] = [("", model)]
    while pending:
        prefix, module = pending.pop()
        own = object.__getattribute__(module, "__dict__")
        yield prefix, own
        pending += [
            (f"{prefix}{name}.", child) for name, child in own["_modules"].items() if child is not None
        ]


def _tensors(model: torch.nn.Module) -> State:
    """All parameters and persistent buffers, by their names in a state dict."""
    found: State = {}
    for prefix, own in _modules(model):
        kept = {k: v for k, v in own["_buffers"].items() if k not in own["_non_persistent_buffers_set"]}
        found |= {prefix + k: v for k, v in {**own["_parameters"], **kept}.items() if v is not None}
    return found


def _fill(model: torch.nn.Module, state: State) -> None:
    tensors = _tensors(model)
    if not isinstance(state, dict) or set(state) != set(tensors):
        names = sorted(map(str, set(state) ^ set(tensors)))[:3] if isinstance(state, dict) else []
        raise ModelError(f"the names of weights and model differ: {', '.join(names)}")
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        for name, tensor in tensors.items():
            if not isinstance(state[name], torch.Tensor) or state[name].shape != tensor.shape:
                raise ModelError(f"the shapes of weights and model differ: {name}")
            torch.Tensor.copy_(tensor, state[name])


def check_weights(model: torch.nn.Module, state: State) -> None:
    """Compare a model with the submitted weights, bit by bit.

    Raises:
        ModelError: If they differ.
    """
    tensors = _tensors(model)
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        for name, submitted in state.items():
            held = tensors.get(name)
            if held is None or held.shape != submitted.shape or not _same_bits(held, submitted):
                raise ModelError(f"the model's weights are not the submitted ones: {name}")


def _same_bits(held: torch.Tensor, submitted: torch.Tensor) -> bool:
    wanted = submitted.to(held.device, held.dtype)
    one, other = (tensor.detach().reshape(-1).contiguous().view(torch.uint8) for tensor in (held, wanted))
    return torch.equal(one, other)


def serve(wire: Wire) -> None:
    """Load the weights that the other end sends and answer its requests, until it closes the socket."""
    stage = "load"
    try:
        task, (weights, memory) = wire.recv()
        server = Server(task, weights, memory)
        wire.send({"type": "loaded"})
        stage = "forward"
        while True:
            wire.recv()
            wire.send({"type": "logits", "dtype": server.forward()})
    except Closed:
        return
    except Exception as error:
        traceback.print_exc()
        wire.send({"type": "failed", "stage": stage, "kind": type(error).__name__[:40], "line": _line(error)})


def _line(error: Exception) -> int:
    """The line of the training script where an error was raised; 0 if it was elsewhere."""
    frames = traceback.extract_tb(error.__traceback__)
    script = f"{__package__.partition('.')[0]}/train.py"
    return next((f.lineno or 0 for f in reversed(frames) if f.filename.endswith(script)), 0)
