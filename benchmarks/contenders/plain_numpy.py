"""numpy in plain code: a minimum and a scale for every 64 weights."""

from typing import Any

import numpy as np

from .work import Work

GROUP = 64


def quantize(x: Any, bits: int) -> tuple[Any, Any, Any]:
    """Packed codes, scales and minima."""
    groups = x.reshape(-1, GROUP)
    minimum = groups.min(axis=1, keepdims=True)
    scale = (groups.max(axis=1, keepdims=True) - minimum) / np.float32(2**bits - 1)
    codes = np.rint((groups - minimum) / scale).astype(np.uint8)
    packed = codes[:, :: 8 // bits].copy()
    for i in range(1, 8 // bits):
        packed |= codes[:, i :: 8 // bits] << np.uint8(i * bits)
    return packed, scale, minimum


def dequantize(packed: Any, scale: Any, minimum: Any, bits: int, shape: Any) -> Any:
    """The restored weights."""
    codes = np.empty((len(packed), GROUP), np.uint8)
    for i in range(8 // bits):
        codes[:, i :: 8 // bits] = packed >> np.uint8(i * bits) & np.uint8(2**bits - 1)
    return (codes * scale + minimum).reshape(shape)


def compare(x: Any, restored: Any, error: Any) -> tuple[Any, Any, Any]:
    """Dot, both norms, squared and largest error of each row, in float32; `error` is scratch."""
    np.einsum("ij,ij->i", x, restored)
    energy = np.einsum("ij,ij->i", x, x)
    np.einsum("ij,ij->i", restored, restored)
    np.subtract(x, restored, out=error)
    squared = np.einsum("ij,ij->i", error, error)
    return energy, squared, np.abs(error, out=error).max(axis=1)


def prepare(x: Any, bits: int, threads: int) -> Work:
    """On one thread, whatever is said."""
    stored = quantize(x, bits)
    restored = dequantize(*stored, bits, x.shape)
    error = np.empty_like(x)

    def quantize_and_compare() -> Any:
        return compare(x, dequantize(*quantize(x, bits), bits, x.shape), error)

    return Work(
        {
            "quantize": lambda: quantize(x, bits),
            "dequantize": lambda: dequantize(*stored, bits, x.shape),
            "compare": lambda: compare(x, restored, error),
            "quantize-and-compare": quantize_and_compare,
        },
        lambda: restored,
        sum(array.nbytes for array in stored),
    )
