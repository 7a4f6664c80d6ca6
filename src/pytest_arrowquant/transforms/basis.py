"""What a change of a layer's input channels offers, whatever it is; and the one that does nothing.

An invertible T turns the weight W into W T and the inputs X into X T^-T, so that the output
X W^T = (X T^-T) (W T)^T stays, while both may become easier to quantize.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..arrays import Array, as_floating, require_finite
from ..errors import TensorError


class Transform(Protocol):
    """An invertible T. Arrays are float32, or float64, which stays; a row has all channels.

    Raises TensorError for another number of channels, NaN or infinity.
    """

    def weight(self, rows: Array) -> Array:
        """W T of a weight (output channels, input channels)."""

    def restore(self, rows: Array) -> Array:
        """W' T^-1: a transformed weight in the original channels."""

    def inputs(self, tokens: Array) -> Array:
        """X T^-T of inputs (tokens, input channels)."""

    def hessian(self, h: Array) -> Array:
        """T^-1 H T^-T: the Hessian of the transformed inputs; float64 (channels, channels)."""

    @property
    def nbytes(self) -> int:
        """Bytes that it adds to the stored model."""

    @property
    def options(self) -> dict[str, Any]:
        """What the record says of it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """T = 1: arrays come back as they are."""

    nbytes = 0

    def weight(self, rows: Array) -> Array:
        """See Transform."""
        return rows

    def restore(self, rows: Array) -> Array:
        """See Transform."""
        return rows

    def inputs(self, tokens: Array) -> Array:
        """See Transform."""
        return tokens

    def hessian(self, h: Array) -> Array:
        """See Transform."""
        return h

    @property
    def options(self) -> dict[str, Any]:
        """See Transform."""
        return {"transform": "identity"}


def rows_of(value: object, channels: int, name: str) -> Array:
    """`value` as an array (rows, channels) of float32, or float64 if it is; TensorError if not."""
    array = as_floating(value, name)
    if array.ndim != 2 or array.shape[1] != channels:
        raise TensorError(f"{name} has shape {array.shape}; expected (rows, {channels})")
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def square_of(value: object, channels: int) -> Array:
    """`value` as a float64 Hessian (channels, channels); TensorError if it is none."""
    h = np.asarray(as_floating(value, "hessian"), np.float64)
    if h.shape != (channels, channels):
        raise TensorError(f"hessian has shape {h.shape}; expected {(channels, channels)}")
    return h


def finite(result: Array, given: Array, name: str) -> Array:
    """`result`, or TensorError for NaN or infinity, whether given or made of what was given."""
    if not np.isfinite(result).all():
        require_finite(given, name)
        raise TensorError(f"{name} leaves the range of {result.dtype} where it is transformed")
    return result
