"""What holds of a quantizer that declares it."""

from typing import Any

import numpy as np

from ..arrays import Array, limits_of
from ..traits import Domain
from .attempt import Attempt, eps, plainly, rounding
from .samples import within
from .units import Units

POWERS = (9, -7)
UPSCALED, DOWNSCALED = 2.0**60, 2.0**-60  # further out, float32 and thresholds in it run out
ROOM = 2.0**32  # between a dtype's smallest normal number and weights whose steps are normal
ROUNDINGS = 4  # of the largest code times the scale (T3), which is a range of two magnitudes


@plainly
def zero_kept(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """A weight of 0 among others comes back as 0, exactly (T7). Every third is made 0."""
    attempt = Attempt.on("zero_kept", quantizer, weight, bits, calibration)
    some = attempt.weight.copy(order="C")
    some.reshape(-1)[::3] = 0
    found = attempt.restore(some)
    attempt.require((some != 0) | (found == 0), found, some, "", with_zeros=some)


@plainly
def idempotent(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """|Q(Q(w)) - Q(w)| is at most 8 * eps of the largest magnitude in each unit (T3)."""
    attempt = Attempt.on("idempotent", quantizer, weight, bits, calibration)
    first = attempt.restore(attempt.weight)
    taken = first.dtype.name in attempt.traits.domain.dtypes
    first = first if taken else first.astype(attempt.weight.dtype)
    second = attempt.restore(first)
    _require_close(attempt, second, first, "when quantized again", first_restored=first)


@plainly
def monotone(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """w_i <= w_j makes Q(w)_i <= Q(w)_j among weights that share a scale (T4).

    Up to 4 roundings of the largest: where levels coincide, their sums are rounded apart.
    """
    attempt = Attempt.on("monotone", quantizer, weight, bits, calibration)
    result, found = attempt.round_trip(attempt.weight)
    sharing = attempt.sharing(result)
    if sharing is None:
        return
    units = Units.of(found.shape, sharing)
    weights, values = units.each(attempt.weight), units.each(found)
    order = np.argsort(weights, axis=1, kind="stable")
    rising, steps = (np.diff(np.take_along_axis(x, order, 1), axis=1) for x in (weights, values))
    slack = ROUNDINGS * eps(found) * np.abs(values).max(axis=1, keepdims=True)
    good = (steps >= -slack) & ((rising > 0) | (steps <= slack))
    if not good.all():
        unit, at = divmod(int(np.argmin(good)), good.shape[1])
        low, high = order[unit, at], order[unit, at + 1]
        raise attempt.broken(
            f"{units.place(unit)}: {weights[unit, low]:.9g} is restored as "
            f"{values[unit, low]:.9g}, but {weights[unit, high]:.9g} as {values[unit, high]:.9g}",
            restored=found,
        )


@plainly
def sign_symmetric(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """Q(-w) = -Q(w), exactly (T6)."""
    attempt = Attempt.on("sign_symmetric", quantizer, weight, bits, calibration)
    expected = -attempt.restore(attempt.weight)
    found = attempt.restore(-attempt.weight)
    attempt.require_equal(found, expected, "of the negated weight")


@plainly
def scale_equivariant(
    quantizer: Any, weight: object, bits: int, calibration: object = None
) -> None:
    """Q(2^k w) = 2^k Q(w), exactly, for k = 9 and -7 (T5).

    Where neither side leaves the domain or comes near the ends of its dtype: all magnitudes but 0
    from 2^-60, and 2^32 times the smallest normal number, to 2^60.
    """
    attempt = Attempt.on("scale_equivariant", quantizer, weight, bits, calibration)
    w = attempt.weight
    for power in POWERS:
        factor = w.dtype.type(2.0**power)
        if not _far_from_ends(w, attempt.traits.domain, 2.0**power):
            continue
        expected = attempt.restore(w) * factor
        found = attempt.restore(w * factor)
        attempt.require_equal(found, expected, f"of the weight times 2^{power}")


@plainly
def nested_widths(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """No row's rms error is larger at a wider declared width than at this one (T9), but rounding.

    Each level of the narrower grid is one of the wider, so no error can grow, of what is quantized
    by itself; the rounding of both is 8 * eps of the largest magnitude. What is restored
    at this width is tried, too: it has no error that could hide one.
    """
    attempt = Attempt.on("nested_widths", quantizer, weight, bits, calibration)
    restored = attempt.restore(attempt.weight).astype(attempt.weight.dtype)
    for wider in attempt.traits.bits:
        if wider > bits:
            _require_finer(attempt, attempt.weight, wider)
            if within(restored, attempt.traits.domain):
                _require_finer(attempt, restored, wider)


def _require_finer(attempt: Attempt, w: Array, wider: int) -> None:
    """Raise unless no unit of this weight is worse at the wider width."""
    units = attempt.units(w)
    narrow, found = attempt.restore(w), attempt.restore(w, wider)
    exact = w.astype(np.float64)
    errors, finer = units.rms(narrow - exact), units.rms(found - exact)
    off = np.flatnonzero(~(finer <= errors + _slack(units.largest(w), w, found)))
    if off.size:
        at = int(off[0])
        raise attempt.broken(
            f"{units.place(at)} has an rms error of {finer.flat[at]:.9g} at {wider} bits, "
            f"{errors.flat[at]:.9g} at {attempt.bits}",
            tried=w,
            **{f"restored_at_{attempt.bits}": narrow, f"restored_at_{wider}": found},
        )


@plainly
def permutation_equivariant(
    quantizer: Any, weight: object, bits: int, calibration: object = None
) -> None:
    """Weights that share a scale, in reverse and in another order, come back in that order (T8).

    To 8 * eps of the largest magnitude, as sums in another order are rounded otherwise.
    """
    attempt = Attempt.on("permutation_equivariant", quantizer, weight, bits, calibration)
    w = attempt.weight
    result, before = attempt.round_trip(w)
    sharing = attempt.sharing(result)
    if sharing is None:
        return
    units = Units.of(w.shape, sharing)
    shuffled = np.random.default_rng(0).permutation(units.length)
    for how, order in (("reverse", np.arange(units.length)[::-1]), ("another", shuffled)):
        within = order[np.argsort(order // units.size, kind="stable")]  # each unit stays in place
        moved = w.reshape(units.rows, -1)[:, within].reshape(w.shape)
        expected = before.reshape(units.rows, -1)[:, within].reshape(w.shape)
        found = attempt.restore(moved)
        _require_close(attempt, found, expected, f"in {how} order", weight_so=moved)


def _require_close(
    attempt: Attempt, found: Array, expected: Array, when: str, **shown: Array
) -> None:
    """Raise unless each value is as expected, but for the rounding of its unit."""
    units = attempt.units(expected)
    largest = np.maximum(units.largest(attempt.weight), units.largest(expected))
    slack = units.spread(_slack(largest, found, expected)).reshape(found.shape)
    with np.errstate(invalid="ignore"):
        good = np.abs(found.astype(np.float64) - expected.astype(np.float64)) <= slack
    good |= ~np.isfinite(expected) & ~np.isfinite(found)  # which is what `finite` says
    attempt.require(good, found, expected, when, **shown)


def _slack(largest: Array, *arrays: Array) -> Array:
    """8 * eps of the largest magnitudes, and the smallest steps there are."""
    slack: Array = 2 * ROUNDINGS * eps(*arrays) * largest + rounding(largest, *arrays)
    return slack


def _far_from_ends(weight: Array, domain: Domain, factor: float) -> bool:
    magnitudes = np.abs(weight.astype(np.float64))
    magnitudes = magnitudes[magnitudes > 0]
    if not magnitudes.size:
        return False
    tiny = float(limits_of(weight.dtype).tiny)
    low = max(DOWNSCALED, ROOM * tiny, domain.smallest)
    high = min(UPSCALED, domain.largest)
    ends = np.array([magnitudes.min(), magnitudes.max()])
    return bool((low <= ends * min(factor, 1)).all() and (ends * max(factor, 1) <= high).all())
