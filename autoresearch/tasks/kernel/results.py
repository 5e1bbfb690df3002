"""Whether results are right: every number that a candidate returned, compared with the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def first_wrong(calls: Sequence[Any], got: bytes, right: bytes, relative: float, absolute: float) -> str:
    """Say which result is wrong first, and by how much; empty if all are right.

    A number is right if |got - right| <= absolute + relative * |right|, if both are NaN, or if both are the
    same infinity. What is no floating-point number must be equal.

    Args:
        calls: As in `server`: [inputs, outputs] of each call.
        got: The memory of outputs as the candidate left it.
        right: The same as it must be.
        relative: Tolerance, as a share of the right number.
        absolute: Tolerance.
    """
    import numpy as np

    for inputs, outputs in calls:
        for number, (offset, shape, dtype) in enumerate(outputs):
            found, wanted = (np.ndarray(shape, dtype, data, offset) for data in (got, right))
            wrong = _wrong(found, wanted, relative, absolute)
            if wrong.any():
                at = np.unravel_index(int(wrong.argmax()), wanted.shape)
                shapes = ", ".join("x".join(map(str, taken[1])) or "scalar" for taken in inputs)
                where = f"[{', '.join(map(str, at))}]" if at else ""
                return (
                    f"wrong result: output {number}{where} is {found[at]!s} where the reference says "
                    f"{wanted[at]!s} ({int(wrong.sum())} of {wrong.size} are wrong; allowed: {relative:g} of "
                    f"the value plus {absolute:g}; inputs of shapes {shapes})"
                )
    return ""


def _wrong(found: NDArray[Any], wanted: NDArray[Any], relative: float, absolute: float) -> NDArray[np.bool_]:
    import numpy as np

    if wanted.dtype.kind not in "fc":
        return np.asarray(found != wanted)
    wide = np.promote_types(wanted.dtype, np.float32)  # half precision would round the differences
    with np.errstate(all="ignore"):
        a, b = found.astype(wide, copy=False), wanted.astype(wide, copy=False)
        right = np.abs(a - b) <= absolute + relative * np.abs(b)
        right &= np.isfinite(b)
        if not right.all():
            right |= (a == b) | (np.isnan(a) & np.isnan(b))
        return np.asarray(~right)
