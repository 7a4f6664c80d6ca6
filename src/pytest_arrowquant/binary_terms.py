"""Codes of two binary terms: the decoding of R2Q."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import ml_dtypes
import numpy as np

from .arrays import Array
from .decoding import Take
from .errors import SchemeError
from .kernels import binary, decode
from .row_threads import over_rows
from .scheme import Layout, Scheme

NO_MEAN = np.empty((0, 0), ml_dtypes.bfloat16)
AT_A_TIME = 1 << 18  # weights restored at once in a comparison


@dataclass(frozen=True, slots=True, eq=False)
class BinaryTerms:
    """restored = mean + first * b1 + second * b2, with b1 and b2 in {-1, +1}.

    Each bfloat16, (rows, groups), first >= second >= 0; the mean is empty unless the scheme's zero
    is "float". Per tensor: one entry for all. Code 2 [b1 > 0] + [b2 > 0] ascends with the value.
    """

    first: Array
    second: Array
    mean: Array

    @classmethod
    def of(cls, scheme: Scheme, *parameters: Array) -> Self:
        """From float32 (first, second, mean) that bfloat16 holds."""
        first, second, mean = (part.astype(ml_dtypes.bfloat16) for part in parameters)
        return cls(first, second, mean if scheme.zero == "float" else NO_MEAN)

    @classmethod
    def made_of(
        cls, options: Mapping[str, Any], scheme: Scheme, layout: Layout, take: Take
    ) -> Self:
        """See Decoding."""
        if scheme.bits != 2 or scheme.zero == "integer":
            raise SchemeError(f"binary terms have 2 bits and no integer zero point, not {scheme}")
        shape, dtype = layout.parameter_shape, ml_dtypes.bfloat16
        return cls(
            take("first", shape, dtype),
            take("second", shape, dtype),
            take("mean", shape, dtype) if scheme.zero == "float" else NO_MEAN,
        )

    @property
    def options(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        return self.first.nbytes + self.second.nbytes + self.mean.nbytes

    def arrays(self, layout: Layout) -> tuple[Array, Array, Array]:
        """What kernels take: (first, second, mean), float32, each (rows, groups) or empty."""
        shape = (layout.rows, layout.groups)
        return tuple(  # type: ignore[return-value]
            np.ascontiguousarray(np.broadcast_to(part, shape) if part.size else part, np.float32)
            for part in (self.first, self.second, self.mean)
        )

    def encode(self, rows: Array, layout: Layout, bits: int, codes: Array) -> None:
        """See Decoding."""
        binary.encode(rows, layout.group_size, *self.arrays(layout), codes)

    def dequantize(
        self, codes: Array, layout: Layout, bits: int, out: Array, threads: int = 1
    ) -> None:
        """See Decoding."""
        size, parts = layout.group_size, self.arrays(layout)

        def restore(at: slice) -> None:
            binary.dequantize(codes[at], size, *(part[at] for part in parts), out[at])

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
        step = max(AT_A_TIME // max(layout.columns, 1), 1)

        def compare(block: slice) -> None:
            restored = np.empty((min(step, layout.rows), layout.columns), np.float32)
            for start in range(block.start, block.stop, step):
                at = slice(start, min(start + step, block.stop))
                out = restored[: at.stop - at.start]
                binary.dequantize(codes[at], size, *(part[at] for part in parts), out)
                decode.deviate(rows[at], out, sums[at])

        over_rows(compare, layout.rows, layout.columns, threads)
