"""The library: unsigned codes with a scale and a zero point a row."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Encoded:
    """Codes (rows, columns), and what restores them: (code - zero_point) * scale, a row."""

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray


def encode(weight: np.ndarray, bits: int) -> Encoded:
    """Round each row to nearest, between its smallest and largest weight, with 0 among them."""
    lowest = weight.min(axis=1, keepdims=True).clip(max=0)
    highest = weight.max(axis=1, keepdims=True).clip(min=0)
    last = 2**bits - 1
    scale = np.maximum((highest - lowest) / last, np.finfo(np.float32).tiny)
    zero_point = np.rint(-lowest / scale)
    codes = np.clip(np.rint(weight / scale) + zero_point, 0, last)
    return Encoded(codes.astype(np.uint8), scale, zero_point.astype(np.uint8))


def decode(encoded: Encoded) -> np.ndarray:
    """The restored weights, float32."""
    shifted = encoded.codes.astype(np.float32) - encoded.zero_point
    return shifted * encoded.scale
