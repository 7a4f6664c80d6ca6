"""Parameters found again from codes and what they should restore, by least squares a group."""

from dataclasses import replace

import numpy as np

from .arrays import Array
from .codes import Codes

AT_A_TIME = 1 << 18  # weights


def refitted(coded: Codes, reference: Array, *, scale: bool, zero: bool) -> Codes:
    """The codes with the scales, the zero points (or minima), or both, that fit the reference best.

    reference: float32 rows. Groups lie along rows. Zero points stay whole numbers if they are.
    """
    parts = [getattr(coded, name).copy() for name in ("scale", "zero", "minimum")]
    whole_zeros = bool((coded.zero == np.rint(coded.zero)).all())
    step = max(AT_A_TIME // reference.shape[1], 1)
    for start in range(0, len(reference), step):
        rows = slice(start, start + step)
        some = [part[rows] for part in parts]
        _refit(coded.values[rows], coded, reference[rows], some, scale, zero, whole_zeros)
    return replace(coded, **dict(zip(("scale", "zero", "minimum"), parts, strict=True)))


def _refit(
    codes: Array,
    coded: Codes,
    reference: Array,
    parts: list[Array],
    scale: bool,
    zero: bool,
    whole_zeros: bool,
) -> None:
    """Of some rows; `parts` is (scale, zero, minimum), filled in place."""
    v = coded.table[codes] if coded.table.size else codes
    edges = np.arange(0, codes.shape[1], coded.group_size)
    counts = np.diff(np.append(edges, codes.shape[1]))
    v, w = v.astype(np.float64), reference.astype(np.float64)

    def sums(of: Array) -> Array:
        return np.add.reduceat(of, edges, axis=1)

    old_zero, old_minimum = (p if p.size else np.zeros_like(parts[0]) for p in parts[1:])
    found = parts[0].astype(np.float64)
    if scale and zero:
        spread = sums(v * v) - sums(v) ** 2 / counts
        common = sums(v * w) - sums(v) * sums(w) / counts
        found = np.where(spread > 0, common / np.where(spread > 0, spread, 1), found)
    elif scale:
        x = v - np.repeat(old_zero, counts, axis=1)
        energy = sums(x * x)
        common = sums(x * (w - np.repeat(old_minimum, counts, axis=1)))
        found = np.where(energy > 0, common / np.where(energy > 0, energy, 1), found)
    parts[0][...] = found
    if not zero:
        return
    offset = (sums(w) - found * sums(v)) / counts  # w is near v * scale + offset
    if parts[2].size:
        parts[2][...] = offset + old_zero * found
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = (old_minimum - offset) / found
    fitted = np.where(np.isfinite(fitted), fitted, old_zero)
    parts[1][...] = np.rint(fitted) if whole_zeros else fitted
