"""Known ways to break a restored tensor: what the guards must see."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pytest_arrowquant.arrays import Array
from pytest_arrowquant.scheme import Scheme
from pytest_arrowquant.tensor import QuantizedTensor, quantize

Fault = Callable[[Array, QuantizedTensor], Array]


def _rows(q: QuantizedTensor) -> Array:
    return q.dequantize().reshape(q.layout.rows, q.layout.columns)


def scaled(factor: float) -> Fault:
    return lambda w, q: q.dequantize() * np.float32(factor)


def _with_row(row: int, factor: float) -> Fault:
    def fault(w: Array, q: QuantizedTensor) -> Array:
        rows = _rows(q)
        rows[row] *= factor
        return rows.reshape(q.shape)

    return fault


def rows_swapped(w: Array, q: QuantizedTensor) -> Array:
    rows = _rows(q)
    rows[[3, 7]] = rows[[7, 3]]
    return rows.reshape(q.shape)


def zero_point_off(by: int) -> Fault:
    """Every code decoded one too high or too low: (u + by - z) * scale."""

    def fault(w: Array, q: QuantizedTensor) -> Array:
        steps = np.repeat(q.decoding.arrays(q.layout)[0], q.layout.group_size, axis=1)
        rows = _rows(q)
        return (rows + by * steps[:, : rows.shape[1]]).reshape(q.shape)

    return fault


def nibbles_swapped(w: Array, q: QuantizedTensor) -> Array:
    codes = (q.codes << 4) | (q.codes >> 4)
    return replace(q, codes=codes.astype(np.uint8)).dequantize()


def outlier_column_zeroed(w: Array, q: QuantizedTensor) -> Array:
    restored = q.dequantize()
    channels = (w.astype(np.float64) ** 2).sum(axis=(0, *range(2, w.ndim)))
    restored[:, int(np.argmax(channels))] = 0
    return restored


def one_nan(w: Array, q: QuantizedTensor) -> Array:
    restored = q.dequantize()
    restored.reshape(-1)[restored.size // 2] = np.nan
    return restored


def groups_swapped(w: Array, q: QuantizedTensor) -> Array:
    """The first two groups of one row changed places."""
    rows, size = _rows(q), q.layout.group_size
    rows[5, : 2 * size] = np.roll(rows[5, : 2 * size], size)
    return rows.reshape(q.shape)


def scales_of_next_row(w: Array, q: QuantizedTensor) -> Array:
    decoding = replace(q.decoding, scale=np.roll(q.decoding.scale, 1, axis=0))
    return replace(q, decoding=decoding).dequantize()


def last_group_dropped(w: Array, q: QuantizedTensor) -> Array:
    rows = _rows(q)
    rows[:, (q.layout.groups - 1) * q.layout.group_size :] = 0
    return rows.reshape(q.shape)


def codes_shifted(w: Array, q: QuantizedTensor) -> Array:
    """Every row reads the codes one place too far."""
    return np.roll(_rows(q), 1, axis=1).reshape(q.shape)


FAULTS: dict[str, Fault] = {
    "scales x2": scaled(2),
    "scales x1.5": scaled(1.5),
    "scales x1.25": scaled(1.25),
    "scales x0.5": scaled(0.5),
    "row zeroed": _with_row(3, 0),
    "row sign flipped": _with_row(3, -1),
    "row doubled": _with_row(3, 2),
    "two rows swapped": rows_swapped,
    "zero point +1": zero_point_off(1),
    "zero point -1": zero_point_off(-1),
    "nibbles swapped": nibbles_swapped,
    "outlier column zeroed": outlier_column_zeroed,
    "two groups swapped": groups_swapped,
    "scales of the next row": scales_of_next_row,
    "last group dropped": last_group_dropped,
    "codes shifted by one": codes_shifted,
    "one NaN": one_nan,
}


def int8_as_int2(w: Array) -> Array:
    """256 levels: what an INT2 that is only a label restores."""
    return quantize(w, Scheme(8)).dequantize()
