"""How packed codes become values again: what a quantized tensor holds beside its codes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from .arrays import Array
from .kernels import decode, encode
from .row_threads import over_rows
from .scheme import Layout, Scheme

NO_ZERO_POINT = np.empty((0, 0), np.uint8)
NO_MINIMUM = np.empty((0, 0), np.float32)
Take = Callable[[str, tuple[int, ...], Any], Array]


class Decoding(Protocol):
    """The parameters of a quantized tensor, and how its codes are read with them."""

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters as they would be stored."""

    @property
    def options(self) -> dict[str, Any]:
        """What it is made of besides arrays, in plain values."""

    @classmethod
    def made_of(
        cls, options: Mapping[str, Any], scheme: Scheme, layout: Layout, take: Take
    ) -> Self:
        """The decoding again, of its options and of arrays, by the names of its fields.

        take(name, shape, dtype) gives an array. Raises SchemeError for what it does not decode.
        """

    def encode(self, rows: Array, layout: Layout, bits: int, codes: Array) -> None:
        """Fill `codes` with those nearest to finite float32 rows under these parameters."""

    def dequantize(
        self, codes: Array, layout: Layout, bits: int, out: Array, threads: int = 1
    ) -> None:
        """Fill `out`, float32 (rows, columns), with the values of the codes."""

    def compare(
        self,
        rows: Array,
        codes: Array,
        layout: Layout,
        bits: int,
        sums: Array,
        threads: int = 1,
    ) -> None:
        """Fill `sums`, float64 (rows, 4), as kernels/decode.py says, against float rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """restored = (code - zero_point) * scale + minimum, a row of groups a row of the tensor.

    scale: float32, signed at 2 bits. zero_point: uint8, empty unless the scheme's zero is
    "integer". minimum: float32, empty unless it is "float". Per tensor: one entry for all.
    """

    scale: Array
    zero_point: Array
    minimum: Array

    @classmethod
    def empty(cls, scheme: Scheme, shape: tuple[int, int]) -> Self:
        """Parameters to be filled in, for `shape` = (rows, groups)."""
        return cls(
            np.empty(shape, np.float32),
            np.empty(shape, np.uint8) if scheme.zero == "integer" else NO_ZERO_POINT,
            np.empty(shape, np.float32) if scheme.zero == "float" else NO_MINIMUM,
        )

    @classmethod
    def made_of(
        cls, options: Mapping[str, Any], scheme: Scheme, layout: Layout, take: Take
    ) -> Self:
        """See Decoding."""
        shape = layout.parameter_shape
        return cls(
            take("scale", shape, np.float32),
            take("zero_point", shape, np.uint8) if scheme.zero == "integer" else NO_ZERO_POINT,
            take("minimum", shape, np.float32) if scheme.zero == "float" else NO_MINIMUM,
        )

    @property
    def options(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        return self.scale.nbytes + self.zero_point.nbytes + self.minimum.nbytes

    def arrays(self, layout: Layout) -> tuple[Array, Array, Array]:
        """What kernels take: (scale, zero_point, minimum), each (rows, groups) or empty."""
        shape = (layout.rows, layout.groups)
        if self.scale.shape == shape:
            return self.scale, self.zero_point, self.minimum
        return tuple(  # type: ignore[return-value]
            np.ascontiguousarray(np.broadcast_to(part, shape)) if part.size else part
            for part in (self.scale, self.zero_point, self.minimum)
        )

    def encode(self, rows: Array, layout: Layout, bits: int, codes: Array) -> None:
        """See Decoding."""
        encode.encode(rows, layout.group_size, bits, *self.arrays(layout), codes)

    def dequantize(
        self, codes: Array, layout: Layout, bits: int, out: Array, threads: int = 1
    ) -> None:
        """See Decoding."""
        size, parts = layout.group_size, self.arrays(layout)

        def restore(at: slice) -> None:
            decode.dequantize(codes[at], size, bits, *(part[at] for part in parts), out[at])

        over_rows(restore, layout.rows, layout.columns, threads)

    def compare(
        self,
        rows: Array,
        codes: Array,
        layout: Layout,
        bits: int,
        sums: Array,
        threads: int = 1,
    ) -> None:
        """See Decoding."""
        size, parts = layout.group_size, self.arrays(layout)

        def compare(at: slice) -> None:
            some = (part[at] for part in parts)
            decode.compare(rows[at], codes[at], size, bits, *some, sums[at])

        over_rows(compare, layout.rows, layout.columns, threads)
