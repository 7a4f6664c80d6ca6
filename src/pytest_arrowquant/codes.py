"""Codes of any format, one a byte: what they stand for, and what kind of grid they lie on."""

from dataclasses import dataclass, field

import numpy as np

from .arrays import Array
from .decoding import Affine
from .kernels import bitstream
from .kernels import codes as kernels
from .scheme import GroupSize, Zero
from .super_blocks import SuperBlockAffine
from .tensor import QuantizedTensor

NO_VALUES = np.empty((0, 0), np.float32)
NO_TABLE = np.empty(0, np.float32)
NO_ORDER = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Grid:
    """What the values of a quantized weight may be, as guards need to know it.

    bits: the width, any whole number. zero: as of a Scheme, None where nobody says. group_size:
    weights along a row that share parameters, "channel" for a row, "tensor" for all; None where
    groups do not run along rows or are not known. table: what each code stands for, () for the
    integers. feedback: the codes may come from error feedback (GPTQ), which trades weight error for
    output error.
    """

    bits: int
    zero: Zero | None = "none"
    group_size: GroupSize | None = None
    table: tuple[float, ...] = ()
    feedback: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Some rows of a quantized weight: restored = (v - zero) * scale + minimum.

    values: uint8 (rows, columns), one code a byte; v is table[code], or the code where `table` is
    empty. scale, zero, minimum: float32 (rows, groups); zero and minimum may be empty. A column's
    group is column // group_size, or order[column] (int32) where `order` is not empty.
    """

    values: Array
    scale: Array
    group_size: int
    zero: Array = field(default_factory=lambda: NO_VALUES)
    minimum: Array = field(default_factory=lambda: NO_VALUES)
    table: Array = field(default_factory=lambda: NO_TABLE)
    order: Array = field(default_factory=lambda: NO_ORDER)

    def restore(self, out: Array | None = None) -> Array:
        """The values, float32 (rows, columns); `out` is filled and returned."""
        out = np.empty(self.values.shape, np.float32) if out is None else out
        kernels.restore(
            self.values, self.table, self.order, self.group_size,
            self.zero, self.scale, self.minimum, out,
        )  # fmt: skip
        return out


def codes_of(q: QuantizedTensor) -> Codes | None:
    """The codes of a quantized tensor; None where its decoding is not (v - zero) * scale + minimum.

    They restore the same bits.
    """
    layout, bits, decoding = q.layout, q.scheme.bits, q.decoding
    if isinstance(decoding, SuperBlockAffine):
        decoding = decoding.expanded(layout, bits)
    if not isinstance(decoding, Affine):
        return None
    values = np.empty((layout.rows, layout.columns), np.uint8)
    bitstream.unpack_rows(q.codes, bits, values)
    scale, zero, minimum = decoding.arrays(layout)
    if q.scheme.symmetric:
        zero = np.full(scale.shape, 2 ** (bits - 1), np.float32)
    return Codes(values, scale, layout.group_size, zero.astype(np.float32), minimum)
