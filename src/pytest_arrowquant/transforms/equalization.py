"""Cross-layer equalization: two weights in a row share the range of each channel between them."""

from typing import NamedTuple

import numpy as np

from ..arrays import Array, as_floating, common_dtype, require_finite
from ..errors import TensorError


class Equalized(NamedTuple):
    """New weights, and bias, of the same function; scale: float64, one a channel between them."""

    first: Array
    second: Array
    bias: Array | None
    scale: Array


def equalization_scale(row_ranges: object, column_ranges: object) -> Array:
    """s = sqrt(row_ranges / column_ranges): float64 (channels,); 1 where either is zero.

    Divides the rows of the first weight and multiplies the columns of the second: both ranges are
    then sqrt(row_ranges column_ranges). Raises TensorError where the numbers of channels differ,
    for NaN, infinity or negative ranges.

    Source: Nagel et al. 2019 (DFQ), equation 11.
    """
    rows, columns = _ranges(row_ranges, "row ranges"), _ranges(column_ranges, "column ranges")
    if rows.shape != columns.shape:
        raise TensorError(
            f"row ranges are of {rows.size} channels, column ranges of {columns.size}; "
            "expected one of each a channel between the two weights"
        )
    live = (rows > 0) & (columns > 0)
    return np.divide(np.sqrt(rows), np.sqrt(columns), where=live, out=np.ones(rows.shape))


def nearest_powers(scale: Array) -> Array:
    """The power of two nearest to each scale, in logarithm."""
    return np.exp2(np.rint(np.log2(scale)))


def equalize(
    first: object, second: object, bias: object = None, *, powers_of_two: bool = False
) -> Equalized:
    """Scale the output channels of `first` (and `bias`) down, the input channels of `second` up.

    first: (channels, ...); second: (outputs, channels, *window), a convolution's in its own
    shape; bias: (channels,), of the first. Exact where f(s x) = s f(x) for s > 0 holds between
    them: nothing, ReLU, LeakyReLU; not GELU or SiLU. The product of the two ranges of a channel
    stays, and both become its square root; with powers of two they stay within a factor of two of
    each other, and outputs keep their bits. A channel that is zero in either weight is left alone.

    Raises TensorError for weights that do not meet, NaN or infinity.

    Source: Nagel et al. 2019 (DFQ), section 4.1.
    """
    before, after = _weight(first, "first weight"), _weight(second, "second weight")
    channels = len(before)
    if after.shape[1] != channels:
        raise TensorError(
            f"first weight of shape {before.shape} has {channels} output channels, "
            f"second weight of shape {after.shape} takes {after.shape[1]}"
        )
    added = None if bias is None else _bias(bias, channels)
    scale = equalization_scale(
        np.abs(before).max(axis=tuple(range(1, before.ndim))),
        np.abs(after).max(axis=(0, *range(2, after.ndim))),
    )
    if powers_of_two:
        scale = nearest_powers(scale)
    return Equalized(
        (before / _along(scale, 0, before.ndim)).astype(common_dtype(before)),
        (after * _along(scale, 1, after.ndim)).astype(common_dtype(after)),
        None if added is None else (added / scale).astype(common_dtype(added)),
        scale,
    )


def _along(scale: Array, axis: int, dimensions: int) -> Array:
    shape = [1] * dimensions
    shape[axis] = -1
    return scale.reshape(shape)


def _ranges(value: object, name: str) -> Array:
    ranges = np.asarray(as_floating(value, name), np.float64)
    require_finite(ranges, name)
    if ranges.ndim != 1:
        raise TensorError(f"{name} has shape {ranges.shape}; expected (channels,)")
    if (ranges < 0).any():
        at = int(np.flatnonzero(ranges < 0)[0])
        raise TensorError(f"{name} has {ranges[at]} at channel {at}; expected max |w|")
    return ranges


def _weight(value: object, name: str) -> Array:
    array = as_floating(value, name)
    require_finite(array, name)
    if array.ndim < 2 or not array.size:
        raise TensorError(f"{name} has shape {array.shape}; expected (outputs, inputs, ...)")
    return array


def _bias(value: object, channels: int) -> Array:
    array = as_floating(value, "bias")
    require_finite(array, "bias")
    if array.shape != (channels,):
        raise TensorError(f"bias has shape {array.shape}; expected {(channels,)}")
    return array
