"""A tensor that is not quantized: equal to its original, or to the original in a narrower type."""

import numpy as np

from ..arrays import Array
from ..case import Finding
from ..checkpoints import StoredTensor
from ..checkpoints.pairing import Pair
from .views import reference_of

RUN = 1 << 20  # values


def unequal(pair: Pair, stored: StoredTensor) -> Finding:
    """How many values differ from the original's in the stored type, and the first that does.

    NaN equals NaN. The shapes may differ in axes of length one alone.
    """
    assert pair.original is not None
    first, second = reference_of(pair), stored.array
    if where := _other_shape(first.shape, stored.shape):
        return Finding("unequal", "<=", 0, max(first.size, 1), where)
    count = 0
    for begin, a, b in _runs(first.reshape(-1), second.reshape(-1)):
        differs = _differs(a, b)
        if differs.any() and not count:
            at = int(np.argmax(differs))
            index = tuple(int(i) for i in np.unravel_index(begin + at, first.shape))
            where = f"index {index}: {b[at]}, the original {a[at]}"
        count += int(differs.sum())
    return Finding("unequal", "<=", 0, count, where)


def _other_shape(original: tuple[int, ...], stored: tuple[int, ...]) -> str:
    """Both shapes in words; empty where they are the same but for axes of length one."""
    if [n for n in original if n != 1] == [n for n in stored if n != 1]:
        return ""
    return f"shape {stored}, the original {original}"


def _runs(first: Array, second: Array) -> list[tuple[int, Array, Array]]:
    return [
        (begin, first[begin : begin + RUN], second[begin : begin + RUN])
        for begin in range(0, first.size, RUN)
    ]


def _differs(a: Array, b: Array) -> Array:
    """Where the values differ, once the original is in the stored type."""
    if a.dtype == b.dtype and np.array_equal(_words(a), _words(b)):
        return np.zeros(a.shape, bool)
    floating = b.dtype.kind in "fV"
    with np.errstate(over="ignore", invalid="ignore"):
        expected = a.astype(b.dtype) if floating else a  # whole numbers hold no cast of others
    wide = np.float64 if floating or a.dtype.kind in "fV" else np.int64
    expected, found = expected.astype(wide), b.astype(wide)
    both_nan = (expected != expected) & (found != found)
    return (expected != found) & ~both_nan  # type: ignore[no-any-return]


def _words(values: Array) -> Array:
    """The bits of values, as wide words as they fill."""
    return values.view(np.uint64 if values.nbytes % 8 == 0 else np.uint8)
