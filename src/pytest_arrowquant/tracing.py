"""Faults that no inverse mends: traced by what they leave behind, with the help of the reference.

A trace is a fault, the change that mends it, and the rows that it is about (None: all). What was
lost is put back as round-to-nearest of the reference.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .arrays import Array
from .breaking import PARTS, Change, every_row
from .damage import GUESSED_GROUP, with_groups_swapped
from .patient import Patient
from .refitting import refitted
from .specimen import Specimen

CLEARLY_DB = 3.0
LEAST_ROWS = 16  # fewer may be zero in a column by chance
FAINT = 1e-3  # of the median energy of columns: less may be restored as zero
MOST_GROUPS = 2048  # of a row, which are compared with each other


class Trace(NamedTuple):
    """A fault by name, the change that mends it, and in which rows."""

    fault: str
    change: Change
    rows: Array | None


def traces(patient: Patient) -> Iterator[Trace]:
    """What the patient shows of such faults."""
    yield from _not_finite(patient)
    if not np.isfinite(patient.found.row_sums).all():
        return
    yield from _zero_rows(patient)
    yield from _zero_columns(patient)
    yield from _rows_swapped(patient)
    yield from _groups_swapped(patient)
    yield from _first_for_all(patient)


def _not_finite(patient: Patient) -> Iterator[Trace]:
    rows = np.flatnonzero(~np.isfinite(patient.found.row_sums[:, 1]))
    if not rows.size:
        return
    coded = patient.specimen.coded
    of_scale = coded is not None and not np.isfinite(coded.scale).all()
    change = _put_back(patient, lambda values: ~np.isfinite(values))
    yield Trace("scale NaN" if of_scale else "one NaN", change, rows)


def _zero_rows(patient: Patient) -> Iterator[Trace]:
    energy, restored = patient.found.row_sums[:, :2].T
    rows = np.flatnonzero((restored == 0) & (energy > 0))
    if rows.size and 2 * rows.size <= len(energy):
        yield Trace(
            "row zeroed", _put_back(patient, lambda values: np.ones(values.shape, bool)), rows
        )


def _zero_columns(patient: Patient) -> Iterator[Trace]:
    """Columns that are zero in all rows, though of some energy in the reference."""
    specimen, columns = patient.specimen, patient.specimen.layout[1]
    every = every_row(specimen)
    if len(every) < LEAST_ROWS or (specimen.restore(0, LEAST_ROWS) != 0).any(axis=0).all():
        return
    zero = ~(specimen.restore() != 0).any(axis=0)
    energy = np.square(patient.reference_rows(every), dtype=np.float64).sum(axis=0)
    lost = zero & (energy > FAINT * np.median(energy))
    if not lost.any() or zero.all():
        return
    last = (columns - 1) // (size := specimen.group_size or GUESSED_GROUP) * size
    dropped = zero[last:].all() and not lost[:last].any()
    change = _put_back(patient, lambda values: np.broadcast_to(zero, values.shape))
    yield Trace("last group dropped" if dropped else "outlier column zeroed", change, None)


def _rows_swapped(patient: Patient) -> Iterator[Trace]:
    """Pairs among the worst rows that are each what the other should be."""
    worst = np.sort(patient.worst)
    errors = _errors(patient.reference_rows(worst), patient.specimen.take(worst).restore())
    other = errors.argmin(axis=1)
    here = np.arange(len(worst))
    ratio = errors[here, other] / np.maximum(np.diag(errors), np.finfo(np.float64).tiny)
    swapped = (
        (other != here) & (other[other] == here) & (10 * np.log10(ratio + 1e-30) < -CLEARLY_DB)
    )
    rows, source = worst[swapped], worst[other[swapped]]
    if rows.size and np.isin(rows, source).all():
        yield Trace(
            "two rows swapped",
            lambda specimen, some: specimen.take(source[np.searchsorted(rows, some)]),
            rows,
        )


def _groups_swapped(patient: Patient) -> Iterator[Trace]:
    """The two groups of a bad row that are most like each other's reference."""
    known, columns = patient.specimen.group_size, patient.specimen.layout[1]
    for size in (known,) if known else (32, 64, 128):
        if not 2 <= columns // size <= MOST_GROUPS:
            continue
        for row in patient.worst[:4]:
            if (pair := _swapped_pair(patient, row, size)) is not None:
                yield Trace("two groups swapped", _swap(pair, size), np.array([row]))


def _swapped_pair(patient: Patient, row: int, size: int) -> tuple[int, int] | None:
    rows, whole = np.array([row]), patient.specimen.layout[1] // size * size
    reference = patient.reference_rows(rows)[0, :whole].reshape(-1, size)
    restored = patient.specimen.take(rows).restore()[0, :whole].reshape(-1, size)
    errors = _errors(reference, restored)
    own = np.diag(errors)
    together = own[:, None] + own
    gain = together - errors - errors.T
    first, second = np.unravel_index(int(np.argmax(gain)), gain.shape)
    clearly = gain[first, second] > (1 - 10 ** (-CLEARLY_DB / 10)) * together[first, second]
    return (int(first), int(second)) if clearly else None


def _swap(pair: tuple[int, int], size: int) -> Change:
    return lambda specimen, rows: with_groups_swapped(specimen.take(rows), 0, pair, size)


def _first_for_all(patient: Patient) -> Iterator[Trace]:
    """Parameters that are the same throughout a row of several groups."""
    coded = patient.specimen.coded
    if coded is None or coded.order.size or coded.scale.shape[1] < 2:
        return
    kinds = {"scale": coded.scale, "zero": coded.minimum if coded.minimum.size else coded.zero}
    alike = {
        name for name, p in kinds.items() if p.size and (p == p[:, :1]).all() and np.ptp(p) > 0
    }
    for part, names in PARTS.items():
        if {*names} & {*kinds} <= alike:
            yield Trace(f"{part} of the first group for all", _refit(patient, names), None)


def _refit(patient: Patient, names: tuple[str, ...]) -> Change:
    def change(specimen: Specimen, rows: Array) -> Specimen:
        part, reference = specimen.take(rows), patient.reference_rows(rows)
        assert part.coded is not None
        scale, zero = "scale" in names, "zero" in names
        return part.with_codes(refitted(part.coded, reference, scale=scale, zero=zero))

    return change


def _put_back(patient: Patient, lost_in: Callable[[Array], Array]) -> Change:
    """Rows with what was lost in them put back, which lies on no common grid with the rest."""

    def change(specimen: Specimen, rows: Array) -> Specimen:
        part = specimen.take(rows)
        values = np.array(part.restore())
        lost = lost_in(values)
        values[lost] = patient.rounded(rows)[lost]
        grid = part.grid and replace(part.grid, group_size=None)
        return replace(part.with_values(values), grid=grid)

    return change


def _errors(reference: Array, restored: Array) -> Array:
    """|a_i - b_j|^2 of all rows of one and the other, float64."""
    a, b = reference.astype(np.float64), restored.astype(np.float64)
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)
    return np.maximum(squares - 2 * a @ b.T, 0)  # type: ignore[no-any-return]
