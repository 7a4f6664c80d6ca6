"""Wrong rounding, clipping and zero points."""

import numpy as np

from .honest import Array, Honest, HonestSymmetric, variant


def _wrapped(self: Honest, places: Array, bits: int) -> Array:
    """The lowest bits alone."""
    return (places.astype(np.int64) & (2**bits - 1)).astype(np.uint8)


def _from_the_lowest(self: Honest, groups: Array, scale: Array, zero: Array, bits: int) -> Array:
    """Codes that count from the least weight of a group, whatever its zero point."""
    low, _ = self.range_of(groups)
    return self.clipped(np.rint((groups - low[..., None]) / scale[..., None]), bits)


def dithered(self: Honest, places: Array) -> Array:
    """A fifth of a step up and down along the row, before rounding."""
    return np.rint(places + np.resize([0.2, -0.2], places.shape[-1]))


ROUNDING = (
    variant("rounds towards zero", "floor gain", rounded=lambda self, places: np.trunc(places)),
    variant("rounds down", "floor bias", rounded=lambda self, places: np.floor(places)),
    variant("rounds up", "floor bias", rounded=lambda self, places: np.ceil(places)),
    variant(
        "adds a half and cuts off, below zero too",
        "floor gain",
        base=HonestSymmetric,
        rounded=lambda self, places: np.trunc(places + 0.5),
    ),
    variant("uses every other code", "floor", rounded=lambda self, places: 2 * np.rint(places / 2)),
    variant("dithers along the row", "rounding", rounded=dithered),
    variant(
        "dithers without a seed",
        "deterministic",
        rounded=lambda self, places: np.rint(places + np.random.default_rng().uniform(-0.4, 0.4)),
    ),
    variant(
        "clips one code short",
        "constant_rows",
        clipped=lambda self, places, bits: np.clip(places, 0, 2**bits - 2).astype(np.uint8),
    ),
    variant(
        "does not clip, so that codes wrap",
        "constant_rows",
        clipped=_wrapped,
    ),
    variant(
        "has one code too many, which wraps",
        "constant_rows error_bounded floor",
        base=HonestSymmetric,
        bits=(4, 8),
        exact_scale=lambda self, low, high, bits: np.maximum(-low, high) / 2 ** (bits - 1),
        clipped=_wrapped,
    ),
    variant(
        "loses negative codes",
        "error_bounded cosine",
        base=HonestSymmetric,
        clipped=lambda self, places, bits: np.clip(places, 8, 15).astype(np.uint8),
    ),
)

ZERO_POINTS = (
    variant(
        "zero point one too high",
        "zero_rows bias",
        bits=(2, 4, 8),
        zero_back=lambda self, stored: stored.zero + 1.0,
    ),
    variant(
        "zero point one too low",
        "zero_rows bias",
        bits=(2, 4, 8),
        zero_back=lambda self, stored: stored.zero - 1.0,
    ),
    variant(
        "middle code one too low",
        "zero_rows bias",
        base=HonestSymmetric,
        zero_back=lambda self, stored: stored.zero - 1,
    ),
    variant(
        "zero point rounded after the codes are made",
        "rounding",
        codes_of=_from_the_lowest,
    ),
    variant(
        "zero point cut off after the codes are made",
        "bias",
        codes_of=_from_the_lowest,
        zero_of=lambda self, low, scale, bits: (-low / scale).astype(np.uint8),
    ),
    variant(
        "zero point read as signed",
        "error_bounded",
        zero_back=lambda self, stored: stored.zero - 16.0 * (stored.zero > 7),
    ),
    variant(
        "zero point of the next group",
        "groups_independent",
        zero_back=lambda self, stored: np.roll(stored.zero, -1, 1),
    ),
    variant(
        "zero point of the row before",
        "rows_independent",
        zero_back=lambda self, stored: np.roll(stored.zero, 1, 0),
    ),
    variant(
        "zero point wraps where the range leaves out 0",
        "constant_rows error_bounded",
        range_of=lambda self, groups: (groups.min(2), groups.max(2)),
        zero_of=lambda self, low, scale, bits: _wrapped(self, np.rint(-low / scale), bits),
    ),
    variant(
        "zero point clamped where the range leaves out 0",
        "constant_rows error_bounded",
        range_of=lambda self, groups: (groups.min(2), groups.max(2)),
    ),
)
