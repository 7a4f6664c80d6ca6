"""GPTQ: round column by column, and let the columns still to come make up for each error."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from ..arrays import Array, as_floating
from ..calibration import Calibration
from ..errors import SchemeError, TensorError
from ..factor import Factor
from ..kernels import feedback
from ..scheme import GroupSize, Scheme
from ..super_blocks import SuperBlockAffine
from ..tensor import QuantizedTensor, pack, weight_rows
from ..vocabulary import WIDTHS
from .mse import Mse
from .rtn import Rtn

BLOCK = 64  # columns between two matrix products
MOST_ROWS = 4096  # of a weight at a time: the errors of a large vocabulary would fill the memory


@dataclass(frozen=True, slots=True)
class Gptq:
    """Least squared error of the outputs, column by column, on the grid that `grid` chooses.

    grid: the quantizer whose scales and zeros are used, found on the weights as they are (static
    groups). damping: share of the mean of the Hessian's diagonal that is added to it.
    act_order: the most active input channels first. A channel that is never active is rounded to
    nearest. Source: Frantar et al. 2022 (GPTQ), algorithm 1.
    """

    grid: Rtn | Mse = field(default_factory=Mse)
    damping: float = 0.01
    act_order: bool = True

    name: ClassVar[str] = "gptq"
    bits: ClassVar[tuple[int, ...]] = WIDTHS
    needs_calibration: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.grid, Rtn | Mse):
            raise SchemeError(f"grid={self.grid!r} is neither an Rtn nor an Mse")
        if not isinstance(self.damping, int | float) or not 0 <= self.damping <= 1:
            raise SchemeError(f"damping={self.damping!r} is not from 0 to 1")

    @property
    def granularity(self) -> GroupSize:
        """What is quantized by itself: the errors of a group are made up for in its row."""
        return "tensor" if self.grid.granularity == "tensor" else "channel"

    def quantize(self, weight: object, bits: int, calibration: object = None) -> QuantizedTensor:
        """The codes of `weight` at `bits`, for these inputs.

        calibration: a Calibration, or an array of (tokens, input channels). Raises TensorError
        without one, or with fewer tokens than channels: the rest would be fitted to nothing.
        """
        array = as_floating(weight, "weight")
        if calibration is None:
            raise TensorError(
                "gptq needs calibration: the layer's inputs, an array of (tokens, input channels)"
            )
        inputs = Calibration.of(calibration)
        inputs.require_channels(array.shape)
        return self.on_factor(array, bits, self.factor_of(inputs))[0]

    def factor_of(self, inputs: Calibration, name: str = "weight") -> Factor:
        """The factored Hessian of these inputs; TensorError for fewer tokens than channels."""
        tokens, channels = inputs.inputs.shape
        if tokens < channels:
            raise TensorError(
                f"gptq has {tokens} calibration tokens for {channels} input channels of {name}; "
                f"give at least as many tokens as channels, better four times as many"
            )
        return inputs.factor(self.damping, self.act_order)

    def on_factor(self, weight: Any, bits: int, factor: Factor) -> tuple[QuantizedTensor, Array]:
        """(codes of `weight`, loss): as quantize, for a factored Hessian.

        loss: float64 (rows,), of each row (w - q) (H + damping) (w - q)^T in the Hessian's units.
        """
        array = as_floating(weight, "weight")
        rows = weight_rows(array, "weight")
        if rows.shape[1] != len(factor.order):
            raise TensorError(
                f"the Hessian has {len(factor.order)} channels; weight of shape {array.shape} "
                f"takes {rows.shape[1]}"
            )
        start = self.grid.quantize(rows.reshape(array.shape), bits)
        codes = np.empty(rows.shape, np.uint8)
        loss = np.zeros(len(rows))
        parameters = _for_every_group(start)
        for first in range(0, len(rows), MOST_ROWS):
            part = slice(first, first + MOST_ROWS)
            _sweep(
                rows[part],
                start.scheme,
                start.layout.group_size,
                [p[:, part] for p in parameters],
                factor,
                codes[part],
                loss[part],
            )
        notes = _notes(self, factor)
        return replace(start, codes=pack(codes, bits), notes=notes, feedback=True), loss


def _sweep(
    rows: Array,
    scheme: Scheme,
    group_size: int,
    parameters: list[Array],
    factor: Factor,
    codes: Array,
    loss: Array,
) -> None:
    """Fill codes, uint8 (rows, columns), and loss; a block of columns after the other."""
    w = np.ascontiguousarray(rows.T[factor.order])
    errors = np.empty(w.shape)
    found = np.empty(w.shape, np.uint8)
    groups = factor.order // group_size
    lowest = np.float32(scheme.lowest_code)
    highest = np.float32(2**scheme.bits - 1)
    parameters = [np.ascontiguousarray(part) for part in parameters]
    for first in range(0, len(w), BLOCK):
        block = slice(first, first + BLOCK)
        carried = factor.feedback[:first, block].T @ errors[:first]
        feedback.sweep(
            w[block],
            carried,
            np.ascontiguousarray(factor.feedback[block, block]),
            factor.pivots[block],
            groups[block],
            *parameters,
            lowest,
            highest,
            found[block],
            errors[block],
            loss,
        )
    codes[:, factor.order] = found.T


def _for_every_group(grid: Any) -> list[Array]:
    """Scale, zero point and minimum of a quantized tensor, float32 (groups, rows), none empty."""
    affine = grid.decoding
    if isinstance(affine, SuperBlockAffine):
        affine = affine.expanded(grid.layout, grid.scheme.bits)
    scale, zero_point, minimum = affine.arrays(grid.layout)
    implied = np.float32(2 ** (grid.scheme.bits - 1) if grid.scheme.symmetric else 0)
    filled = (
        scale,
        zero_point if zero_point.size else np.full_like(scale, implied),
        minimum if minimum.size else np.zeros_like(scale),
    )
    return [part.T.astype(np.float32) for part in filled]


def _notes(options: Gptq, factor: Factor) -> tuple[str, ...]:
    notes = []
    if factor.damping > options.damping:
        notes.append(
            f"damping raised from {options.damping:g} to {factor.damping:g}: the Hessian was not "
            "positive definite"
        )
    if factor.dead:
        notes.append(f"{factor.dead} input channels are never active: rounded to nearest")
    return tuple(notes)
