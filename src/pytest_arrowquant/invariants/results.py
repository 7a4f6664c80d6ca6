"""What is restored: its shape, its dtype, that it is finite, wherever the weight lies in memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays import Array, as_floating
from .attempt import Attempt, number, place, plainly, read_only
from .samples import at_ends, within


@plainly
def shape_kept(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """What is restored has the shape of the weight."""
    attempt = Attempt.on("shape_kept", quantizer, weight, bits, calibration)
    shape = _values(attempt).shape
    if shape != attempt.weight.shape:
        raise attempt.broken(f"shape {shape} is restored of {attempt.weight.shape}")


@plainly
def dtype_kept(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """What is restored is of the weight's dtype, or of float32, in which most compute.

    And the same numbers in every other dtype of the domain are restored as well: rounding in a
    narrower dtype may let ties fall otherwise, so each unit's rms error may be twice as large, and
    8 roundings of its largest magnitude. Numbers are rounded to the other dtype first, so that
    both hold the same; where that leaves the domain, the dtype is not tried.
    """
    attempt = Attempt.on("dtype_kept", quantizer, weight, bits, calibration)
    dtype = _values(attempt).dtype
    if dtype not in (attempt.weight.dtype, np.float32):
        raise attempt.broken(f"{dtype} is restored of {attempt.weight.dtype}")
    for name in attempt.traits.domain.dtypes:
        if name == attempt.weight.dtype.name:
            continue
        with np.errstate(over="ignore", under="ignore"):
            same = attempt.weight.astype(name).astype(attempt.weight.dtype)
            other = same.astype(name)
        if not within(same, attempt.traits.domain):
            continue
        found, expected = attempt.restore(other), attempt.restore(same)
        attempt.require_alike(same, found, expected, f"of the same numbers in {name}", other)


@plainly
def finite(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """Finite weights are restored as finite values, also at both ends of what is taken."""
    attempt = Attempt.on("finite", quantizer, weight, bits, calibration)
    for tried in (attempt.weight, *at_ends(attempt.weight, attempt.traits.domain)):
        found = attempt.restore(tried)
        good = np.isfinite(found.astype(np.float64))
        if not good.all():
            at = int(np.argmin(good))
            was, value = number(tried.reshape(-1)[at]), number(found.reshape(-1)[at])
            raise attempt.broken(
                f"{place(at, found.shape)} is restored as {value} of {was}", tried=tried
            )


@plainly
def layout_free(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """Fortran order, strided and reversed views are restored as the C-contiguous weight is.

    Alike, not to the bit: sums along another axis are rounded otherwise.
    """
    attempt = Attempt.on("layout_free", quantizer, weight, bits, calibration)
    w = attempt.weight
    expected = attempt.restore(w)
    for layout, view in _layouts(w):
        found = attempt.restored(attempt.quantized(view), view)
        attempt.require_alike(w, found, expected, f"of the same weight {layout}")


def _layouts(w: Array) -> Iterator[tuple[str, Array]]:
    yield "in Fortran order", read_only(w.copy(order="F"))
    yield "as a strided view", read_only(np.repeat(w, 2, axis=-1)[..., ::2])
    yield "as a view of reversed columns", read_only(w[..., ::-1].copy()[..., ::-1])
    yield "as a view of reversed rows", read_only(w[::-1].copy()[::-1])
    yield "that may be written to", w.copy(order="C")


def _values(attempt: Attempt) -> Array:
    """What comes back, of whatever shape and floating dtype."""
    handed = read_only(attempt.weight.copy(order="C"))
    result = attempt.quantized(handed)
    try:
        return as_floating(result.dequantize(), "what it restored")
    except Exception:
        return attempt.restored(result, handed)  # says what it is, by the quantizer's name
