"""Smoothing: scales that move between a layer's input channels and its weight.

The inputs of a layer are divided by s and the columns of its weight multiplied by it. The layer
before takes up the division: the gain of a norm, its own rows, or those of the weight before.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Array, require_finite
from ..errors import TensorError
from .basis import finite, rows_of, square_of

LIMIT = 2.0**16  # scales lie within this factor of 1 (SmoothQuant's lie above 1e-5)


@dataclass(frozen=True, slots=True, eq=False)
class Smoothing:
    """T = diag(scale), folded into the layer before, so that nothing more is stored.

    scale: float32 (input channels,), positive. With powers of two every product and quotient is
    exact, so float outputs keep their bits. rule: where the scale comes from.
    """

    scale: Array
    rule: str = "given"

    def __post_init__(self) -> None:
        scale = self.scale
        if scale.ndim != 1 or scale.dtype != np.float32:
            raise TensorError(
                f"scale is {scale.dtype} {scale.shape}; expected float32 (input channels,)"
            )
        require_finite(scale, "scale")
        if (scale <= 0).any():
            at = int(np.flatnonzero(scale <= 0)[0])
            raise TensorError(f"scale has {scale[at]} at channel {at}; expected positive values")

    def weight(self, rows: Array) -> Array:
        """W diag(s). See Transform."""
        return self._apply(np.multiply, rows, "weight")

    def restore(self, rows: Array) -> Array:
        """W' diag(1 / s). See Transform."""
        return self._apply(np.divide, rows, "weight")

    def inputs(self, tokens: Array) -> Array:
        """X diag(1 / s). See Transform."""
        return self._apply(np.divide, tokens, "inputs")

    def hessian(self, h: Array) -> Array:
        """diag(1 / s) H diag(1 / s). See Transform."""
        given = square_of(h, self.scale.size)
        scale = self.scale.astype(np.float64)
        smoothed = given / scale
        smoothed /= scale[:, None]
        return finite(smoothed, given, "hessian")

    @property
    def nbytes(self) -> int:
        """See Transform."""
        return 0

    @property
    def options(self) -> dict[str, Any]:
        """See Transform."""
        return {"transform": "smoothing", "rule": self.rule}

    def _apply(self, operation: np.ufunc, value: object, name: str) -> Array:
        rows = rows_of(value, self.scale.size, name)
        with np.errstate(over="ignore"):
            return finite(operation(rows, self.scale), rows, name)


def smoothing_scale(peaks: Array, ranges: Array, alpha: float) -> Array:
    """s_j = peaks_j^alpha / ranges_j^(1 - alpha) over its geometric mean: float64 (channels,).

    peaks: max |x_j| of each input channel; ranges: max over outputs of |W_oj|. The mean makes s
    independent of units and 1 neutral: what a channel gets that is zero in the inputs or in the
    weight, of which nothing is known. Clamped to 2^-16 .. 2^16.

    Source: Xiao et al. 2023 (SmoothQuant), equation 4.
    """
    live = (peaks > 0) & (ranges > 0)
    logs = alpha * _log(peaks, live) - (1 - alpha) * _log(ranges, live)
    if live.any():
        logs[live] -= logs[live].mean()
    return np.clip(np.exp(logs), 1 / LIMIT, LIMIT)


def _log(values: Array, where: Array) -> Array:
    logs: Array = np.log(values.astype(np.float64), where=where, out=np.zeros(values.shape))
    return logs
