"""Residual refinement: two binary terms a group, refitted in turn with the codes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..arrays import as_floating, first_non_finite
from ..binary_terms import BinaryTerms
from ..errors import SchemeError, TensorError
from ..kernels import binary
from ..scheme import GroupSize, Scheme
from ..tensor import QuantizedTensor, encode_rows, weight_rows


@dataclass(frozen=True, slots=True)
class R2q:
    """w ~ mean + a1 * b1 + a2 * b2: a binary term, one for its residual, and their refinement.

    rounds: how often, at most, least squares for (mean, a1, a2) and the nearest of the four levels
    take turns; the squared error never rises, and the rounds end where it no longer falls. 0
    leaves the greedy terms a1 = mean |w - mean|, a2 = mean of what is left. mean: whether a mean
    is stored; at 3 bits per weight, larger groups with one beat smaller groups without.
    Raises SchemeError for other values and other widths.

    Source: a reconstruction after the abstract of R2Q (Chen et al. 2025, arXiv 2511.21736), which
    is about training. The greedy terms are the residual binarization of Guo et al. 2017 (Network
    Sketching), the refinement that of Xu et al. 2018 (Alternating Multi-bit Quantization).
    """

    group_size: GroupSize = 64
    rounds: int = 10
    mean: bool = True

    name: ClassVar[str] = "r2q"
    bits: ClassVar[tuple[int, ...]] = (2,)
    properties: ClassVar[tuple[str, ...]] = (
        "monotone",
        "scale_equivariant",
        "permutation_equivariant",
    )

    def __post_init__(self) -> None:
        if type(self.rounds) is not int or self.rounds < 0:
            raise SchemeError(f"rounds={self.rounds!r} is not a whole number of at least 0")
        if type(self.mean) is not bool:
            raise SchemeError(f"mean={self.mean!r} is neither True nor False")

    @property
    def granularity(self) -> GroupSize:
        """What is quantized by itself."""
        return self.group_size

    def quantize(self, weight: object, bits: int, calibration: object = None) -> QuantizedTensor:
        """The codes of `weight` at 2 bits; calibration is not used."""
        if bits not in self.bits:
            raise SchemeError(f"bits={bits!r} is not 2, the only width of r2q")
        array = as_floating(weight, "weight")
        rows = weight_rows(array, "weight")
        scheme = Scheme(2, "float" if self.mean else "none", self.group_size)
        layout = scheme.layout(array.shape)
        grouped, size = scheme.grouped(rows)
        first, second = np.empty((2, *layout.parameter_shape), np.float32)
        mean = np.empty(layout.parameter_shape if self.mean else (0, 0), np.float32)
        if not binary.fit(grouped, size, self.rounds, first, second, mean):
            raise TensorError(f"weight has {first_non_finite(array)}; every value must be finite")
        codes = np.empty((layout.rows, layout.row_bytes), np.uint8)
        terms = BinaryTerms.of(scheme, first, second, mean)
        out = QuantizedTensor(codes, terms, scheme, array.shape)
        encode_rows(rows, out)
        return out
