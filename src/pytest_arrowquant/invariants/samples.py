"""Weights made of a weight, and weights of one's own, within what a quantizer takes."""

from functools import lru_cache
from math import floor, log2

import numpy as np

from ..arrays import Array, limits_of
from ..calibration import Calibration
from ..traits import Domain, Traits

DEVIATION = 0.02  # of weights as they usually are
WIDE_ENOUGH = 2.0**12  # above the smallest magnitude: what lies below is too little to matter
TALLEST = 2.0**4  # deviations: no Gaussian number is that large
DTYPES = ("float32", "float64", "bfloat16", "float16")  # the first that is taken
ROUNDED = 1 + 2.0**-7  # more than rounding to bfloat16 moves a number by
LEAST_FLOAT32 = 2.0**-149  # in which a float64 below it is 0
SMALL_PEAK = 4.0  # times the smallest number: no scale is one then
TOKENS = 8  # times the channels, so that their sample covariance is nearly diagonal


def unlike(weight: Array, domain: Domain) -> Array:
    """Another weight of the same shape: in reverse order, negated, of another range, without 0."""
    magnitudes = np.abs(weight.astype(np.float64))
    peak = float(magnitudes.max())
    least = float(magnitudes[magnitudes > 0].min(initial=np.inf))
    if peak == 0:
        largest = 2.0 ** min(0, floor(log2(domain.largest)))
        filled = np.full_like(weight, max(largest, domain.smallest))
        return filled if within(filled, domain) else weight
    finfo = limits_of(weight.dtype)
    factor = -1.0
    if 4 * peak <= min(domain.largest, float(finfo.max)):
        factor = -4.0
    elif least / 4 >= max(domain.smallest, float(finfo.tiny)):
        factor = -0.25
    filled = np.where(weight == 0, peak, weight.astype(np.float64)) * factor
    return filled[..., ::-1].astype(weight.dtype)


def at_ends(weight: Array, domain: Domain) -> tuple[Array, ...]:
    """The weight scaled to the smallest numbers of its dtype in the domain, and to the largest."""
    magnitudes = np.abs(weight.astype(np.float64))
    finfo = limits_of(weight.dtype)
    smallest = max(domain.smallest, float(finfo.smallest_subnormal), LEAST_FLOAT32)
    largest = min(domain.largest, float(finfo.max))
    peak = float(magnitudes.max())
    if peak == 0:
        return ()
    ends = []
    for factor in (SMALL_PEAK * smallest / peak, largest / peak):
        held = np.clip(magnitudes * factor, smallest, largest)
        scaled = np.copysign(np.where(magnitudes == 0, 0, held), weight).astype(weight.dtype)
        ends.append(scaled)
    return tuple(end for end in ends if within(end, domain))


def within(weight: Array, domain: Domain) -> bool:
    """Whether all magnitudes but 0 lie in the domain."""
    magnitudes = np.abs(weight.astype(np.float64))
    inside = (domain.smallest <= magnitudes) & (magnitudes <= domain.largest)
    return bool((inside | (magnitudes == 0)).all())


def gaussian(traits: Traits, rows: int, columns: int) -> Array:
    """Seeded normal weights of (rows, columns), with more axes of length 1 where need be.

    A quantizer that takes vectors alone gets one of all the weights.
    """
    drawn = np.random.default_rng(0).standard_normal((rows, columns))
    return held(traits, drawn * deviation(traits.domain))


def uniform(traits: Traits, rows: int, columns: int) -> tuple[Array, float]:
    """(seeded uniform weights as of `gaussian`, the width of their interval)."""
    width = 4 * deviation(traits.domain)
    drawn = np.random.default_rng(1).random((rows, columns))
    return held(traits, (drawn - 0.5) * width), width


def deviation(domain: Domain) -> float:
    """The standard deviation of weights that lie within the domain."""
    return min(max(DEVIATION, domain.smallest * WIDE_ENOUGH), domain.largest / TALLEST)


def held(traits: Traits, values: Array) -> Array:
    """The values moved away from 0 by the domain's smallest magnitude, which takes no detail."""
    domain = traits.domain
    moved = np.minimum(np.abs(values) + domain.smallest * ROUNDED, domain.largest / ROUNDED)
    axes = domain.axes_of_rows or 1
    shape = (*values.shape, *(1,) * (axes - 2)) if axes > 1 else (values.size,)
    dtype = next(name for name in DTYPES if name in domain.dtypes)
    return np.copysign(moved, values).reshape(shape).astype(dtype)


def columns_of(domain: Domain, least: int) -> int:
    """The smallest number of columns that is taken and not below `least`."""
    return -(-least // domain.columns_multiple) * domain.columns_multiple


@lru_cache(maxsize=4)
def inputs(columns: int) -> Calibration:
    """Independent seeded inputs of so many channels, under which outputs err as weights do."""
    drawn = np.random.default_rng(2).standard_normal((TOKENS * columns, columns))
    return Calibration.of(drawn.astype(np.float32))
