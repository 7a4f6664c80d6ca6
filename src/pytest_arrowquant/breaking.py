"""Changes that wrong code makes of a specimen: its parameters, its packing, its order.

Each can be made of some rows alone, so that a mend may be tried on a sample.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .arrays import Array
from .specimen import Specimen

Change = Callable[[Specimen, Array], Specimen | None]
"""The given rows of what becomes of a specimen; None where the change does not apply to it."""

Move = Callable[[Array], Array]
"""Parameters (rows, groups), each in the place of another."""

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # of outputs in a packed int32
AWQ_UNDONE = (0, 4, 1, 5, 2, 6, 3, 7)
PARTS = {  # parameters that go wrong together
    "scales": ("scale",),
    "zero points": ("zero", "minimum"),
    "scales and zero points": ("scale", "zero", "minimum"),
}


def every_row(specimen: Specimen) -> Array:
    """The indices of all rows."""
    return np.arange(specimen.layout[0])


def scaled(factor: float) -> Change:
    """Every value times a factor."""
    by = np.float32(factor)

    def change(specimen: Specimen, rows: Array) -> Specimen:
        part = specimen.take(rows)
        if part.coded is None:
            return part.with_values(part.restore() * by)
        coded = part.coded
        return part.with_codes(replace(coded, scale=coded.scale * by, minimum=coded.minimum * by))

    return change


def zero_moved(by: int) -> Change:
    """Every zero point so much higher, modulo 2^bits where it is stored in as many bits."""

    def change(specimen: Specimen, rows: Array) -> Specimen | None:
        if specimen.coded is None or specimen.coded.table.size:
            return None
        part = specimen.take(rows)
        assert part.coded is not None
        coded = part.coded
        if coded.minimum.size:
            minimum = coded.minimum - np.float32(by) * coded.scale
            return part.with_codes(replace(coded, minimum=minimum))
        zero = coded.zero if coded.zero.size else np.zeros_like(coded.scale)
        zero = zero + np.float32(by)
        levels = 2 ** (specimen.bits or 0)
        if _is_code(specimen.coded.zero, levels):
            zero %= np.float32(levels)
        return part.with_codes(replace(coded, zero=zero))

    return change


def top_bit(specimen: Specimen, rows: Array) -> Specimen | None:
    """Signed codes read as unsigned ones, or the reverse: the highest bit flipped."""
    if specimen.coded is None or specimen.coded.table.size or not specimen.bits:
        return None
    part = specimen.take(rows)
    assert part.coded is not None
    values = part.coded.values ^ np.uint8(1 << (specimen.bits - 1))
    return part.with_codes(replace(part.coded, values=values))


def halves_swapped(specimen: Specimen, rows: Array) -> Specimen | None:
    """The two nibbles of every byte of codes, in each other's place."""
    if specimen.bits == 8 and specimen.coded is not None and not specimen.coded.table.size:
        part = specimen.take(rows)
        assert part.coded is not None
        codes = part.coded.values
        return part.with_codes(replace(part.coded, values=(codes << 4) | (codes >> 4)))
    orders = {4: (1, 0), 2: (2, 3, 0, 1)}
    return _reordered(specimen, rows, orders.get(specimen.bits or 0, ()))


def byte_reversed(specimen: Specimen, rows: Array) -> Specimen | None:
    """The four codes of a byte, high bits first; at 4 bits that is halves_swapped."""
    return _reordered(specimen, rows, (3, 2, 1, 0) if specimen.bits == 2 else ())


def shifted(by: int) -> Change:
    """Codes so many places further along the row."""

    def change(specimen: Specimen, rows: Array) -> Specimen:
        return _columns(specimen, rows, np.roll(np.arange(specimen.layout[1]), by))

    return change


def outputs_packed(order: tuple[int, ...]) -> Change:
    """Codes and zero points, packed by eight outputs, in another order; scales are not packed."""

    def change(specimen: Specimen, rows: Array) -> Specimen | None:
        coded = specimen.coded
        if coded is None or specimen.bits != 4 or specimen.layout[0] % len(order):
            return None
        from_ = _in_order(specimen.layout[0], order)[rows]
        zero = coded.zero[from_] if coded.zero.size else coded.zero
        part = specimen.take(rows)
        assert part.coded is not None
        return part.with_codes(replace(part.coded, values=coded.values[from_], zero=zero))

    return change


def interleaved(head: int) -> Change:
    """The two halves of the rows of every head in turns, as GGUF has them for rotary embeddings."""
    return _rows_moved(head, lambda rows: rows.reshape(-1, 2, head // 2).swapaxes(1, 2))


def separated(head: int) -> Change:
    """What undoes interleaved()."""
    return _rows_moved(head, lambda rows: rows.reshape(-1, head // 2, 2).swapaxes(1, 2))


def weight_transposed(specimen: Specimen, rows: Array) -> Specimen | None:
    """A square matrix, transposed."""
    if len(specimen.shape) != 2 or specimen.shape[0] != specimen.shape[1]:
        return None
    return specimen.with_values(np.ascontiguousarray(specimen.restore().T[rows]))


def parameters_moved(names: tuple[str, ...], move: Move) -> Change:
    """The parameters of these names in other places; None unless all kinds of them change."""

    def change(specimen: Specimen, rows: Array) -> Specimen | None:
        if specimen.coded is None:
            return None
        before = {name: getattr(specimen.coded, name) for name in names}
        moved = {name: move(array) for name, array in before.items() if array.size}
        changed = {name for name, array in moved.items() if (array != before[name]).any()}
        if not all(changed & kind for kind in ({"scale"}, {"zero", "minimum"}) if kind & {*names}):
            return None
        part = specimen.take(rows)
        assert part.coded is not None
        parts: dict[str, Any] = {name: array[rows] for name, array in moved.items()}
        return part.with_codes(replace(part.coded, **parts))

    return change


def rolled(by: int, axis: int) -> Move:
    """Each in the place of another so many groups (axis 1) or rows (axis 0) further."""
    return lambda parameters: np.roll(parameters, by, axis)


def read_transposed(parameters: Array) -> Array:
    """[rows, groups] written in [groups, rows] order, and read as they were."""
    return np.ascontiguousarray(parameters.T).reshape(parameters.shape)


def written_transposed(parameters: Array) -> Array:
    """What undoes read_transposed()."""
    return np.ascontiguousarray(parameters.reshape(parameters.shape[::-1]).T)


def first_of_row(parameters: Array) -> Array:
    """Those of the first group of a row, for all of its groups."""
    return np.repeat(parameters[:, :1], parameters.shape[1], axis=1)


def _is_code(zero: Array, levels: int) -> bool:
    return bool(zero.size and ((zero >= 0) & (zero < levels) & (zero == np.rint(zero))).all())


def _reordered(specimen: Specimen, rows: Array, order: tuple[int, ...]) -> Specimen | None:
    return _columns(specimen, rows, _in_order(specimen.layout[1], order)) if order else None


def _columns(specimen: Specimen, rows: Array, columns: Array) -> Specimen:
    """The codes, or else the values, of other columns; parameters stay where they are."""
    part = specimen.take(rows)
    if part.coded is None:
        return part.with_values(np.take(part.restore(), columns, axis=1))
    return part.with_codes(replace(part.coded, values=np.take(part.coded.values, columns, axis=1)))


def _in_order(count: int, order: tuple[int, ...]) -> Array:
    """The first `count` whole numbers, every run of as many as `order` has in that order."""
    index, whole_runs = np.arange(count), count // len(order) * len(order)
    index[:whole_runs] = index[:whole_runs].reshape(-1, len(order))[:, list(order)].reshape(-1)
    return index


def _rows_moved(head: int, move: Move) -> Change:
    def change(specimen: Specimen, rows: Array) -> Specimen | None:
        count = specimen.layout[0]
        if count % head:
            return None
        return specimen.take(move(np.arange(count)).reshape(-1)[rows])

    return change
