"""Wrong scales: too large, of something else, or no number at all."""

import numpy as np

from .honest import TINY, Honest, HonestSymmetric, variant

SCALES = (
    variant(
        "scale of the next group",
        "groups_independent",
        scale_back=lambda self, stored: np.roll(stored.scale, -1, 1),
    ),
    variant(
        "scale of the row before",
        "rows_independent",
        scale_back=lambda self, stored: np.roll(stored.scale, 1, 0),
    ),
    variant(
        "scale of the first group for the row",
        "groups_independent",
        scale_back=lambda self, stored: stored.scale[:, :1],
    ),
    variant(
        "scale of the first row for all",
        "rows_independent",
        scale_back=lambda self, stored: stored.scale[:1],
    ),
    variant(
        "scale of the tensor passed off as that of a group",
        "rows_independent groups_independent",
        base=HonestSymmetric,
        range_of=lambda self, groups: (
            np.full(groups.shape[:2], groups.min()),
            np.full(groups.shape[:2], groups.max()),
        ),
    ),
    variant(
        "scale of the row passed off as that of a group",
        "groups_independent",
        base=HonestSymmetric,
        range_of=lambda self, groups: (
            np.repeat(groups.min((1, 2))[:, None], groups.shape[1], 1),
            np.repeat(groups.max((1, 2))[:, None], groups.shape[1], 1),
        ),
    ),
    variant(
        "scale clipped at twice the mean of those of the tensor",
        "rows_independent groups_independent",
        base=HonestSymmetric,
        exact_scale=lambda self, low, high, bits: (
            np.minimum(most := np.maximum(-low, high), 2 * most.mean()) / 7
        ),
    ),
    variant(
        "scale from the mean instead of the maximum",
        "constant_rows error_bounded",
        base=HonestSymmetric,
        range_of=lambda self, groups: (-2.5 * np.abs(groups).mean(2), 2.5 * np.abs(groups).mean(2)),
    ),
    variant(
        "scale from the maximum without its absolute value",
        "error_bounded constant_rows",
        base=HonestSymmetric,
        range_of=lambda self, groups: (-np.maximum(groups.max(2), 0), np.maximum(groups.max(2), 0)),
    ),
    variant(
        "scale 5 % too large",
        "gain",
        scale_back=lambda self, stored: stored.scale * np.float32(1.05),
    ),
    variant(
        "scale 1 % too large",
        "gain constant_rows",
        bits=(8,),
        scale_back=lambda self, stored: stored.scale * np.float32(1.01),
    ),
    variant(
        "scale doubled", "gain constant_rows", scale_back=lambda self, stored: stored.scale * 2
    ),
    variant("scale halved", "gain constant_rows", scale_back=lambda self, stored: stored.scale / 2),
    variant(
        "scale drawn at random, 5 % about its value",
        "deterministic",
        scale_back=lambda self, stored: (
            stored.scale * np.random.default_rng().uniform(0.95, 1.05, stored.scale.shape)
        ),
    ),
    variant(
        "scale in float16, which overflows",
        "finite",
        scale_back=lambda self, stored: stored.scale.astype(np.float16).astype(np.float32),
    ),
    variant(
        "scale in float16, cut off at its largest",
        "constant_rows error_bounded",
        scale_back=lambda self, stored: np.minimum(stored.scale, 65504),
    ),
    variant(
        "scale in float16, which vanishes",
        "constant_rows error_bounded",
        scale_of=lambda self, low, high, bits: np.where(
            (exact := self.exact_scale(low, high, bits)) < 1, exact.astype(np.float16), exact
        ).astype(np.float32),
    ),
    variant(
        "scale not below 1e-5",
        "constant_rows error_bounded",
        scale_of=lambda self, low, high, bits: np.maximum(
            Honest.scale_of(self, low, high, bits), np.float32(1e-5)
        ),
    ),
    variant(
        "NaN for a group of zeros",
        "finite zero_rows",
        codes_of=lambda self, groups, scale, zero, bits: Honest.codes_of(
            self, groups, np.where(scale == TINY, 1, scale), zero, bits
        ),
        scale_back=lambda self, stored: np.where(stored.scale == TINY, np.nan, stored.scale),
    ),
    variant(
        "NaN for a constant row",
        "finite constant_rows",
        values_back=lambda self, values, stored: (
            values * (spread := np.ptp(values, axis=1, keepdims=True)) / spread
        ),
    ),
    variant(
        "a scale without a finite inverse",
        "finite",
        scale_of=lambda self, low, high, bits: np.where(
            (scale := self.exact_scale(low, high, bits).astype(np.float32)) == 0, TINY, scale
        ),
        scale_back=lambda self, stored: (
            stored.scale * (np.float32(2) - stored.scale * (np.float32(1) / stored.scale))
        ),
    ),
    variant(
        "a range that overflows in float32",
        "finite",
        exact_scale=lambda self, low, high, bits: (
            (high.astype(np.float32) - low.astype(np.float32)) / np.float32(2**bits - 1)
        ),
    ),
)
