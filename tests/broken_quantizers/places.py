"""Codes, groups, rows and columns in the wrong place, or lost."""

import numpy as np

from .honest import Array, Honest, HonestSymmetric, variant


def _up_to(columns: int, values: Array) -> Array:
    """The values with zeros from a column on."""
    return np.where(np.arange(values.shape[1]) < columns, values, 0)


PACKING = (
    variant(
        "nibbles swapped",
        "error_bounded order",
        unpack=lambda self, packed, bits: Honest.unpack(self, packed << 4 | packed >> 4, bits),
    ),
    variant(
        "high bits first",
        "error_bounded",
        bits=(2,),
        unpack=lambda self, packed, bits: (
            Honest.unpack(self, packed, bits).reshape(*packed.shape, 4)[..., ::-1]
        ).reshape(len(packed), -1),
    ),
    variant(
        "last code of an odd row lost",
        "ragged_sizes error_bounded",
        codes_back=lambda self, codes, stored: np.hstack(
            [codes[:, :-1], codes[:, -1:] * (codes.shape[1] % 2 == 0)]
        ),
    ),
    variant(
        "rows packed end to end and read from whole bytes",
        "rows_independent ragged_sizes",
        pack=lambda self, codes, bits: np.resize(
            Honest.pack(self, codes.reshape(1, -1), bits),
            (len(codes), -(-codes.shape[1] * bits // 8)),
        ),
    ),
    variant(
        "codes of the next row",
        "rows_independent",
        codes_back=lambda self, codes, stored: np.roll(codes, -1, 0),
    ),
    variant(
        "codes one place too far",
        "error_bounded order",
        codes_back=lambda self, codes, stored: np.roll(codes, 1, 1),
    ),
    variant(
        "codes interleaved and not put back",
        "error_bounded order",
        codes_back=lambda self, codes, stored: np.hstack([codes[:, ::2], codes[:, 1::2]]),
    ),
    variant(
        "signed codes read as unsigned",
        "error_bounded cosine",
        base=HonestSymmetric,
        codes_back=lambda self, codes, stored: codes ^ 8,
    ),
    variant(
        "groups of a row in reverse order",
        "groups_independent",
        codes_back=lambda self, codes, stored: (
            self.grouped(codes)[:, ::-1].reshape(codes.shape) if codes.shape[1] % 32 == 0 else codes
        ),
    ),
)

RAGGED = (
    variant(
        "last group dropped",
        "ragged_sizes dead_columns floor error_bounded",
        values_back=lambda self, values, stored: _up_to(
            max(32, (stored.columns - 1) // 32 * 32), values
        ),
    ),
    variant(
        "ragged tail zero",
        "ragged_sizes error_bounded",
        values_back=lambda self, values, stored: _up_to(max(32, stored.columns // 32 * 32), values),
    ),
    variant(
        "ragged tail with the scale of the group before",
        "ragged_sizes groups_independent",
        scale_back=lambda self, stored: (
            np.hstack([stored.scale[:, :-1], stored.scale[:, -2:-1]])
            if stored.columns > 32 and stored.columns % 32
            else stored.scale
        ),
    ),
    variant(
        "ragged tail filled up with ones",
        "ragged_sizes constant_rows error_bounded",
        grouped=lambda self, rows: np.pad(
            rows, ((0, 0), (0, -rows.shape[1] % 32)), constant_values=1
        ).reshape(len(rows), -1, 32),
    ),
    variant(
        "groups that straddle rows",
        "rows_independent",
        base=HonestSymmetric,
        read=lambda self, weight: np.array(weight, np.float64, order="C").reshape(1, -1),
    ),
    variant(
        "columns beyond a multiple of 4 left out",
        "ragged_sizes error_bounded",
        values_back=lambda self, values, stored: _up_to(stored.columns // 4 * 4, values),
    ),
    variant(
        "rows beyond a multiple of 4 left out",
        "rows_independent row_sqnr_db error_bounded",
        values_back=lambda self, values, stored: _up_to(len(values) // 4 * 4, values.T).T,
    ),
)

PLACES = (
    variant(
        "sign lost in odd rows",
        "rows_independent row_sqnr_db error_bounded",
        values_back=lambda self, values, stored: np.where(
            np.arange(len(values))[:, None] % 2, np.abs(values), values
        ),
    ),
    variant(
        "first two rows swapped",
        "rows_independent row_sqnr_db",
        values_back=lambda self, values, stored: np.vstack([values[:2][::-1], values[2:]]),
    ),
    variant(
        "rows in reverse order",
        "rows_independent",
        values_back=lambda self, values, stored: values[::-1],
    ),
    variant(
        "transposed where square",
        "order",
        values_back=lambda self, values, stored: (
            values.T if values.shape[0] == values.shape[1] else values
        ),
    ),
    variant(
        "outlier column dropped",
        "dead_columns error_bounded",
        values_back=lambda self, values, stored: np.where(
            np.arange(stored.columns) == np.argmax(np.square(values).sum(0)), 0, values
        ),
    ),
    variant(
        "mean of the tensor added",
        "rows_independent zero_rows bias",
        values_back=lambda self, values, stored: values + np.abs(values).mean() / 4,
    ),
    variant(
        "row index in a byte",
        "row_sqnr_db",
        values_back=lambda self, values, stored: values[np.arange(len(values)) % 256],
    ),
)
