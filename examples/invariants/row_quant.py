"""The library: INT4 and INT8, symmetric, with a scale a row."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RowCodes:
    """Codes (rows, columns) and scales (rows, 1) of a weight of this shape."""

    codes: np.ndarray
    scales: np.ndarray
    shape: tuple[int, ...]

    def dequantize(self) -> np.ndarray:
        """The restored weights, float32."""
        return (self.codes * self.scales).reshape(self.shape)


class RowQuantizer:
    """Round to nearest, and what is said of it: widths, what shares a scale, what holds of it."""

    name = "row_quant"
    bits = (4, 8)
    granularity = "channel"
    properties = ("zero_kept", "sign_symmetric", "monotone", "permutation_equivariant")

    def quantize(self, weight: np.ndarray, bits: int) -> RowCodes:
        """The largest of each row becomes -7 or 7, -127 or 127."""
        rows = weight.astype(np.float32).reshape(len(weight) if weight.ndim > 1 else 1, -1)
        peaks = np.abs(rows).max(axis=1, keepdims=True)
        scales = np.maximum(peaks / np.float32(2 ** (bits - 1) - 1), np.finfo(np.float32).tiny)
        return RowCodes(np.rint(rows / scales).astype(np.int8), scales, weight.shape)
