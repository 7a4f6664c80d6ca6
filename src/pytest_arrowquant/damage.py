"""Damage: faults of single rows and groups, and what cannot be undone without the reference."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .arrays import Array
from .breaking import Change, every_row
from .specimen import Specimen

Break = Callable[[Specimen], Specimen | None]
"""A specimen broken; None where that cannot befall it."""

GUESSED_GROUP = 32  # weights, where nobody says


def whole(change: Change) -> Break:
    """The change of all rows."""
    return lambda specimen: change(specimen, every_row(specimen))


def in_a_row(change: Change) -> Break:
    """The change of one row of middling energy."""

    def broken(specimen: Specimen) -> Specimen | None:
        rows = _middling(specimen)[:1]
        part = change(specimen, rows)
        return None if part is None else specimen.patched(rows, part)

    return broken


def rows_swapped(specimen: Specimen) -> Specimen | None:
    """Two rows of middling energy in each other's place."""
    if specimen.layout[0] < 2:
        return None
    pair = _middling(specimen)[:2]
    return specimen.patched(pair, specimen.take(pair[::-1]))


def groups_swapped(specimen: Specimen) -> Specimen | None:
    """The first two groups of a row of middling energy in each other's place."""
    size = specimen.group_size or GUESSED_GROUP
    if specimen.layout[1] < 2 * size:
        return None
    return with_groups_swapped(specimen, int(_middling(specimen)[0]), (0, 1), size)


def with_groups_swapped(
    specimen: Specimen, row: int, groups: tuple[int, int], size: int
) -> Specimen:
    """Two whole groups of a row in each other's place, with their parameters."""
    rows = np.array([row])
    columns = np.arange(specimen.layout[1])
    first, second = (slice(group * size, (group + 1) * size) for group in groups)
    columns[first], columns[second] = columns[second].copy(), columns[first].copy()
    part = specimen.take(rows)
    if part.coded is None or part.coded.order.size:
        return specimen.patched(rows, part.with_values(np.take(part.restore(), columns, axis=1)))
    places = np.arange(part.coded.scale.shape[1])
    places[list(groups)] = groups[::-1]
    parameters = {name: getattr(part.coded, name) for name in ("scale", "zero", "minimum")}
    parts: dict[str, Any] = {
        name: np.take(array, places, axis=1) for name, array in parameters.items() if array.size
    }
    coded = replace(part.coded, values=np.take(part.coded.values, columns, axis=1), **parts)
    return specimen.patched(rows, part.with_codes(coded))


def last_group_dropped(specimen: Specimen) -> Specimen | None:
    """The last group of every row restored as zero."""
    size, columns = specimen.group_size, specimen.layout[1]
    if size is None or size >= columns:
        return None
    values = np.array(specimen.restore())
    values[:, (columns - 1) // size * size :] = 0
    return specimen.with_values(values)


def channel_zeroed(specimen: Specimen) -> Specimen | None:
    """The input channel of most energy restored as zero."""
    if len(specimen.shape) < 2 or specimen.shape[1] < 2:
        return None
    values = np.array(specimen.restore())
    channels = values.reshape(*specimen.shape[:2], -1)
    channels[:, int(np.argmax(np.square(channels).sum(axis=(0, 2))))] = 0
    return specimen.with_values(values)


def value_nan(specimen: Specimen) -> Specimen:
    """One value in the middle is NaN."""
    values = np.array(specimen.restore())
    values.reshape(-1)[values.size // 2] = np.nan
    return specimen.with_values(values)


def scale_nan(specimen: Specimen) -> Specimen | None:
    """One scale in the middle is NaN."""
    if specimen.coded is None:
        return None
    scale = specimen.coded.scale.copy()
    scale.reshape(-1)[scale.size // 2] = np.nan
    return specimen.with_codes(replace(specimen.coded, scale=scale))


def _middling(specimen: Specimen) -> Array:
    """Rows from that of median energy on, by energy."""
    values = specimen.restore()
    order = np.argsort(np.einsum("rc,rc->r", values, values, dtype=np.float64), kind="stable")
    return np.roll(order, -((len(order) - 1) // 2))
