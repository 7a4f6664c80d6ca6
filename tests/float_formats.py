"""Floating formats as their producers make them, in plain numpy: what the guards may not accuse."""

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from pytest_arrowquant.arrays import Array
from pytest_arrowquant.codes import Grid
from pytest_arrowquant.scheme import GroupSize

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_FP4 = (0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4)
FP4 = (*_FP4, *(-value for value in _FP4))
_E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
E2M1 = (*_E2M1, *(-value for value in _E2M1))
E4M3 = tuple(np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(float).tolist())
E5M2 = tuple(np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e5m2).astype(float).tolist())


def nearest(values: Array, table: tuple[float, ...]) -> Array:
    """The entry of the table nearest to each value, by looking for it."""
    levels = np.unique([level for level in table if np.isfinite(level)])
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]


def largest(table: tuple[float, ...]) -> float:
    return max(abs(level) for level in table if np.isfinite(level))


def as_is(scale: Array) -> Array:
    return scale


def in_bfloat16(scale: Array) -> Array:
    return scale.astype(ml_dtypes.bfloat16).astype(float)


def in_e4m3(scale: Array) -> Array:
    """NVFP4: E4M3 under one scale of the tensor."""
    unit = scale.max() / 448
    return (scale / unit).astype(ml_dtypes.float8_e4m3fn).astype(float) * unit


def binade(table: tuple[float, ...]) -> Callable[[Array], Array]:
    """OCP: the power of two that takes the largest weight into the binade of the largest level."""
    top = largest(table)

    def rounded(scale: Array) -> Array:
        exponents = np.floor(np.log2(np.maximum(scale * top, 2.0**-100)))
        return 2.0 ** (exponents - np.floor(np.log2(top)))

    return rounded


def power_above(scale: Array) -> Array:
    return 2.0 ** np.ceil(np.log2(np.maximum(scale, 2.0**-100)))


@dataclass(frozen=True)
class FloatFormat:
    """Rounds onto a table under the scale of groups of a row, of the tensor, or of squares."""

    bits: int
    table: tuple[float, ...]
    group_size: GroupSize
    scale: Callable[[Array], Array] = as_is
    square: bool = False

    @property
    def grid(self) -> Grid:
        return Grid(self.bits, "none", self.group_size, self.table)

    def restored(self, weight: Array) -> Array:
        rows = weight.reshape(len(weight), -1).astype(float)
        height = self.group_size if self.square else len(rows) if self.per_tensor else 1
        width = rows.shape[1] if self.group_size in ("channel", "tensor") else self.group_size
        peaks = np.maximum.reduceat(abs(rows), np.arange(0, len(rows), height), axis=0)
        peaks = np.maximum.reduceat(peaks, np.arange(0, rows.shape[1], width), axis=1)
        scale = self.scale(peaks / largest(self.table))
        scale = np.where(scale == 0, 1, scale)
        scale = scale.repeat(height, axis=0)[: len(rows)].repeat(width, axis=1)
        scale = scale[:, : rows.shape[1]]
        return (nearest(rows / scale, self.table) * scale).astype(np.float32).reshape(weight.shape)

    @property
    def per_tensor(self) -> bool:
        return self.group_size == "tensor"


FORMATS = {
    "NF4 64": FloatFormat(4, NF4, 64),
    "NF4 128": FloatFormat(4, NF4, 128),
    "NF4 64, bfloat16": FloatFormat(4, NF4, 64, in_bfloat16),
    "FP4 64": FloatFormat(4, FP4, 64),
    "MXFP4": FloatFormat(4, E2M1, 32, binade(E2M1)),
    "MXFP4, rounded up": FloatFormat(4, E2M1, 32, power_above),
    "NVFP4": FloatFormat(4, E2M1, 16, in_e4m3),
    "MXFP8": FloatFormat(8, E4M3, 32, binade(E4M3)),
    "FP8 row": FloatFormat(8, E4M3, "channel"),
    "FP8 row, bfloat16": FloatFormat(8, E4M3, "channel", in_bfloat16),
    "FP8 tensor": FloatFormat(8, E4M3, "tensor"),
    "FP8 128 x 128": FloatFormat(8, E4M3, 128, square=True),
    "E5M2 row": FloatFormat(8, E5M2, "channel"),
}
