"""One invariant tried on one weight: the calls of the quantizer, and what a failure says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import ml_dtypes
import numpy as np

from .. import trial
from ..arrays import Array, as_floating, limits_of
from ..case import grid_of
from ..errors import InvariantBroken, TensorError
from ..scheme import GroupSize, rows_and_columns
from ..traits import Traits, traits_of
from .sentences import SENTENCES
from .units import Units

Check = Callable[..., None]
"""(quantizer, weight, bits, calibration=None), which raises InvariantBroken."""

MOST_SHOWN = 40  # numbers of a weight in a message
EDGES = {1: 20, 2: 3, 3: 1, 4: 1}  # numbers at each end of each axis of a longer one
ASSUMED_RUN = 16  # weights along a row that share a scale, where nobody says how many do
FLOAT32_EPS = 2.0**-23
SMALLEST_NORMAL = 2.0**-126  # of float32: scales are no smaller, and errors may be as large
ALIKE = 2.0  # times the error: a tie that falls otherwise moves it, a wrong value far more
OPERATIONS = 8  # roundings between a weight and its restored value: scale, quotient, product, ...


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One invariant, by its name, tried on a quantizer and a weight. Build it with `on`."""

    invariant: str
    quantizer: Any
    traits: Traits
    weight: Array
    bits: int
    calibration: object

    @classmethod
    def on(
        cls, invariant: str, quantizer: Any, weight: object, bits: int, calibration: object
    ) -> "Attempt":
        """The attempt; TensorError for a weight that is empty or no floating array."""
        array = as_floating(weight, "weight")
        if not array.size:
            raise TensorError(f"weight has shape {array.shape}: there is nothing to quantize")
        return cls(invariant, quantizer, traits_of(quantizer), array, bits, calibration)

    def quantized(self, weight: Array, bits: int | None = None) -> Any:
        """What quantize() returns for this very array; QuantizerError where that is no good."""
        width = self.bits if bits is None else bits
        return trial.quantized(
            self.quantizer, self.traits, weight, width, self.calibration, "weight"
        )

    def restored(self, result: Any, weight: Array) -> Array:
        """What a result restores; QuantizerError where that is no restored weight."""
        return trial.restored(result, self.traits, weight, self.bits, "weight")

    def round_trip(self, weight: Array, bits: int | None = None) -> tuple[Any, Array]:
        """(what quantize() returns for a read-only copy of a weight, what comes back of it)."""
        handed = read_only(weight.copy(order="C"))
        result = self.quantized(handed, bits)
        return result, self.restored(result, handed).copy()

    def restore(self, weight: Array, bits: int | None = None) -> Array:
        """What comes back of a read-only copy of a weight, in memory of its own."""
        return self.round_trip(weight, bits)[1]

    def units(self, weight: Array) -> Units:
        """What the quantizer says is quantized by itself; rows where it does not say."""
        return Units.of(weight.shape, self.traits.granularity)

    def sharing(self, result: Any) -> GroupSize | None:
        """Which weights share a scale: what the result says, else the quantizer, else a guess.

        None where the result has groups that do not run along rows.
        """
        grid = grid_of(result)
        said = grid.group_size if grid else None
        if said or self.traits.granularity:
            return said or self.traits.granularity
        return None if grid else ASSUMED_RUN

    def broken(self, what: str, **shown: Array) -> InvariantBroken:
        """The error to raise: what happened, the weight, and other arrays by their names."""
        who = f"quantizer {self.traits.name!r} at {self.bits} bits"
        lines = [f"{who} breaks {self.invariant}: {SENTENCES[self.invariant]}", f"  {what}"]
        arrays = {"weight": self.weight} | shown
        lines += [f"  {name.replace('_', ' ')} {text(array)}" for name, array in arrays.items()]
        return InvariantBroken("\n".join(lines))

    def require(
        self, good: Array, found: Array, expected: Array, when: str, **shown: Array
    ) -> None:
        """Raise for the first value that is not good. good: of each weight, in any shape."""
        if good.all():
            return
        at = int(np.argmin(good))
        value, wanted = number(found.reshape(-1)[at]), number(expected.reshape(-1)[at])
        where = f"{place(at, found.shape)} is restored as {value}, expected {wanted}"
        raise self.broken(f"{when}, {where}" if when else where, **shown)

    def require_equal(self, found: Array, expected: Array, when: str, **shown: Array) -> None:
        """Raise unless all values are the same numbers; NaN is the same as NaN."""
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        self.require(same, found, expected, when, **shown)

    def require_alike(
        self, weight: Array, found: Array, expected: Array, when: str, *others: Array
    ) -> None:
        """Raise unless `found` is as near to the weight as `expected` is, in every unit.

        Where sums or quotients are rounded otherwise, ties fall otherwise, and an error feedback or
        a search goes another way: values differ by steps, errors hardly do. others: arrays in whose
        dtype something may have been rounded, too.
        """
        w, f, e = (array.astype(np.float64) for array in (weight, found, expected))
        if np.array_equal(f, e, equal_nan=True):
            return
        units = self.units(weight)
        with np.errstate(invalid="ignore", over="ignore"):
            slack = rounding(units.largest(w), weight, *others, found, expected)
            near = units.rms(f - w) <= ALIKE * units.rms(e - w) + slack
            off = np.where(units.spread(near), -1, np.abs(units.cut(f) - units.cut(e)))
        if not near.all():
            worst = np.arange(off.size) != int(np.argmax(np.where(np.isnan(off), np.inf, off)))
            self.require(worst, found, expected, when)


def plainly(check: Check) -> Check:
    """An invariant whose failure ends where it was called, not in what tells of it."""

    @wraps(check)
    def held(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
        __tracebackhide__ = True
        try:
            check(quantizer, weight, bits, calibration)
        except InvariantBroken as error:
            raise error.with_traceback(None) from None

    return held


def read_only(array: Array) -> Array:
    """The array, which can no longer be written to."""
    array.flags.writeable = False
    return array


def eps(*arrays: Array) -> float:
    """The distance of 1 to the next number, in the coarsest dtype among these and float32.

    That is what parameters are held in at best, whatever the dtypes of weight and result.
    """
    return max(FLOAT32_EPS, *(float(limits_of(array.dtype).eps) for array in arrays))


def rounding(largest: Array, *arrays: Array) -> Array:
    """What a few roundings in any of these dtypes make of values up to `largest`, at most."""
    finest = max(float(limits_of(array.dtype).smallest_subnormal) for array in arrays)
    slack: Array = OPERATIONS * (eps(*arrays) / 2 * largest + finest) + SMALLEST_NORMAL
    return slack


def place(index: int, shape: tuple[int, ...]) -> str:
    """Where a value lies among the rows and columns of a tensor."""
    row, column = divmod(index, rows_and_columns(shape)[1])
    return f"row {row}, column {column}"


def number(value: Any) -> str:
    """A number with as few digits as tell it from others of its dtype."""
    return str(value).removesuffix(".0")


def text(array: Array) -> str:
    """An array as a nested list, after its dtype and shape; cut off in the middle where long."""
    values = array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array
    listed = np.array2string(
        values,
        separator=", ",
        threshold=MOST_SHOWN,
        edgeitems=EDGES[values.ndim],
        formatter={"float_kind": number},
    )
    return f"{array.dtype} {array.shape}: {' '.join(listed.split())}"
