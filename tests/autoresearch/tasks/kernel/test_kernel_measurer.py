"""Trials of kernels: what is faster scores more, what is wrong has no score, and whose fault a failure is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoresearch.errors import UserError
from autoresearch.tasks.kernel.results import first_wrong
from autoresearch.tasks.kernel.timing import Cost, Pair, sizes, speedup, too_idle
from autoresearch.types import Outcome
from tests.support.jail import sandbox_or_skip
from tests.support.kernels import C_FAST, C_SLOW, C_SPEC, HONEST, SPEC, measure, write_tree

C = "task.editable=[kernel.c]"
STRIDED = """import numpy as np

SIZES = (1, 40)
TOLERANCE = (1e-6, 0)
STRIDED = True


def inputs(rng, size):
    return [rng.random((size, size + 1)), rng.random(())]


def reference(x, scale):
    return (x * scale).sum(1), np.sign(x).astype(np.int8)
"""
STRIDED_CPP = """#include <cstdint>

extern "C" void kernel(const char *x, const double *scale, double *sums, int8_t *signs, int64_t rows,
                       int64_t columns, int64_t down, int64_t across) {
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int64_t j = 0; j < columns; j++) {
            double value = *(const double *)(x + i * down + j * across);
            sum += value * *scale;
            *signs++ = (value > 0) - (value < 0);
        }
        sums[i] = sum;
    }
}
"""


@pytest.mark.slow
def test_a_faster_kernel_scores_more_and_the_reference_itself_scores_nothing(tmp_path: Path) -> None:
    slow = measure(tmp_path, write_tree(tmp_path / "slow", C_SLOW, C_SPEC, "kernel.c"), C)
    fast = measure(tmp_path, write_tree(tmp_path / "fast", C_FAST, C_SPEC, "kernel.c"), C)
    same = measure(tmp_path, write_tree(tmp_path / "same"))
    assert slow.score is not None and fast.score is not None and same.score is not None
    assert fast.score > slow.score + 1.0 and abs(same.score) < 0.7
    assert fast.metrics["speedup"] == pytest.approx(2**fast.score)


@pytest.mark.slow
def test_arrays_may_be_strided_scalars_and_several_results(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", STRIDED_CPP, STRIDED, "kernel.cpp")
    done = measure(tmp_path, tree, "task.editable=[kernel.cpp]")
    assert done.outcome is Outcome.OK, done
    forgetful = STRIDED_CPP.replace("j * across", "j * 8")
    done = measure(
        tmp_path,
        write_tree(tmp_path / "other", forgetful, STRIDED, "kernel.cpp"),
        "task.editable=[kernel.cpp]",
    )
    assert done.outcome is Outcome.INVALID and "wrong result: output" in done.reason, done


FAILING = {
    "import nothing_of_the_kind\n" + HONEST: (Outcome.CRASH, "ModuleNotFoundError"),
    HONEST.replace("return y", "return y.astype(np.float32)"): (Outcome.CRASH, "returns float32"),
    HONEST.replace("return y", "return y, y"): (Outcome.CRASH, "returns 2 arrays, not 1"),
    HONEST.replace("return y", "return y[:-1]"): (Outcome.CRASH, "returns float64[0]"),
    HONEST.replace("y = x\n", "x += 1\n    y = x\n"): (Outcome.CRASH, "read-only"),
    HONEST.replace("return y", "return y + 1e-6"): (Outcome.INVALID, "allowed: 1e-09 of the value"),
    HONEST.replace("def kernel", "def another"): (Outcome.CRASH, "no attribute 'kernel'"),
}


RARE = ("returns 2", "returns float64[0]", "no attribute")
"""What is left to soak tests."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(k, id=says, marks=[pytest.mark.soak] if says.startswith(RARE) else [])
        for k, (_, says) in FAILING.items()
    ],
)
def test_a_kernel_that_fails_is_told_why(kernel: str, tmp_path: Path) -> None:
    outcome, says = FAILING[kernel]
    done = measure(tmp_path, write_tree(tmp_path / "tree", kernel))
    assert (done.outcome, done.score) == (outcome, None) and says in done.reason, done


WRONG_SPECS = {
    "no tolerance": (SPEC.replace("TOLERANCE", "TOLERANT"), "TOLERANCE"),
    "a reference that raises": (
        SPEC.replace("y = x\n", "raise OverflowError('here')\n"),
        "OverflowError: here",
    ),
    "a reference by chance": (
        SPEC.replace("return y", "return y + np.random.rand()"),
        "disagrees with itself",
    ),
    "inputs that are too large": (
        C_SPEC.replace("100, size", "100, 2_000_000"),
        "budget.memory_mb",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG_SPECS)
def test_a_wrong_specification_is_not_the_candidate_s_fault(name: str, tmp_path: Path) -> None:
    spec, says = WRONG_SPECS[name]
    with pytest.raises(UserError) as told:
        measure(tmp_path, write_tree(tmp_path / "tree", HONEST, spec))
    assert "spec.py" in str(told.value) and says in str(told.value)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["landlock", "landlock-bare", "none"])
def test_it_works_in_the_other_sandboxes(name: str, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "fast", C_FAST, C_SPEC, "kernel.c")
    done = measure(tmp_path, tree, C, sandbox=sandbox_or_skip(name))
    assert done.outcome is Outcome.OK, done


@given(
    arrays(np.float32, (3, 2), elements=st.floats(width=32)),
    st.integers(0, 5),
    st.sampled_from([1e-3, -1.0, np.nan, np.inf]),
)
def test_a_result_is_right_within_its_tolerance_and_nowhere_else(right, at: int, change: float) -> None:
    calls = [[[[0, [3, 2], [8, 4], "<f4"]], [[8, [3, 2], "<f4"]]]]
    memory = bytes(8) + right.tobytes()
    assert first_wrong(calls, memory, memory, 0, 0) == ""
    other = right.copy().reshape(-1)
    with np.errstate(all="ignore"):
        other[at] = 1 + other[at] * (1 + np.float32(change)) if np.isfinite(other[at]) else 7
    if not np.array_equal(other, right.reshape(-1), equal_nan=True):
        said = first_wrong(calls, bytes(8) + other.tobytes(), memory, 1e-6, 1e-6)
        assert f"[{at // 2}, {at % 2}]" in said and "1 of 6 are wrong" in said


def test_small_numbers_pass_within_the_tolerance() -> None:
    calls = [[[], [[0, [2], "<f8"], [16, [2], "<i8"]]]]
    whole = np.array([1, 2]).tobytes()
    got, right = (np.array(values).tobytes() + whole for values in ([1.0, 0.0], [1.001, 1e-9]))
    assert first_wrong(calls, got, right, 2e-3, 1e-8) == ""
    assert "output 0[1]" in first_wrong(calls, got, right, 2e-3, 1e-10)
    assert "output 1[0]" in first_wrong(calls, got[:16] + np.array([3, 2]).tobytes(), right, 2e-3, 1e-8)


@given(st.integers(0, 50), st.integers(0, 5000), st.floats(0, 1, exclude_max=True), st.integers(0, 1000))
def test_sizes_keep_their_bounds_and_are_spread(low: int, more: int, start: float, skip: int) -> None:
    found = sizes((low, low + more), 40, start, skip)
    assert all(low <= size <= low + more for size in found)
    assert sizes((low, low + more), 20, start, skip + 20) == found[20:]
    assert more < 10 or len(set(found)) > 5


def test_the_speedup_is_the_median_and_waiting_for_others_is_told() -> None:
    busy = Cost(0.010, 0.030, 0.020)
    pairs = [Pair(busy, Cost(0.002, 0.004, 0.002))] * 3 + [Pair(busy, Cost(1.0, 1.0, 0.0))]
    assert speedup(pairs) == pytest.approx(5) and speedup(pairs, wall=True) == pytest.approx(7.5)
    assert too_idle(pairs) == ""
    assert "waits 8 ms" in too_idle([Pair(busy, Cost(0.001, 0.010, 0.001))])


@pytest.mark.slow
def test_a_candidate_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    done = measure(tmp_path, write_tree(tmp_path / "tree"), "budget.max_seconds=0.01")
    assert (done.outcome, done.score) == (Outcome.CRASH, None) and "budget.max_seconds" in done.reason, done
    assert done.provenance.fraction < 1
    hangs = HONEST.replace("    y = x\n", "    while len(x) > 100:\n        pass\n    y = x\n")
    done = measure(tmp_path, write_tree(tmp_path / "hangs", hangs), "budget.load_seconds=0.5")
    assert done.outcome is Outcome.CRASH and done.reason.startswith("timeout: no answer"), done


@pytest.mark.slow
def test_arguments_that_never_change_are_told_once(tmp_path: Path) -> None:
    spec = C_SPEC.replace("[rng.integers(0, 100, size)]", "[rng.integers(0, 100, size), np.arange(3)]")
    spec = spec.replace("def reference(x)", "def reference(x, weights)")
    kernel = C_FAST.replace("const int64_t *x,", "const int64_t *x, const int64_t *weights,")
    said: list[str] = []
    measure(tmp_path, write_tree(tmp_path / "tree", kernel, spec, "kernel.c"), C, say=said.append)
    assert len(said) == 1 and "Argument 1 of the kernel never changes" in said[0]


@pytest.mark.slow
def test_the_example_in_numba_gives_right_results(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="needs the extra numba")
    example = Path(__file__).parents[4] / "examples" / "kernel-numba"
    tree = write_tree(
        tmp_path / "tree", (example / "kernel.py").read_text(), (example / "spec.py").read_text()
    )
    done = measure(tmp_path, tree, "task.packages=[numpy,numba]")
    assert done.outcome is Outcome.OK, done
