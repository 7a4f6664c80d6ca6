"""Metrics against their definitions in extended precision, and the cases without one."""

from math import inf

import ml_dtypes
import numpy as np
import pytest

from pytest_arrowquant import TensorError, measure
from pytest_arrowquant.metrics import Sums, deviation
from pytest_arrowquant.quantizers import Rtn
from pytest_arrowquant.row_blocks import BLOCK

RNG = np.random.default_rng(7)
W = (RNG.standard_t(5, (48, 200)) * 0.02).astype(np.float32)
R = (W + 0.003 * RNG.standard_normal(W.shape)).astype(np.float32)


def exactly(w, r):
    """The definitions, in the longest float there is."""
    w, r = w.astype(np.longdouble), r.astype(np.longdouble)
    rows_w, rows_r = w.reshape(len(w), -1), r.reshape(len(r), -1)
    row_cosines = (rows_w * rows_r).sum(1) / np.sqrt((rows_w**2).sum(1) * (rows_r**2).sum(1))
    row_noise = ((rows_w - rows_r) ** 2).sum(1)
    error = (w - r).reshape(-1)
    blocks = [error[i : i + BLOCK] for i in range(0, error.size, BLOCK)]
    of_means = sum(block.size * block.mean() ** 2 for block in blocks)
    return {
        "cosine": (w * r).sum() / np.sqrt((w**2).sum() * (r**2).sum()),
        "row_cosine_min": row_cosines.min(),
        "sqnr_db": 10 * np.log10((w**2).sum() / (error**2).sum()),
        "row_sqnr_db_min": (10 * np.log10((rows_w**2).sum(1) / row_noise)).min(),
        "norm_ratio": np.sqrt((r**2).sum() / (w**2).sum()),
        "gain": (w * r).sum() / (r**2).sum(),
        "bias": max(abs(error.mean()) / np.sqrt((error**2).mean()),
                    np.sqrt(of_means / (error**2).sum())),
        "max_abs_error": np.abs(error).max(),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(48, 200), (48, 8, 25), (9600,), (3, 3200)])
def test_metrics_are_their_definitions(dtype, shape):
    w, r = W.astype(dtype).reshape(shape), R.reshape(shape)
    rows = (1, -1) if len(shape) == 1 else (shape[0], -1)
    expected = exactly(w.astype(np.float64).reshape(rows), r.astype(np.float64).reshape(rows))
    metrics = measure(w, r)
    for name, value in expected.items():
        assert getattr(metrics, name) == pytest.approx(float(value), rel=1e-12, abs=1e-15), name
    assert metrics.original_bytes == w.nbytes


def test_bytes_give_bits_ratio_and_gap():
    metrics = measure(W, R, nbytes=6000)
    assert metrics.bits_per_weight == 6000 * 8 / W.size
    assert metrics.compression_ratio == W.nbytes / 6000
    assert metrics.shannon_gap_db == pytest.approx(20 * np.log10(2) * 5 - metrics.sqnr_db)
    plain = measure(W, R)
    assert plain.bits_per_weight is plain.compression_ratio is plain.shannon_gap_db is None


def test_a_quantized_tensor_brings_its_values_and_bytes():
    q = Rtn().quantize(W, 4)
    assert measure(W, q) == measure(W, q.dequantize(), nbytes=q.nbytes)
    codes = 48 * 200 // 2
    scales = 48 * 4 * 4  # 200 columns are 4 groups of 64, the last one ragged
    assert q.nbytes == codes + scales


def test_the_bound_between_sqnr_and_cosine():
    """SQNR <= -10 log10(1 - cos^2), for any pair of vectors."""
    for scale in (0.001, 0.1, 1, 30):
        metrics = measure(W, W + np.float32(scale) * R)
        assert metrics.sqnr_db <= -10 * np.log10(1 - metrics.cosine**2) + 1e-9


def test_zero_against_zero_is_perfect():
    zero = np.zeros((3, 8), np.float32)
    metrics = measure(zero, zero)
    assert (metrics.cosine, metrics.row_cosine_min, metrics.norm_ratio, metrics.gain) == (
        1,
        1,
        1,
        1,
    )
    assert (metrics.sqnr_db, metrics.row_sqnr_db_min, metrics.bias) == (inf, inf, 0)


def test_zero_against_something_is_worthless():
    zero, some = np.zeros((3, 8), np.float32), np.ones((3, 8), np.float32)
    lost = measure(some, zero)
    assert (lost.cosine, lost.row_cosine_min, lost.norm_ratio, lost.gain) == (0, 0, 0, 0)
    assert lost.sqnr_db == lost.row_sqnr_db_min == 0
    invented = measure(zero, some)
    assert (invented.cosine, invented.norm_ratio, invented.gain) == (0, inf, 0)
    assert invented.sqnr_db == invented.row_sqnr_db_min == -inf


def test_one_zero_row_must_stay_zero():
    w, r = W.copy(), R.copy()
    w[5] = r[5] = 0
    assert measure(w, r).row_sqnr_db_min > 10
    r[5, 0] = 1e-3
    assert measure(w, r).row_sqnr_db_min == -inf


def test_a_row_below_the_normal_floats_counts_as_zero():
    w, r = W.copy(), R.copy()
    w[5], r[5] = 1e-40, 0
    assert measure(w, r).row_sqnr_db_min > 10


def test_magnitudes_whose_squares_leave_float64():
    w, r = W.astype(np.float64), R.astype(np.float64)
    plain = measure(w, r)
    for factor in (2.0**600, 2.0**-600):
        scaled = measure(w * factor, r * factor)
        assert scaled.cosine == plain.cosine
        assert scaled.sqnr_db == plain.sqnr_db
        assert scaled.max_abs_error == plain.max_abs_error * factor


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0)])
def test_empty_tensors(shape):
    empty = np.zeros(shape, np.float32)
    metrics = measure(empty, empty, nbytes=0)
    assert (metrics.cosine, metrics.sqnr_db, metrics.bits_per_weight) == (1, inf, None)


def test_one_element():
    metrics = measure(np.float32([2]), np.float32([1]))
    assert (metrics.cosine, metrics.gain, metrics.max_abs_error) == (1, 2, 1)


def test_sums_merge():
    """Row blocks of a multiple of the bias block add up to the whole."""
    whole = deviation(W, R).sums
    parts = [deviation(W[i : i + 16], R[i : i + 16]).sums for i in (0, 16, 32)]
    merged = sum(parts, Sums())
    for name in Sums.__dataclass_fields__:
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-12, abs=1e-18)


def test_shapes_and_non_finite_values_are_named():
    with pytest.raises(TensorError, match=r"restored has shape \(3,\), the reference \(2,\)"):
        measure(np.ones(2), np.ones(3))
    with pytest.raises(TensorError, match=r"reference has nan at index \(1, 2\); every value must"):
        measure(np.float32([[1, 2, 3], [4, 5, np.nan]]), np.ones((2, 3)))
    with pytest.raises(TensorError, match=r"restored has -inf at index \(0,\)"):
        measure(np.ones(2), [-np.inf, 1.0])
