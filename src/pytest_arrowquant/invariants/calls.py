"""One call beside others: repeated, interleaved, and its input afterwards."""

from typing import Any

import numpy as np

from ..arrays import Array
from .attempt import Attempt, place, plainly
from .samples import unlike


@plainly
def deterministic(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """The same weight quantized again is restored as the same bits."""
    attempt = Attempt.on("deterministic", quantizer, weight, bits, calibration)
    first = attempt.restore(attempt.weight)
    second = attempt.restore(attempt.weight)
    attempt.require_equal(second, first, "when quantized again")


@plainly
def calls_independent(
    quantizer: Any, weight: object, bits: int, calibration: object = None
) -> None:
    """A call between changes neither what was restored, nor a result, nor the next call.

    Nor does it matter that an array was handed over before, with another weight in it.
    """
    attempt = Attempt.on("calls_independent", quantizer, weight, bits, calibration)
    w = attempt.weight
    other = unlike(w, attempt.traits.domain)
    handed = w.copy(order="C")
    result = attempt.quantized(handed)
    values = attempt.restored(result, handed)
    expected = values.copy()
    attempt.require_equal(attempt.restored(result, handed), expected, "when restored twice")
    of_other = attempt.restore(other)
    attempt.require_equal(
        values, expected, "in the array that was restored before another call", other=other
    )
    again = attempt.restored(result, handed)
    attempt.require_equal(
        again, expected, "when restored once more after another call", other=other
    )
    attempt.require_equal(
        attempt.restore(w), expected, "when quantized again after another call", other=other
    )
    handed[...] = other
    found = attempt.restored(attempt.quantized(handed), handed)
    attempt.require_equal(found, of_other, "when the same array holds another weight", other=other)


@plainly
def input_untouched(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """Neither quantize() nor dequantize() writes to the weight."""
    attempt = Attempt.on("input_untouched", quantizer, weight, bits, calibration)
    handed = attempt.weight.copy(order="C")
    result = attempt.quantized(handed)
    _require_untouched(attempt, handed, "quantize()")
    attempt.restored(result, handed)
    _require_untouched(attempt, handed, "dequantize()")


@plainly
def input_not_needed(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """What is restored does not depend on the weight's memory once quantize() has returned."""
    attempt = Attempt.on("input_not_needed", quantizer, weight, bits, calibration)
    expected = attempt.restore(attempt.weight)
    handed = attempt.weight.copy(order="C")
    result = attempt.quantized(handed)
    handed[...] = over = unlike(attempt.weight, attempt.traits.domain)
    found = attempt.restored(result, handed)
    attempt.require_equal(
        found, expected, "when the weight is overwritten before dequantize()", overwritten_by=over
    )


def _require_untouched(attempt: Attempt, handed: Array, by: str) -> None:
    same = handed.view(np.uint8) == attempt.weight.copy(order="C").view(np.uint8)
    if not same.all():
        where = place(int(np.argmin(same)) // handed.itemsize, handed.shape)
        raise attempt.broken(f"{where} was written to by {by}", left_as=handed)
