"""An honest quantizer in plain numpy, in steps that a broken one gets wrong."""

from dataclasses import dataclass
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
TINY = np.finfo(np.float32).tiny


@dataclass
class Stored:
    """All that dequantize() has: packed codes (rows, bytes), scales and zeros (rows, groups)."""

    by: "Honest"
    packed: Array
    scale: Array
    zero: Array
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bits: int

    def dequantize(self) -> Any:
        return self.by.restore(self)

    @property
    def nbytes(self) -> int:
        return self.by.nbytes_of(self)

    @property
    def columns(self) -> int:
        return prod(self.shape) // len(self.packed)


class Honest:
    """Round to nearest in groups along a row: (code - zero) * scale.

    With a zero point in a range that includes 0; symmetric, with the middle code for zero, and at
    2 bits with a scale whose sign lets the extreme meet -2. What is called `..._back` is what
    dequantize() makes of what was stored.
    """

    name = "honest"
    bits: tuple[int, ...] = (2, 4, 8)
    symmetric = False
    group = 32
    granularity: Any = 32
    caught_by = ""
    seen_at: tuple[int, ...] = ()

    def quantize(self, weight: Array, bits: int, calibration: object = None) -> Any:
        groups = self.grouped(self.read(weight))
        low, high = self.range_of(groups)
        scale = self.scale_of(low, high, bits)
        zero = self.zero_of(low, scale, bits)
        codes = self.codes_of(groups, scale, zero, bits)
        codes = codes.reshape(len(groups), -1)[:, : weight.size // len(groups)]
        packed = self.pack(codes, bits)
        return Stored(self, packed, scale, zero, weight.shape, weight.dtype, bits)

    def read(self, weight: Array) -> Array:
        """Rows in float64, in which nothing here overflows: a copy."""
        rows = weight.shape[0] if weight.ndim > 1 else 1
        return np.array(weight, np.float64, order="C").reshape(rows, -1)

    def grouped(self, rows: Array) -> Array:
        """(rows, groups, group), filled up with zeros, which are in the range of every group."""
        groups = -(-rows.shape[1] // self.group)
        filled = np.zeros((len(rows), groups * self.group), rows.dtype)
        filled[:, : rows.shape[1]] = rows
        return filled.reshape(len(rows), groups, self.group)

    def range_of(self, groups: Array) -> tuple[Array, Array]:
        return np.minimum(groups.min(2), 0), np.maximum(groups.max(2), 0)

    def scale_of(self, low: Array, high: Array, bits: int) -> Array:
        return not_below_tiny(self.exact_scale(low, high, bits).astype(np.float32))

    def exact_scale(self, low: Array, high: Array, bits: int) -> Array:
        if not self.symmetric:
            return (high - low) / (2**bits - 1)
        most = np.maximum(-low, high)
        if bits == 2:
            return np.where(-low >= high, most, -most) / 2
        return most / (2 ** (bits - 1) - 1)

    def zero_of(self, low: Array, scale: Array, bits: int) -> Array:
        if self.symmetric:
            return np.full((1, 1), 2 ** (bits - 1), np.uint8)
        return np.clip(np.rint(-low / scale), 0, 2**bits - 1).astype(np.uint8)

    def codes_of(self, groups: Array, scale: Array, zero: Array, bits: int) -> Array:
        places = self.rounded(groups / scale[..., None]) + zero[..., None]
        return self.clipped(places, bits)

    def rounded(self, places: Array) -> Array:
        return np.rint(places)

    def clipped(self, places: Array, bits: int) -> Array:
        return np.clip(places, 0, 2**bits - 1).astype(np.uint8)

    def pack(self, codes: Array, bits: int) -> Array:
        """Each row by itself, low bits first."""
        a_byte = 8 // bits
        filled = np.zeros((len(codes), -(-codes.shape[1] // a_byte) * a_byte), np.uint8)
        filled[:, : codes.shape[1]] = codes
        shifted = filled.reshape(len(codes), -1, a_byte) << np.arange(0, 8, bits, np.uint8)
        return np.bitwise_or.reduce(shifted, axis=2)

    def nbytes_of(self, stored: Stored) -> int:
        return stored.packed.nbytes + stored.scale.nbytes + stored.zero.nbytes

    def restore(self, stored: Stored) -> Any:
        codes = self.unpack(stored.packed, stored.bits)[:, : stored.columns]
        groups = self.grouped(self.codes_back(codes, stored)).astype(np.float64)
        scale, zero = self.scale_back(stored), self.zero_back(stored)
        values = (groups - zero.astype(np.float64)[..., None]) * scale[..., None]
        values = values.reshape(len(codes), -1)[:, : stored.columns]
        return self.finished(self.values_back(values, stored), stored)

    def unpack(self, packed: Array, bits: int) -> Array:
        spread = packed[..., None] >> np.arange(0, 8, bits, np.uint8)
        return (spread & np.uint8(2**bits - 1)).reshape(len(packed), -1)

    def codes_back(self, codes: Array, stored: Stored) -> Array:
        return codes

    def scale_back(self, stored: Stored) -> Array:
        return stored.scale

    def zero_back(self, stored: Stored) -> Array:
        return stored.zero

    def values_back(self, values: Array, stored: Stored) -> Array:
        return values

    def finished(self, values: Array, stored: Stored) -> Any:
        """Of the weight's shape and dtype, in which half a step too many is not yet infinite."""
        most = float(ml_dtypes.finfo(stored.dtype).max)
        return np.clip(values, -most, most).reshape(stored.shape).astype(stored.dtype)


class HonestSymmetric(Honest):
    name = "honest symmetric"
    symmetric = True


class HonestByRow(Honest):
    """Half is rounded away from zero, which is as good."""

    name = "honest by row"
    bits = (4,)
    granularity = "channel"
    symmetric = True

    def grouped(self, rows: Array) -> Array:
        return rows.reshape(len(rows), 1, -1)

    def rounded(self, places: Array) -> Array:
        return np.copysign(np.floor(np.abs(places) + 0.5), places)


class HonestMidRise(Honest):
    """Levels half a step to either side of zero; groups of zeros have none."""

    name = "honest mid-rise"
    bits = (8,)
    symmetric = True

    def scale_of(self, low: Array, high: Array, bits: int) -> Array:
        most = np.maximum(-low, high)
        return np.where(most == 0, 0, not_below_tiny(most / (2**bits - 1) * 2)).astype(np.float32)

    def codes_of(self, groups: Array, scale: Array, zero: Array, bits: int) -> Array:
        return super().codes_of(groups, np.where(scale == 0, 1, scale), zero, bits)

    def rounded(self, places: Array) -> Array:
        return np.floor(places)

    def zero_back(self, stored: Stored) -> Array:
        return stored.zero - 0.5


HONEST = {cls.name: cls for cls in (Honest, HonestSymmetric, HonestByRow, HonestMidRise)}


def not_below_tiny(scale: Array) -> Array:
    """The scale where it is a normal number, else the smallest of these."""
    return np.where(np.abs(scale) < TINY, TINY, scale)


def variant(
    name: str, caught_by: str, base: type[Honest] = Honest, **overrides: Any
) -> type[Honest]:
    """One with other attributes and methods, at 4 bits; caught_by: names with spaces between."""
    own = {"name": name, "caught_by": caught_by, "bits": (4,)}
    return type("Variant", (base,), own | overrides)
