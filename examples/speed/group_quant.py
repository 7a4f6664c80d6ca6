"""The library: INT4 in groups of 32 weights, with the scale of the peak, or the best of six."""

from dataclasses import dataclass

import numpy as np

SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)


@dataclass(frozen=True)
class Groups:
    """Codes (groups, 32) and scales (groups, 1)."""

    codes: np.ndarray
    scales: np.ndarray
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes to store: two codes in one, and the scales."""
        return self.codes.size // 2 + self.scales.nbytes

    def dequantize(self) -> np.ndarray:
        """The restored weights, float32."""
        return (self.codes * self.scales).reshape(self.shape)


def by_peak(weight: np.ndarray, shrink: float = 1.0) -> Groups:
    """The largest of each group becomes 7, or is clipped to 7 where its scale is to shrink."""
    groups = weight.reshape(-1, 32)
    peaks = np.abs(groups).max(axis=1, keepdims=True)
    scales = np.maximum(peaks * np.float32(shrink / 7), np.finfo(np.float32).tiny)
    codes = np.clip(np.rint(groups / scales), -7, 7).astype(np.int8)
    return Groups(codes, scales, weight.shape)


def by_search(weight: np.ndarray) -> Groups:
    """Of six scales of each group, the one with the least squared error."""
    groups = weight.reshape(-1, 32)
    tried = [by_peak(weight, shrink) for shrink in SHRINKS]
    errors = [np.square(t.codes * t.scales - groups).sum(axis=1) for t in tried]
    chosen = np.argmin(errors, axis=0), np.arange(len(groups))
    codes = np.stack([t.codes for t in tried])[chosen]
    scales = np.stack([t.scales for t in tried])[chosen]
    return Groups(codes, scales, weight.shape)
