"""Slow, obvious twins of the kernels: the formulas, a group at a time, in float32.

x is (rows, columns) float32; its groups have parameters p, float32 (rows, groups, 3): scale, zero
point, minimum, also where these are only implied. Codes are uint8 of the shape of x until packed.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from pytest_arrowquant.scheme import rows_and_columns

Array = np.ndarray[Any, Any]
F = np.float32

TINY = F(2.0**-126)  # a smaller scale has no finite inverse
MOST = np.finfo(F).max * F(1 - 2.0**-10)  # ranges end here, so that no product overflows
FIXED_POINT = 2**16  # the search counts places on the grid in these fractions
SEARCHED = (2.0**-100, 2.0**100)  # the search leaves other scales alone
REFITS = 6


def rows_of(x: Array) -> Array:
    """The array as rows of its first axis; a vector is one row."""
    return x.reshape(rows_and_columns(x.shape))


def assert_same_bits(got: Array, want: Array, what: object) -> None:
    """Equal dtype, shape and bits: 0.0 is not -0.0."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    np.testing.assert_array_equal(
        got.view(f"u{got.itemsize}"), want.view(f"u{want.itemsize}"), str(what)
    )


def cut(rows: int, columns: int, group_size: int | str) -> list[list[tuple[slice, slice]]]:
    """The groups of an array, row by row; per tensor there is one for all."""
    if group_size == "tensor":
        return [[(slice(0, rows), slice(0, columns))][: min(columns, 1)]][: min(rows, 1)]
    size = max(columns, 1) if group_size == "channel" else int(group_size)
    return [
        [(slice(r, r + 1), slice(c, min(c + size, columns))) for c in range(0, columns, size)]
        for r in range(rows)
    ]


def lowest_code(bits: int, zero: str) -> int:
    """Symmetric codes of 4 and 8 bits are +-(2^(bits - 1) - 1) about the middle."""
    return 1 if zero == "none" and bits > 2 else 0


def nearest_parameters(values: Array, bits: int, zero: str) -> tuple[F, F, F]:
    """(scale, zero point, minimum) that the range of one group asks for."""
    low = F(min(values.tolist(), key=lambda v: (v, math.copysign(1, v))))  # -0.0 is below 0.0
    high = F(max(values.tolist()))
    middle = 2 ** (bits - 1)
    if zero == "none":
        magnitude = min(max(abs(low), abs(high)), MOST)
        if bits > 2:
            return max(magnitude / F(middle - 1), TINY), F(middle), F(0)
        scale = max(magnitude / F(middle), TINY)  # -2 meets the negative one of two extremes
        return (scale if -low >= magnitude else -scale), F(middle), F(0)
    if zero == "integer":
        low, high = min(low, F(0)), max(high, F(0))
    low, high = max(low, -MOST), min(high, MOST)
    with np.errstate(over="ignore"):
        if high - low == np.inf:
            low, high = max(low, -MOST / F(2)), min(high, MOST / F(2))
    scale = max((high - low) / F(2**bits - 1), TINY)
    if zero == "float":
        return scale, F(0), low
    return scale, min(np.rint(-low * (F(1) / scale)), F(2**bits - 1)), F(0)


def codes_of(values: Array, bits: int, zero: str, scale: F, zero_point: F, minimum: F) -> Array:
    """clip(rint((x - minimum) * (1 / scale)) + zero_point) as uint8."""
    with np.errstate(over="ignore"):
        places = (values - minimum) * (F(1) / scale)
    return np.clip(np.rint(places) + zero_point, lowest_code(bits, zero), 2**bits - 1).astype("u1")


def values_of(codes: Array, scale: F, zero_point: F, minimum: F) -> Array:
    """(u - zero_point) * scale + minimum."""
    with np.errstate(over="ignore"):
        return (codes.astype(F) - zero_point) * scale + minimum


def parameters(x: Array, bits: int, zero: str, group_size: int | str) -> Array:
    """Round-to-nearest's parameters of every group."""
    rows, columns = x.shape
    groups = cut(rows, columns, group_size)
    found = [[nearest_parameters(x[at].reshape(-1), bits, zero) for at in row] for row in groups]
    whole = isinstance(group_size, str)
    a_row = min(columns, 1) if whole else math.ceil(columns / group_size)
    return np.array(found, F).reshape(len(groups), a_row, 3)


def stored(p: Array, zero: str) -> tuple[Array, Array, Array]:
    """(scale, zero point as uint8, minimum), the last two empty where they are only implied."""
    nothing = np.empty((0, 0))
    return (
        p[..., 0].copy(),
        (p[..., 1] if zero == "integer" else nothing).astype(np.uint8),
        (p[..., 2] if zero == "float" else nothing).astype(F),
    )


def encode(x: Array, bits: int, zero: str, group_size: int | str, p: Array) -> Array:
    """The codes of x under given parameters."""
    codes = np.zeros(x.shape, np.uint8)
    for row, parameters_row in zip(cut(*x.shape, group_size), p, strict=True):
        for at, group in zip(row, parameters_row, strict=True):
            codes[at] = codes_of(x[at], bits, zero, *group)
    return codes


def decode(codes: Array, group_size: int | str, p: Array) -> Array:
    """The values of codes."""
    values = np.zeros(codes.shape, F)
    for row, parameters_row in zip(cut(*codes.shape, group_size), p, strict=True):
        for at, group in zip(row, parameters_row, strict=True):
            values[at] = values_of(codes[at], *group)
    return values


def pack(codes: Array, bits: int) -> Array:
    """Each row of codes as one long binary number, whose lowest bits are the first code."""
    length = math.ceil(codes.shape[1] * bits / 8)
    packed = np.zeros((codes.shape[0], length), np.uint8)
    for r, row in enumerate(codes.tolist()):
        number = sum(code << (bits * i) for i, code in enumerate(row))
        packed[r] = list(number.to_bytes(length, "little"))
    return packed


def unpack(packed: Array, bits: int, columns: int) -> Array:
    """The first `columns` codes of each row of bytes."""
    codes = np.zeros((packed.shape[0], columns), np.uint8)
    for r, row in enumerate(packed):
        number = int.from_bytes(row.tobytes(), "little")
        codes[r] = [number >> (bits * i) & (2**bits - 1) for i in range(columns)]
    return codes


def deviations(reference: Array, restored: Array) -> Array:
    """(rows, 4): energies of the reference, the restored values and the error; largest error."""
    sums = np.zeros((reference.shape[0], 4))
    for r, (row, back) in enumerate(zip(reference.tolist(), restored.tolist(), strict=True)):
        errors = [w - v for w, v in zip(row, back, strict=True)]
        sums[r, :3] = [math.fsum(v * v for v in values) for values in (row, back, errors)]
        sums[r, 3] = max((abs(e) for e in errors), default=0.0)
    return sums


# The search for the scale, and float minimum, of least squared error.


class Line(NamedTuple):
    """A least-squares line of places on levels, and the sum of squares that it explains."""

    explained: float
    step: float
    offset: float


def line(levels: list[int], places: list[int], centred: bool) -> Line | None:
    """Least squares of the places, in fixed point, on the levels; None where it has no slope."""
    n, total, places_total = len(levels), sum(levels), sum(places)
    covariance = float(sum(a * b for a, b in zip(levels, places, strict=True)))
    variance = float(sum(a * a for a in levels))
    if centred:
        covariance -= float(total) * float(places_total) / n
        variance -= float(total) * float(total) / n
    if variance <= 0:
        return None
    step = covariance / variance
    offset = (places_total - step * total) / n if centred else 0.0
    return Line(covariance * step, step / FIXED_POINT, offset / FIXED_POINT)


def candidates(shrinks: Array, both_signs: bool, high: F, centred: bool) -> list[tuple[F, F]]:
    """(step, offset) tried: a shrunk grid at the lower end, the middle and the upper end."""
    steps = [*shrinks, *(-shrinks if both_signs else ())]
    rooms = [(F(1) - step) * high if centred else F(0) for step in steps]
    ends = [[F(0), room * F(0.5), room] if room > 0 else [F(0)] for room in rooms]
    return [(step, offset) for step, offsets in zip(steps, ends, strict=True) for offset in offsets]


def best_line(y: Array, tried: list[tuple[F, F]], low: F, high: F, centred: bool) -> Line:
    """The line that explains most of y after refits, which stop where they gain nothing."""
    places = [int(np.rint(v * F(FIXED_POINT))) for v in y]

    def fit(step: F, offset: F) -> Line | None:
        levels = np.clip(np.rint((y - offset) * (F(1) / step)), low, high)
        return line([int(level) for level in levels], places, centred)

    lines = [found for found in (fit(*candidate) for candidate in tried) if found]
    best = max(lines, key=lambda found: found.explained, default=Line(-1, 1, 0))
    for _ in range(REFITS):
        again = fit(F(best.step), F(best.offset)) if best.step else None
        if again is None or again.explained <= best.explained:
            break
        best = again
    return best


def squared_error(values: Array, bits: int, zero: str, s: F, z: F, m: F) -> float:
    """The squared error of one group after encode and decode."""
    restored = values_of(codes_of(values, bits, zero, s, z, m), s, z, m)
    total = 0.0
    for w, v in zip(values.tolist(), restored.tolist(), strict=True):
        total += (w - v) * (w - v)
    return total


def refine_group(values: Array, bits: int, zero: str, shrinks: Array, s: F, z: F, m: F) -> Any:
    """(scale, zero point, minimum) of less squared error, or the same ones."""
    if not SEARCHED[0] < abs(s) < SEARCHED[1]:
        return s, z, m
    low, high, centred = F(lowest_code(bits, zero)) - z, F(2**bits - 1) - z, zero == "float"
    tried = candidates(shrinks, zero == "none" and bits == 2, high, centred)
    best = best_line((values - m) * (F(1) / s), tried, low, high, centred)
    new_s = F(best.step * float(s))
    new_m = F(float(m) + best.offset * float(s)) if centred else m
    if not SEARCHED[0] < abs(new_s) < SEARCHED[1]:
        return s, z, m
    tries = [(s, z, m), (new_s, z, new_m)]
    return min(tries, key=lambda decoding: squared_error(values, bits, zero, *decoding))


def refine(
    x: Array, bits: int, zero: str, group_size: int | str, p: Array, shrinks: Array
) -> Array:
    """What the search makes of the parameters p of every group."""
    refined = p.copy()
    for i, row in enumerate(cut(*x.shape, group_size)):
        for j, at in enumerate(row):
            refined[i, j] = refine_group(x[at].reshape(-1), bits, zero, shrinks, *p[i, j])
    return refined


# What the guards look at.


def blocks(w: list[float], v: list[float], size: int) -> tuple[float, float, float]:
    """(sum of errors, energy of their block means, energy of w about its block means)."""
    errors, of_means, detail = [], [], []
    for start in range(0, len(w), size):
        block, back = w[start : start + size], v[start : start + size]
        n, mean = len(block), math.fsum(block) / len(block)
        error = math.fsum(a - b for a, b in zip(block, back, strict=True))
        errors.append(error)
        of_means.append(n * (error / n) ** 2)
        detail.append(math.fsum((a - mean) ** 2 for a in block))
    return math.fsum(errors), math.fsum(of_means), math.fsum(detail)


def worst_order(w: Array, v: Array, columns: int, size: int, least: int) -> tuple[float, int]:
    """(largest share of a run's large steps that are taken the other way, where it starts)."""
    worst, at = 0.0, 0
    for start in range(0, len(w), size):
        run = [float(a) for a in w[start : start + size]]
        back = [float(a) for a in v[start : start + size]]
        large = math.fsum(abs(a) for a in run) / len(run)
        steps = [
            (run[i] - run[i - 1], back[i] - back[i - 1])
            for i in range(1, len(run))
            if (start + i) % columns and abs(run[i] - run[i - 1]) > large
        ]
        inverted = [a for a, b in steps if a > 0 > b or a < 0 < b]
        if len(steps) >= least and len(inverted) / len(steps) > worst:
            worst, at = len(inverted) / len(steps), start
    return worst, at


def column_energies(w: Array, v: Array) -> tuple[Array, Array]:
    """(sum of squares of each column, how many restored values of it are not 0)."""
    energy = [math.fsum(a * a for a in column) for column in w.T.astype(float).tolist()]
    alive = [sum(a != 0 for a in column) for column in v.T.tolist()]
    return np.array(energy, float), np.array(alive, np.int64)


def most_levels(v: Array, size: int, limit: int) -> tuple[int, int, int]:
    """(most distinct values in a group, capped one above the limit; its row; its group)."""
    counts = [
        (min(len(set(v[at].reshape(-1).tolist())), limit + 1), r, j)
        for r, row in enumerate(cut(*v.shape, size))
        for j, at in enumerate(row)
    ]
    return max(counts, key=lambda count: count[0], default=(0, 0, 0))
