"""Round-to-nearest as a yardstick: against what quantizes, and against tables looked through."""

from math import inf

import ml_dtypes
import numpy as np
import pytest

import float_formats as formats
from pytest_arrowquant import quantize
from pytest_arrowquant.kernels import tables, widen
from pytest_arrowquant.metrics import deviation
from pytest_arrowquant.nearest import Nearest, NearestWeight, extents, microscaled
from pytest_arrowquant.scheme import Scheme

W = (np.random.default_rng(0).standard_t(4, (12, 96)) * 0.02).astype(np.float32)
W[3] = 0
W[4, 5] = 1


@pytest.mark.parametrize("group_size", [32, 40, "channel", "tensor"])
@pytest.mark.parametrize("zero", ["none", "integer", "float"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_are_what_quantize_restores(bits, zero, group_size):
    for weight in (W, W + np.float32(1)):
        kind = Nearest(bits, zero, group_size)
        want = quantize(weight, Scheme(bits, zero, group_size))
        np.testing.assert_array_equal(kind.restored(weight, *extents(weight)), want.dequantize())
        rows = NearestWeight(weight, kind, *extents(weight))
        np.testing.assert_array_equal(rows.restore(2, 7), want.dequantize()[2:7])
        errors = kind.errors(weight, *extents(weight))
        np.testing.assert_allclose(errors, want.compare(weight)[:, 2], rtol=1e-12, atol=1e-30)


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_any_width_has_its_levels_and_its_step(bits):
    """Uniform weights: an error of step^2 / 12 each, and all levels in use."""
    weight = np.random.default_rng(1).uniform(-1, 1, (4, 40000)).astype(np.float32)
    low, high = extents(weight)
    for zero in ("none", "integer", "float"):
        kind = Nearest(bits, zero)
        restored = kind.restored(weight, low, high)
        assert max(len(np.unique(row)) for row in restored) == 2**bits - (zero == "none")
        predicted = kind.predicted(low, high, weight.shape[1])
        np.testing.assert_allclose(kind.errors(weight, low, high), predicted, rtol=0.05)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_tables_are_looked_through(name):
    form = formats.FORMATS[name]
    low, high = extents(W)
    for group_size in ("channel", "tensor"):
        kind = Nearest(form.bits, table=form.table, group_size=group_size)
        want = formats.FloatFormat(form.bits, form.table, group_size).restored(W)
        got = kind.restored(W, low, high)
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=f"{name} {group_size}")
        squares = ((W.astype(float) - want) ** 2).sum(axis=1)
        np.testing.assert_allclose(kind.errors(W, low, high), squares, rtol=1e-4, atol=1e-20)


@pytest.mark.parametrize(("table", "bits"), [(formats.E2M1, 4), (formats.E4M3, 8)])
def test_powers_of_two_are_those_of_the_microscaling_formats(table, bits):
    kind = Nearest(bits, table=table, group_size=32, power_of_two=True)
    for w in (W, np.ascontiguousarray(W[:, :75])):  # a whole number of groups, and not
        want = formats.FloatFormat(bits, table, 32, formats.binade(table)).restored(w)
        np.testing.assert_array_equal(kind.restored(w, *extents(w)), want)
    assert microscaled(table, 32)
    assert not microscaled(table, 16)
    assert not microscaled(formats.NF4, 32)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_float_codes_are_rounded_as_their_type_is(dtype):
    """Every value between two codes, and halfway: half to even, subnormals included."""
    codes = np.arange(128, dtype=np.uint8).view(dtype).astype(np.float32)
    codes = codes[np.isfinite(codes)]
    middle = (codes[1:] + codes[:-1]) / 2
    values = np.concatenate([codes, middle, np.nextafter(middle, 0), np.nextafter(middle, inf)])
    rows = np.stack([values, -values]).astype(np.float32)
    mantissa, quantum = (3, 2.0**-9) if dtype is ml_dtypes.float8_e4m3fn else (2, 2.0**-16)
    out = np.empty_like(rows)
    one = np.ones(2, np.float32)
    tables.onto_floats(rows, one, mantissa, np.float32(quantum), codes.max(), out)
    np.testing.assert_array_equal(out, rows.astype(dtype).astype(np.float32))
    tables.onto_floats(rows * 4, one, mantissa, np.float32(quantum), codes.max(), out)
    assert abs(out).max() == codes.max()  # clipped, not wrapped


def test_every_float16_is_widened():
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(16, -1)
    out = np.empty(bits.shape, np.float32)
    widen.halves(bits, out)
    want = bits.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(out.view(np.uint32), want.view(np.uint32))


def test_the_largest_value_may_be_off_by_half_the_last_step():
    low, high = extents(W)
    of_largest = Nearest(8, table=formats.E4M3).of_largest(low, high)
    np.testing.assert_allclose(of_largest, (abs(W).max(axis=1) * 16 / 448) ** 2, rtol=1e-6)


def test_it_is_compared_block_by_block_like_any_weight():
    kind = Nearest(4, "none", "channel")
    found = deviation(W, NearestWeight(W, kind, *extents(W)))
    np.testing.assert_allclose(found.row_sums[:, 2], kind.errors(W, *extents(W)), rtol=1e-12)
