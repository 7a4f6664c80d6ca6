"""How far restored weights may be from the weights: of each unit, of simple rows, of short ends."""

from math import lcm
from typing import Any

import numpy as np

from ..arrays import Array
from ..calibration import Calibration
from ..case import grid_of
from ..codes import Grid
from ..examine import examine
from ..expectation import bounds_of_width, expect
from ..messages import failure
from ..traits import traits_of
from ..trial import with_grid
from .attempt import Attempt, plainly, rounding
from .samples import columns_of, gaussian, inputs

COARSEST_SCALE = 2.0**-9  # of itself: what rounding to bfloat16 moves a scale by
LARGEST_RANGE = float(np.finfo(np.float32).max)  # one that no float32 can hold is clipped
ROWS, LEAST_ODD, WHOLE = 256, 61, 64  # columns that no group and no byte divides, and that all do
AS_GOOD = 1.5  # times the mean squared error of whole rows


@plainly
def error_bounded(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """The rms error of each unit is at most 4 / 2^bits of its largest magnitude.

    At 2 bits that is no worse than all zeros; else two steps of 2^bits codes from the largest
    negative to the largest positive. No theorem is as wide for integers (T1: half a step, a whole
    one where an extreme clips), but tables of floats have wider steps (NF4 0.15, E2M1 with
    scales of powers of two 0.25 of the largest), and a search may clip. Added: the rounding of a
    scale to bfloat16, 2^-9, 8 roundings in the coarsest dtype, and 2^-126, below which no scale is.
    Where the result says what its codes stand for, half the widest gap of these if that is more.
    Not of units whose range may exceed float32, nor of a quantizer judged by outputs.
    """
    attempt = Attempt.on("error_bounded", quantizer, weight, bits, calibration)
    result, found = attempt.round_trip(attempt.weight)
    units = attempt.units(attempt.weight)
    largest = units.largest(attempt.weight)
    with np.errstate(invalid="ignore", over="ignore"):
        rms = units.rms(found.astype(np.float64) - attempt.weight.astype(np.float64))
    share = max(2.0 ** (2 - bits), _half_a_gap(grid_of(result)))
    allowed = _allowed(share, largest, attempt.weight, found)
    off = np.flatnonzero(~(rms <= allowed))
    if off.size:
        at = int(off[0])
        raise attempt.broken(
            f"{units.place(at)} has an rms error of {rms.flat[at]:.4g}, expected at most "
            f"{allowed.flat[at]:.4g}; its largest magnitude is {largest.flat[at]:.4g}",
            restored=found,
        )


@plainly
def zero_rows(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """A row of zeros beside others stays zero, exactly. Not where one scale is of the tensor."""
    attempt = Attempt.on("zero_rows", quantizer, weight, bits, calibration)
    for first in (0, 1):
        cleared = attempt.weight.copy()
        rows = cleared if cleared.ndim > 1 else cleared[None]
        rows[first::2] = 0
        found = attempt.restore(cleared)
        zero = (found if found.ndim > 1 else found[None])[first::2] == 0
        good = np.ones(rows.shape, bool)
        good[first::2] = zero
        attempt.require(good, found, cleared, "", with_zero_rows=cleared)


@plainly
def constant_rows(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """A row of one number c is restored to |c| / (2^bits - 1), of c and -c to 2 |c| / 2^bits.

    The first is half a step of 2^bits codes from -|c| to |c|, where the extreme of one sign may be
    a tie that is clipped (T1, as GPTQ's symmetric grid does); the second a whole one, where the
    extreme of the other sign clips (llama.cpp's Q4_0). Added: what is added to `error_bounded`.
    Rows as long as the weight's, and longer by what the quantizer allows; where one scale is of the
    tensor, it is all one row. Not of a quantizer judged by outputs.
    """
    attempt = Attempt.on("constant_rows", quantizer, weight, bits, calibration)
    w = attempt.weight
    longer = np.concatenate([w, w[..., : attempt.traits.domain.columns_multiple]], axis=-1)
    for like in (w, longer):
        constant = _constant(like, attempt.traits.granularity == "tensor")
        _require_near(attempt, constant, 1 / (2**bits - 1), "of constant rows")
        columns = np.arange(like[0].size if like.ndim > 1 else like.size)
        signs = np.where(columns % 2, -1, 1).reshape(like.shape[min(1, like.ndim - 1) :])
        signed = (constant * signs).astype(like.dtype)
        _require_near(attempt, signed, 2.0 ** (1 - bits), "of rows whose signs alternate")


@plainly
def ragged_sizes(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """Rows that end within a group or a byte are as near as whole ones, and so are their ends.

    weight, calibration: not used, it has Gaussian weights of its own. In mean square, up to 1.5
    times: the range of a shorter row or group is no wider, so its error is smaller, by what is more
    than chance (9 % for 256 weights).
    """
    traits = traits_of(quantizer)
    size = traits.granularity if isinstance(traits.granularity, int) else 0
    columns = columns_of(traits.domain, 2 * size + size // 2 + 1 if size else LEAST_ODD)
    unit = lcm(size or WHOLE, traits.domain.columns_multiple)
    drawn = gaussian(traits, ROWS, -(-columns // unit) * unit)
    if drawn.ndim < 2 or drawn.shape[1] == columns:  # one row says little, a whole one nothing
        return
    whole = _squares(quantizer, drawn, bits).mean()
    squares = _squares(quantizer, drawn[:, :columns], bits)
    tails = {columns % divisor for divisor in (2, 4, 8, 16, 32, 64, size or 1)} - {0}
    for tail in sorted(tails | {columns}):
        found = squares[:, -tail:].mean()
        if not found <= AS_GOOD * whole:
            attempt = Attempt.on("ragged_sizes", quantizer, drawn[:, :columns], bits, None)
            raise attempt.broken(
                f"the last {tail} of {columns} columns have a mean squared error of {found:.4g}, "
                f"rows of {drawn.shape[1]} columns one of {whole:.4g}; expected at most "
                f"{AS_GOOD} times that"
            )


@plainly
def accurate(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """The default target and every guard hold; of a width without one, that of the next narrower.

    By outputs where the quantizer is judged by these, on its calibration.
    """
    attempt = Attempt.on("accurate", quantizer, weight, bits, calibration)
    w, traits = attempt.weight, attempt.traits
    keywords = {"bits": bits, **bounds_of_width(bits, {}), **traits.keywords}
    expectation = expect(keywords, {}, {}, None, "accurate")
    fed = None
    if traits.by_outputs:
        columns = attempt.units(w).columns
        fed = Calibration.of(inputs(columns) if calibration is None else calibration).inputs
    result, values = attempt.round_trip(w)
    found = examine("weight", w, with_grid(result, values, traits, bits), expectation, fed, None)
    said = failure([found], expectation, None)
    if said:
        raise attempt.broken(said.replace("\n", "\n  "))


def _half_a_gap(grid: Grid | None) -> float:
    """Half of the widest gap between what codes stand for, over the largest of that; else 0."""
    if grid is None or not grid.table:
        return 0.0
    levels = np.unique(np.asarray(grid.table, np.float64))
    return float(np.diff(levels).max(initial=0) / 2 / np.abs(levels).max())


def _squares(quantizer: Any, weight: Array, bits: int) -> Array:
    """The squared errors of a weight of our own, (rows, columns)."""
    own = inputs(weight[0].size) if traits_of(quantizer).by_outputs else None
    attempt = Attempt.on("ragged_sizes", quantizer, weight, bits, own)
    found = attempt.restore(attempt.weight)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.square(found.astype(np.float64) - weight.astype(np.float64))
    return squares.reshape(len(weight), -1)


def _constant(like: Array, of_tensor: bool) -> Array:
    """Every row filled with its first weight, or all of it with the very first."""
    if of_tensor or like.ndim < 2:
        return np.full_like(like, like.reshape(-1)[0])
    first = like.reshape(len(like), -1)[:, 0]
    return np.broadcast_to(first.reshape(-1, *[1] * (like.ndim - 1)), like.shape).copy()


def _require_near(attempt: Attempt, weight: Array, share: float, when: str) -> None:
    """Raise where a value is further off than this share of its weight, and roundings."""
    found = attempt.restore(weight)
    exact = weight.astype(np.float64)
    allowed = _allowed(share, np.abs(exact), weight, found)
    good = np.abs(found.astype(np.float64) - exact) <= allowed
    attempt.require(good, found, weight, when, tried=weight)


def _allowed(share: float, largest: Array, *arrays: Array) -> Array:
    """This share of magnitudes, and roundings: of a scale to bfloat16, and in these dtypes."""
    allowed = (share + COARSEST_SCALE) * largest + rounding(largest, *arrays)
    return np.where(largest > LARGEST_RANGE / 2, np.inf, allowed)
