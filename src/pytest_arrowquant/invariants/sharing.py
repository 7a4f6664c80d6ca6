"""What depends on what: rows, groups, and the values that share a scale."""

from typing import Any

import numpy as np

from ..arrays import Array
from ..case import grid_of
from .attempt import Attempt, plainly, text
from .samples import unlike
from .units import Units


@plainly
def rows_independent(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """Rows are restored as the same bits in reverse order, without others, and beside other rows.

    Not for a quantizer with a scale of the tensor. One judged by outputs may round the products of
    its error feedback otherwise for another number of rows: there, errors must be alike.
    """
    attempt = Attempt.on("rows_independent", quantizer, weight, bits, calibration)
    w = attempt.weight
    rows = np.arange(len(w))
    if w.ndim < 2 or len(w) < 2:
        return
    expected = attempt.restore(w)
    other = unlike(w, attempt.traits.domain)
    _require_rows(attempt, w[::-1], rows[::-1], expected, "in reverse order")
    _require_rows(attempt, w[1::2], rows[1::2], expected, "without even rows")
    for kept in (0, 1):
        beside = w.copy()
        beside[1 - kept :: 2] = other[1 - kept :: 2]
        found = attempt.restore(beside)[kept::2]
        parity = ("even", "odd")[1 - kept]
        _require_same(
            attempt, w[kept::2], found, rows[kept::2], expected, f"beside other {parity} rows",
            weight_beside=beside,
        )  # fmt: skip


@plainly
def groups_independent(
    quantizer: Any, weight: object, bits: int, calibration: object = None
) -> None:
    """A group is restored as the same bits beside other groups of its row.

    For a quantizer whose granularity is a number of weights.
    """
    attempt = Attempt.on("groups_independent", quantizer, weight, bits, calibration)
    w = attempt.weight
    units = attempt.units(w)
    if units.size == units.length:
        return
    expected = attempt.restore(w)
    other = unlike(w, attempt.traits.domain)
    odd = (np.arange(units.length) // units.size % 2).astype(bool)
    for replaced, parity in ((odd, "odd"), (~odd, "even")):
        beside = w.copy()
        beside.reshape(units.rows, -1)[:, replaced] = other.reshape(units.rows, -1)[:, replaced]
        found = attempt.restore(beside)
        found.reshape(units.rows, -1)[:, replaced] = expected.reshape(units.rows, -1)[:, replaced]
        when = f"beside other {parity} groups of {units.size}"
        attempt.require_equal(found, expected, when, weight_beside=beside)


@plainly
def levels(quantizer: Any, weight: object, bits: int, calibration: object = None) -> None:
    """At most 2^bits values are restored of weights that share a scale.

    These are what the result says by its `scheme` or `grid`, else what the quantizer declares, else
    runs of 16 along a row.
    """
    attempt = Attempt.on("levels", quantizer, weight, bits, calibration)
    result, found = attempt.round_trip(attempt.weight)
    sharing = attempt.sharing(result)
    if sharing is None or not np.isfinite(found).all():  # which is what `finite` says
        return
    units = Units.of(found.shape, sharing)
    ordered = np.sort(units.each(found), axis=1)
    distinct = 1 + np.count_nonzero(np.diff(ordered, axis=1), axis=1)
    most = int(np.argmax(distinct))
    if distinct[most] > 2**bits:
        values = np.unique(ordered[most]).astype(found.dtype)
        known = attempt.traits.granularity or grid_of(result)
        guess = "" if known else f"; runs of {sharing} are assumed: declare granularity"
        raise attempt.broken(
            f"{units.place(most)} has {distinct[most]} values, expected at most {2**bits}: "
            f"{text(values)}{guess}"
        )


def _require_rows(attempt: Attempt, part: Array, rows: Array, expected: Array, when: str) -> None:
    """Raise unless these rows of the weight, handed over as `part`, are restored as before."""
    _require_same(attempt, part, attempt.restore(part), rows, expected, when)


def _require_same(
    attempt: Attempt,
    part: Array,
    found: Array,
    rows: Array,
    expected: Array,
    when: str,
    **shown: Array,
) -> None:
    """Raise unless `found`, of these rows of the weight, is what was expected of them."""
    if attempt.traits.by_outputs:
        attempt.require_alike(part, found, expected[rows], when)
        return
    placed = expected.copy()
    placed[rows] = found
    attempt.require_equal(placed, expected, when, **shown)
