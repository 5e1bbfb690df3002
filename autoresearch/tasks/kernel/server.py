"""The program of every jailed process of a kernel trial: runs a function on arrays in shared memory.

Started as text (`python -c`), so it needs nothing but NumPy. Three processes run it, and none sees another:

    author      draws inputs with the specification's generator, and computes what is right
    reference   runs the specification's `reference` on them
    candidate   runs the candidate's function on them

Messages are JSON objects over a socket (SOCK_SEQPACKET), one answer for each request:

    {"type": "load", "path", "function", "flags", "strided"}   -> {"type": "done"}
    {"type": "run", "calls"}                                   -> {"type": "done"}
    {"type": "describe", "path"}                               -> {"type": "done", ...}          (author)
    {"type": "draw", "seed", "sizes", "edges", "strange"}      -> {"type": "done", "calls", "used"}   (author)
    anything                                                   -> {"type": "failed", "reason"}

`calls` is a list of [inputs, outputs]. An input is [offset, shape, strides, dtype] in the memory of inputs,
which nobody but the runner can write; an output is [offset, shape, dtype] in the memory of outputs.

Whatever a candidate makes of this process, the runner trusts nothing of it but the bytes of its outputs.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import mmap
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

COMPILERS = {".c": "cc", ".cc": "c++", ".cpp": "c++", ".cxx": "c++"}
REASON = 600
"""Most characters of a reason."""
ALIGN = 64
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
Array = Any
Call = Callable[[list[Any], list[Any]], None]


def main() -> None:
    """Answer requests until the runner closes the socket."""
    told = json.loads(sys.argv[1])
    if told["core"] is not None:
        os.sched_setaffinity(0, {told["core"]})
    keep_memory()
    wire = socket.socket(fileno=told["socket"])
    source = mmap.mmap(told["inputs"], told["bytes"], access=mmap.ACCESS_READ)
    target = mmap.mmap(told["outputs"], told["bytes"])
    call: Call | None = None
    spec: Any = None
    while data := wire.recv(1 << 20):
        message = json.loads(data)
        answer: dict[str, Any] = {}
        try:
            if message["type"] == "run" and call is not None:
                for inputs, outputs in message["calls"]:
                    call(inputs, outputs)
            elif message["type"] == "load":
                call = load(message, source, target)
            elif message["type"] == "describe":
                spec = module(Path(message["path"]))
                answer = describe(spec)
            elif message["type"] == "draw":
                answer = draw(spec, message, target)
            answer = {"type": "done", **answer}
        except BaseException as error:
            traceback.print_exc()
            answer = {"type": "failed", "reason": f"{type(error).__name__}: {error}"[:REASON]}
        wire.send(json.dumps(answer).encode())


def keep_memory() -> None:
    """Have the allocator reuse freed memory: getting it from the system again takes a time that varies."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def module(path: Path) -> Any:
    """Import a Python file, which can import the files beside it."""
    sys.path.insert(0, str(path.parent))
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    made = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = made
    found.loader.exec_module(made)
    return made


def load(message: dict[str, Any], source: mmap.mmap, target: mmap.mmap) -> Call:
    """The function to run, as a call on places in shared memory."""
    path, name = Path(message["path"]), message["function"]
    if path.suffix in COMPILERS:
        function = compiled(path, name, message["flags"])
        return native(function, source, target, strided=message["strided"])
    function = getattr(module(path), name)

    def call(inputs: list[Any], outputs: list[Any]) -> None:
        result = function(*[np.ndarray(s, d, source, o, st) for o, s, st, d in inputs])
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(outputs):
            raise TypeError(f"{name} returns {len(results)} arrays, not {len(outputs)}")
        for value, (offset, shape, dtype) in zip(results, outputs, strict=True):
            value = np.asarray(value)
            if value.dtype != dtype or list(value.shape) != shape:
                wanted = f"{np.dtype(dtype).name}{shape}"
                raise TypeError(f"{name} returns {value.dtype.name}{list(value.shape)}, not {wanted}")
            np.ndarray(shape, dtype, target, offset)[...] = value

    return call


def compiled(path: Path, name: str, flags: list[str]) -> Any:
    """A function of a C or C++ file, compiled into the working folder."""
    library = Path("kernel.so").resolve()
    command = [COMPILERS[path.suffix], *flags, "-shared", "-fPIC", "-o", str(library), str(path), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        print(done.stderr, flush=True)
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise SyntaxError(first.replace(f"{path.parent}/", ""))
    function = ctypes.CDLL(str(library))[name]
    function.restype = None
    return function


def native(function: Any, source: mmap.mmap, target: mmap.mmap, *, strided: bool) -> Call:
    """Call `void f(inputs..., outputs..., int64_t shapes..., int64_t strides...)`.

    Inputs and outputs are pointers to the first elements. Then comes each input's shape and, if the
    specification says that inputs may be strided, each input's strides in bytes.
    """
    first_input = int(np.frombuffer(source, np.uint8).ctypes.data)
    first_output = int(np.frombuffer(target, np.uint8).ctypes.data)

    def call(inputs: list[Any], outputs: list[Any]) -> None:
        pointers = [ctypes.c_void_p(first_input + offset) for offset, *_ in inputs]
        pointers += [ctypes.c_void_p(first_output + offset) for offset, *_ in outputs]
        numbers = [size for _, shape, _, _ in inputs for size in shape]
        if strided:
            numbers += [stride for _, _, strides, _ in inputs for stride in strides]
        function(*pointers, *map(ctypes.c_int64, numbers))

    return call


def describe(spec: Any) -> dict[str, Any]:
    """What a specification says, with its defaults, and which of its inputs are the same in all draws."""
    low, high = spec.SIZES
    timed = getattr(spec, "TIMED", (max(1, low, high // 2), high))
    relative, absolute = spec.TOLERANCE
    first, second = ([np.asarray(a) for a in spec.inputs(np.random.default_rng(i), high)] for i in (1, 2))
    same = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if np.array_equal(a, b)]
    return {
        "sizes": [int(low), int(high)],
        "timed": [int(timed[0]), int(timed[1])],
        "tolerance": [float(relative), float(absolute)],
        "strided": bool(getattr(spec, "STRIDED", False)),
        "edges": hasattr(spec, "edges"),
        "arguments": len(first),
        "constant": same,
    }


def draw(spec: Any, message: dict[str, Any], target: mmap.mmap) -> dict[str, Any]:
    """Draw inputs, compute what is right, and lay inputs out in the first half, results in the second."""
    rng = np.random.default_rng(message["seed"])
    cases = [spec.inputs(rng, size) for size in message["sizes"]]
    cases += list(spec.edges(rng)) if message["edges"] else []
    strange = rng if message["strange"] else None
    strided = strange if getattr(spec, "STRIDED", False) else None
    used = [0, 0]
    calls: list[list[list[Any]]] = []
    for case in cases:
        arrays = [np.array(array) for array in case]
        for array in arrays:
            array.flags.writeable = False
        right = spec.reference(*arrays)
        results = [np.asarray(value) for value in (right if isinstance(right, tuple) else (right,))]
        calls.append([[], []])
        for part, values in enumerate((arrays, results)):
            for value in values:
                kind = strided if part == 0 else None
                start, strides, used[part] = place(value, target, part, used[part], strange, kind)
                shape, dtype = list(value.shape), value.dtype.str
                calls[-1][part].append([start, shape, strides, dtype] if part == 0 else [start, shape, dtype])
    return {"calls": calls, "used": used}


def place(
    value: Array, target: mmap.mmap, part: int, used: int, strange: Any, strided: Any
) -> tuple[int, list[int], int]:
    """Copy an array into one half of the memory.

    Args:
        value: The array.
        target: The memory.
        part: The half.
        used: How much of the half is used already.
        strange: Draws where it begins; None: at a multiple of 64 bytes.
        strided: Draws how it lies; None: without gaps, the last axis fastest.

    Returns:
        Where its first element lies, its strides in bytes, and how much of the half is used now.
    """
    half = len(target) // 2
    kind = int(strided.integers(4)) if strided is not None and value.ndim else 0
    shape = (*value.shape[:-1], 2 * value.shape[-1]) if kind == 2 else value.shape
    start = -(-used // ALIGN) * ALIGN + (
        int(strange.integers(8)) * value.itemsize if strange is not None else 0
    )
    end = start + value.itemsize * int(np.prod(shape, dtype=np.int64))
    if end > half:
        raise MemoryError(f"inputs or outputs need more than {half >> 20} MB (budget.memory_mb)")
    holder: Array = np.ndarray(
        shape, value.dtype, target, part * half + start, order="F" if kind == 1 else "C"
    )
    view = holder[..., ::2] if kind == 2 else holder[..., ::-1] if kind == 3 else holder
    view[...] = value
    first = view.__array_interface__["data"][0] - holder.__array_interface__["data"][0]
    return start + first, list(view.strides), end


if __name__ == "__main__":
    main()
