"""The scale of least squared error: a search that includes round-to-nearest's, then a refit."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..arrays import Array, as_floating, require_finite
from ..cores import cores
from ..decoding import Affine
from ..errors import SchemeError
from ..kernels import search
from ..row_threads import over_rows
from ..scheme import GroupSize, Scheme, Zero
from ..super_blocks import SuperBlockAffine, SuperBlocks
from ..tensor import QuantizedTensor, encode_rows, quantize, weight_rows
from ..vocabulary import WIDTHS

COST = 50  # times what rounding a weight takes
# How far the grid is shrunk: at 2 bits the best grid clips much, at 8 bits hardly anything.
SHRINKS = {
    2: np.linspace(1, 0.40, 8, dtype=np.float32),
    4: np.linspace(1, 0.75, 8, dtype=np.float32),
    8: np.linspace(1, 0.98, 8, dtype=np.float32),
}


@dataclass(frozen=True, slots=True)
class Mse:
    """Least squared error: shrunk ranges are tried, the best is refitted by least squares.

    With float32 parameters no group is ever worse, in squared error, than Rtn of the same scheme,
    whose scale is among the candidates. With `super_blocks`, scale and minimum are stored in a few
    bits each, and chosen together as they are stored: far fewer bits for nearly that accuracy.
    COMPACT holds the settings to use. Super-blocks need zero="float" and groups within rows;
    SchemeError otherwise.

    Source: the range search of Frantar et al. 2022 (GPTQ, option `mse`); the least-squares scale
    and the super-blocks of ggml's K-quants.
    """

    group_size: GroupSize = 64
    zero: Zero = "float"
    super_blocks: SuperBlocks | None = None

    name: ClassVar[str] = "mse"
    bits: ClassVar[tuple[int, ...]] = WIDTHS

    def __post_init__(self) -> None:
        if self.super_blocks is None:
            return
        if not isinstance(self.super_blocks, SuperBlocks):
            raise SchemeError(
                f"super_blocks={self.super_blocks!r} is neither a SuperBlocks nor None"
            )
        if self.zero != "float":
            raise SchemeError(
                f"zero={self.zero!r} has no minima to put in super-blocks; expected 'float'"
            )
        if self.group_size == "tensor":
            raise SchemeError(
                "group_size='tensor' has a single group; super-blocks need several in a tensor"
            )

    @property
    def granularity(self) -> GroupSize:
        """What is quantized by itself; a super-block may hold several rows."""
        return self.group_size if self.super_blocks is None else "tensor"

    @property
    def properties(self) -> tuple[str, ...]:
        """What holds at every width."""
        if self.super_blocks is not None:
            return ("monotone",)
        always = ("monotone", "scale_equivariant")
        return always if self.zero == "float" else ("zero_kept", *always)

    def quantize(self, weight: object, bits: int, calibration: object = None) -> QuantizedTensor:
        """The codes of `weight` at `bits`, on all cores that are ours; calibration is not used."""
        array = as_floating(weight, "weight")
        rows = weight_rows(array, "weight")
        scheme = Scheme(bits, self.zero, self.group_size)
        if self.super_blocks is not None:
            require_finite(array, "weight")
            return _in_super_blocks(rows, scheme, array.shape, self.super_blocks)
        out = quantize(rows.reshape(array.shape), scheme)
        grouped, size = scheme.grouped(rows)
        affine = out.decoding
        assert isinstance(affine, Affine)
        if rows.size:
            parts = (affine.scale, affine.zero_point, affine.minimum)

            def refine(at: slice) -> None:
                some = (part[at] for part in parts)
                search.refine(grouped[at], size, bits, SHRINKS[bits], *some)

            over_rows(refine, len(grouped), grouped.shape[1] * COST, cores())
            encode_rows(rows, out)
        return out


def _in_super_blocks(
    rows: Array, scheme: Scheme, shape: tuple[int, ...], super_blocks: SuperBlocks
) -> QuantizedTensor:
    layout = scheme.layout(shape)
    decoding = SuperBlockAffine.search(super_blocks, rows, scheme, layout, SHRINKS[scheme.bits])
    codes = np.empty((layout.rows, layout.row_bytes), np.uint8)
    out = QuantizedTensor(codes, decoding, scheme, shape)
    encode_rows(rows, out)
    return out


# The settings to use, a width: no more bits than ggml's Q2_K and Q4_K and HQQ's 8 bits take.
COMPACT = {
    2: Mse(16, super_blocks=SuperBlocks(4, 64)),  # 2.55 bits a weight on rows of 1024
    4: Mse(32, super_blocks=SuperBlocks(6, 32)),  # 4.42
    8: Mse(32, super_blocks=SuperBlocks(6, 64)),  # 8.40
}
