"""Half-quadratic quantization: the zero that fits most weights, whatever the outliers do."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..arrays import Array, as_floating
from ..cores import cores
from ..decoding import Affine
from ..errors import SchemeError
from ..kernels import hqq
from ..row_threads import over_rows
from ..scheme import GroupSize, Scheme
from ..tensor import QuantizedTensor, encode_rows, quantize, weight_rows
from ..vocabulary import WIDTHS

COST = 100  # times what rounding a weight takes
FARTHEST = 30.0  # thresholds of 2^-30 and of 2^30 standard deviations are all or nothing


@dataclass(frozen=True, slots=True)
class Hqq:
    """Least sum |error|^p over the zero; the scale is round-to-nearest's.

    p: of the norm, above 0 and at most 1. beta: how little errors are shrunk at first, for 2 bits
    and weights of standard deviation 1; wider codes have it larger, so that the threshold of the
    shrinkage stays the same share of the range. kappa: its growth an iteration. iterations: of
    the zero, at most; a group ends earlier where its zero has settled, and keeps the zero that
    had the least sum |error|, so no group is worse than Rtn in that, but where its squared error
    would exceed its energy: there zero is put on the grid. Raises SchemeError for other values.

    Source: Badri & Shaji 2023 (HQQ). There the shrinkage acts on the weights as they are, and does
    nothing at their usual scale; here a group is divided by its standard deviation first. There are
    20 iterations there: at 2 bits the zero of a group with one far outlier is still on its way.
    """

    group_size: GroupSize = 64
    p: float = 0.7
    beta: float = 3.0
    kappa: float = 1.01
    iterations: int = 50

    name: ClassVar[str] = "hqq"
    bits: ClassVar[tuple[int, ...]] = WIDTHS
    properties: ClassVar[tuple[str, ...]] = ("monotone", "scale_equivariant")

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise SchemeError(f"p={self.p!r} is not above 0 and at most 1")
        if not 0 < self.beta < np.inf:
            raise SchemeError(f"beta={self.beta!r} is not a positive number")
        if not 1 <= self.kappa < np.inf:
            raise SchemeError(f"kappa={self.kappa!r} is not a number of at least 1")
        if type(self.iterations) is not int or self.iterations < 0:
            raise SchemeError(f"iterations={self.iterations!r} is not a whole number of at least 0")

    @property
    def granularity(self) -> GroupSize:
        """What is quantized by itself."""
        return self.group_size

    def quantize(self, weight: object, bits: int, calibration: object = None) -> QuantizedTensor:
        """The codes of `weight` at `bits`; calibration is not used."""
        array = as_floating(weight, "weight")
        rows = weight_rows(array, "weight")
        out = quantize(rows.reshape(array.shape), Scheme(bits, "float", self.group_size))
        grouped, size = out.scheme.grouped(rows)
        affine = out.decoding
        assert isinstance(affine, Affine)
        if rows.size:
            self.refine(grouped, size, 2**bits - 1, affine.scale, affine.minimum)
            encode_rows(rows, out)
        return out

    def refine(self, rows: Array, size: int, highest: int, scale: Array, minimum: Array) -> None:
        """Move the minima of groups with codes 0 .. highest, in place, from round-to-nearest's.

        On all cores that are ours.
        """
        betas = np.log2(self.beta) + np.log2(self.kappa) * np.arange(self.iterations + 1)
        powers = np.clip(-betas / (2 - self.p), -FARTHEST, FARTHEST)
        thresholds = (np.exp2(powers) * 3 / highest).astype(np.float32)
        exponent = np.float32(self.p - 1)
        top = np.float32(highest)

        def refine(at: slice) -> None:
            hqq.refine(rows[at], size, top, thresholds, exponent, scale[at], minimum[at])

        over_rows(refine, len(rows), rows.shape[1] * COST, cores())
