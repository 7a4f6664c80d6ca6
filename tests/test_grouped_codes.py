"""GroupedCodes against its equation, value by value."""

import numpy as np
import pytest

from pytest_arrowquant.checkpoints.grouped_codes import GroupedCodes

ROWS, COLUMNS, GROUP = 4, 22, 8  # a ragged last group, and nibbles that end within a word
RNG = np.random.default_rng(7)
CODES = RNG.integers(0, 16, (ROWS, COLUMNS), dtype=np.uint8)
ORDER = RNG.integers(0, 3, COLUMNS).astype(np.int32)
BY_COLUMN = RNG.uniform(0.5, 2, COLUMNS).astype(np.float32)
TABLE = tuple(RNG.normal(size=16).astype(np.float32).tolist())


def parameters(rows: int) -> list[np.ndarray]:
    return [RNG.normal(size=(rows, 3)).astype(np.float32) for _ in range(3)]


def nibbles(codes: np.ndarray) -> np.ndarray:
    """Two codes a byte, the first in the low bits."""
    return codes[:, ::2] | codes[:, 1::2] << 4


def by_hand(grouped: GroupedCodes, row: int, column: int) -> np.float32:
    code = CODES[row, column]
    value = np.float32(grouped.table[code] if grouped.table else code)
    group = grouped.order[column] if grouped.order.size else column // GROUP
    where = row // grouped.rows_a_scale, group
    zero = grouped.zero[where] if grouped.zero.size else np.float32(0)
    minimum = grouped.minimum[where] if grouped.minimum.size else np.float32(0)
    restored = (value - zero) * grouped.scale[where] + minimum
    return restored * grouped.by_column[column] if grouped.by_column.size else restored


@pytest.mark.parametrize("by_column", [False, True], ids=["", "by column"])
@pytest.mark.parametrize("order", [False, True], ids=["", "order"])
@pytest.mark.parametrize("rows_a_scale", [1, 2, 4])
@pytest.mark.parametrize("kind", ["scale", "zero", "minimum", "table"])
def test_values_are_those_of_the_equation(kind, rows_a_scale, order, by_column):
    scale, zero, minimum = parameters(ROWS // rows_a_scale)
    given = {"zero": {"zero": zero}, "minimum": {"zero": zero, "minimum": minimum}}.get(kind, {})
    given |= {"table": TABLE} if kind == "table" else {}
    given |= {"order": ORDER} if order else {}
    given |= {"by_column": BY_COLUMN} if by_column else {}
    grouped = GroupedCodes(nibbles(CODES), COLUMNS, 4, scale, GROUP, rows_a_scale, **given)
    wanted = np.array(
        [[by_hand(grouped, row, column) for column in range(COLUMNS)] for row in range(ROWS)]
    )
    for start, stop in ((0, 4), (1, 3), (3, 4), (2, 2)):
        restored = grouped.read(start, stop).restore()
        assert restored.shape == (stop - start, COLUMNS)
        np.testing.assert_allclose(restored, wanted[start:stop], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_an_offset_makes_signed_codes_count_from_zero(bits):
    signed = RNG.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (ROWS, COLUMNS)).astype(np.int8)
    stored = signed.view(np.uint8) if bits == 8 else nibbles(signed.view(np.uint8) & 15)
    scale = np.ones((ROWS, 3), np.float32)
    grouped = GroupedCodes(stored, COLUMNS, bits, scale, GROUP, offset=2 ** (bits - 1))
    values = grouped.read(0, ROWS).values.astype(np.int16)
    assert np.array_equal(values, signed + np.int16(2 ** (bits - 1)))
