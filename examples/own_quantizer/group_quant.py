"""A little quantizer: INT4 and INT8, symmetric, with a scale for every 64 weights along a row."""

from dataclasses import dataclass

import numpy as np

GROUP = 64


@dataclass(frozen=True)
class Quantized:
    """Codes, at 4 bits two in a byte, and scales: (rows x groups, ...) both."""

    codes: np.ndarray
    scales: np.ndarray
    bits: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """All bytes to store."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self) -> np.ndarray:
        """The restored weights, float32, of the shape of the original."""
        codes = self.codes
        if self.bits == 4:
            codes = np.stack((codes & 15, codes >> 4), axis=-1).astype(np.int8) - 8
        restored = codes.reshape(-1, GROUP) * self.scales
        rows, columns = rows_and_columns(self.shape)
        return restored.reshape(rows, -1)[:, :columns].reshape(self.shape)


def quantize(weight: np.ndarray, bits: int) -> Quantized:
    """Round to nearest, so that the largest of each group becomes -7 or 7, -127 or 127."""
    rows, columns = rows_and_columns(weight.shape)
    matrix = weight.astype(np.float32).reshape(rows, columns)
    groups = np.pad(matrix, ((0, 0), (0, -columns % GROUP))).reshape(-1, GROUP)
    peaks = np.abs(groups).max(axis=1, keepdims=True)
    scales = np.maximum(peaks / np.float32(2 ** (bits - 1) - 1), np.finfo(np.float32).tiny)
    codes = np.rint(groups / scales).astype(np.int8)
    if bits == 4:
        nibbles = (codes + 8).astype(np.uint8)
        codes = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    return Quantized(codes, scales, bits, weight.shape)


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """Output channels by all else; a vector is one row."""
    rows = shape[0] if len(shape) > 1 else 1
    return rows, int(np.prod(shape)) // rows
