"""Floats of 4 and 8 bits: what each of their codes stands for, and scales that are stored so."""

from typing import Any

import ml_dtypes
import numpy as np

from ..arrays import Array


def _values(dtype: Any) -> tuple[float, ...]:
    codes: Array = np.arange(256, dtype=np.uint8).view(dtype)
    return tuple(codes.astype(np.float32).tolist())


E2M1 = (*(positive := (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)), *(-value for value in positive))
E4M3 = _values(ml_dtypes.float8_e4m3fn)
E5M2 = _values(ml_dtypes.float8_e5m2)

TABLES = {"F8_E4M3": E4M3, "F8_E5M2": E5M2}  # by stored dtype


def powers_of_two(codes: Array) -> Array:
    """Scales that are exponents of 8 bits (E8M0), float32; 255 is NaN."""
    scales: Array = codes.view(ml_dtypes.float8_e8m0fnu)
    return scales.astype(np.float32)


def e4m3_scales(codes: Array) -> Array:
    """Scales that are E4M3, stored as such or as bytes, float32."""
    scales: Array = codes.view(ml_dtypes.float8_e4m3fn)
    return scales.astype(np.float32)
