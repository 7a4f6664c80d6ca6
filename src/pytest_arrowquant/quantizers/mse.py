"""The scale of least squared error: a search that includes round-to-nearest's, then a refit."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..arrays import as_floating
from ..decoding import Affine
from ..kernels import search
from ..scheme import GroupSize, Scheme, Zero
from ..tensor import QuantizedTensor, encode_rows, quantize, weight_rows
from ..vocabulary import WIDTHS

# How far the grid is shrunk: at 2 bits the best grid clips much, at 8 bits hardly anything.
SHRINKS = {
    2: np.linspace(1, 0.40, 8, dtype=np.float32),
    4: np.linspace(1, 0.75, 8, dtype=np.float32),
    8: np.linspace(1, 0.98, 8, dtype=np.float32),
}


@dataclass(frozen=True, slots=True)
class Mse:
    """Least squared error: shrunk ranges are tried, the best is refitted by least squares.

    In squared error no group is ever worse than Rtn of the same scheme, whose scale is among the
    candidates. Source: the range search of Frantar et al. 2022 (GPTQ, option `mse`) and the
    least-squares scale of ggml's K-quants.
    """

    group_size: GroupSize = 64
    zero: Zero = "float"

    name: ClassVar[str] = "mse"
    bits: ClassVar[tuple[int, ...]] = WIDTHS

    def quantize(self, weight: object, bits: int, calibration: object = None) -> QuantizedTensor:
        """The codes of `weight` at `bits`; calibration is not used."""
        array = as_floating(weight, "weight")
        rows = weight_rows(array, "weight")
        out = quantize(rows.reshape(array.shape), Scheme(bits, self.zero, self.group_size))
        grouped = rows.reshape(1, -1) if self.group_size == "tensor" else rows
        size = out.layout.group_size if grouped is rows else rows.size
        affine = out.decoding
        assert isinstance(affine, Affine)
        if rows.size:
            search.refine(
                grouped, size, bits, SHRINKS[bits], affine.scale, affine.zero_point, affine.minimum
            )
            encode_rows(rows, out)
        return out
