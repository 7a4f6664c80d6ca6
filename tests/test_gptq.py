"""GPTQ against theorems, and against a plain column-by-column implementation of its own paper."""

from dataclasses import dataclass

import numpy as np
import pytest

from pytest_arrowquant import quantizers
from pytest_arrowquant.arrays import Array
from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.errors import SchemeError, TensorError
from pytest_arrowquant.factor import factorize
from pytest_arrowquant.quantizers import Gptq, Mse, R2q, Rtn
from pytest_arrowquant.super_blocks import SuperBlocks
from pytest_arrowquant.tensor import QuantizedTensor, pack
from reference import lowest_code, nearest_parameters
from reference import pack as pack_slowly

GRIDS = {
    "rtn": Rtn(group_size=32),
    "rtn-integer": Rtn(group_size=32, zero="integer"),
    "rtn-channel": Rtn(group_size="channel", zero="integer"),
    "rtn-tensor": Rtn(group_size="tensor"),
    "mse": Mse(group_size=32),
    "mse-none": Mse(group_size=64, zero="none"),
    "super-blocks": Mse(32, super_blocks=SuperBlocks(6, 4)),
}


def weights(rows: int, columns: int, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed)
    return (0.02 * generator.standard_t(6, (rows, columns))).astype(np.float32)


def inputs(tokens: int, channels: int, decay: float = 1.0, outliers: float = 0.0) -> Array:
    """Inputs whose covariance has eigenvalues ~ i^-decay; some channels twenty times larger."""
    generator = np.random.default_rng(1)
    spread = np.arange(1, channels + 1) ** (-decay / 2)
    mixed = np.linalg.qr(generator.standard_normal((channels, channels)))[0]
    x = (generator.standard_normal((tokens, channels)) * spread) @ mixed
    x[:, generator.permutation(channels)[: round(outliers * channels)]] *= 20
    return x.astype(np.float32)


def hessian(channels: int, decay: float = 1.0) -> Array:
    return Calibration.of(inputs(4 * channels, channels, decay)).hessian


def unpacked(q: QuantizedTensor) -> Array:
    per_byte = 8 // q.scheme.bits
    shifts = np.arange(per_byte) * q.scheme.bits
    codes = q.codes[:, :, None] >> shifts & (2**q.scheme.bits - 1)
    return codes.reshape(len(q.codes), -1)[:, : q.layout.columns]


def quadratic(difference: Array, h: Array) -> Array:
    """(w - q) H (w - q)^T of each row."""
    return np.einsum("rc,cd,rd->r", difference, h, difference, optimize=True)


@dataclass
class Plain:
    """Frantar et al. 2022, algorithm 1, as it is written: the inverse, then its Cholesky factor."""

    bits: int
    group_size: int
    damping: float = 0.01
    act_order: bool = True

    def codes(self, w: Array, h: Array) -> Array:
        columns = w.shape[1]
        order = np.argsort(-np.diag(h), kind="stable") if self.act_order else np.arange(columns)
        damped = h + self.damping * np.mean(np.diag(h)) * np.eye(columns)
        inverse = np.linalg.inv(damped[np.ix_(order, order)])
        upper = np.linalg.cholesky(inverse).T
        parameters = [
            [
                nearest_parameters(row[c : c + self.group_size], self.bits, "integer")
                for c in range(0, columns, self.group_size)
            ]
            for row in w
        ]
        codes = np.zeros(w.shape, int)
        work = w.astype(np.float64)[:, order]
        for k, column in enumerate(order):
            for r in range(len(w)):
                scale, zero_point, _ = parameters[r][column // self.group_size]
                code = np.rint(work[r, k] / float(scale)) + float(zero_point)
                codes[r, column] = int(np.clip(code, 0, 2**self.bits - 1))
                back = (codes[r, column] - float(zero_point)) * float(scale)
                error = (work[r, k] - back) / upper[k, k]
                work[r, k:] -= error * upper[k, k:]
        return codes


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_it_agrees_with_the_paper_column_by_column(bits: int, act_order: bool):
    w, h = weights(48, 192), hessian(192)
    quantizer = Gptq(Rtn(64, "integer"), act_order=act_order)
    found, _ = quantizer.on_factor(w, bits, factorize(h, 0.01, act_order))
    expected = Plain(bits, 64, act_order=act_order).codes(w, h)
    assert np.mean(unpacked(found) == expected) >= 0.999


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("act_order", [True, False])
def test_the_loss_is_the_sum_of_its_steps(grid: Rtn | Mse, bits: int, act_order: bool):
    """tr(D H_d D^T) = sum pivots (v - q)^2, exactly, whatever the rounding does, clipped or not."""
    w, h = weights(70, 160), hessian(160)
    q, loss = Gptq(grid, act_order=act_order).on_factor(w, bits, factorize(h, 0.01, act_order))
    damped = h + 0.01 * np.diag(h).mean() * np.eye(160)
    expected = quadratic(w.astype(np.float64) - q.dequantize(), damped)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_the_loss_holds_where_codes_clip():
    w, h = weights(16, 96), hessian(96, 1.5)
    q, loss = Gptq(Mse(32, "none")).on_factor(w, 2, factorize(h))
    clipped = np.isin(unpacked(q), (0, 3))
    assert clipped.mean() > 0.1
    damped = h + 0.01 * np.diag(h).mean() * np.eye(96)
    np.testing.assert_allclose(
        loss, quadratic(w.astype(np.float64) - q.dequantize(), damped), rtol=1e-12
    )


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_on_a_diagonal_hessian_it_is_its_grid(grid: Rtn | Mse, bits: int):
    w = weights(9, 100)
    diagonal = np.diag(np.random.default_rng(2).uniform(0.1, 10, 100))
    q, _ = Gptq(grid).on_factor(w, bits, factorize(diagonal))
    np.testing.assert_array_equal(q.dequantize(), grid.quantize(w, bits).dequantize())
    np.testing.assert_array_equal(unpacked(q), unpacked(grid.quantize(w, bits)))


@pytest.mark.parametrize("power", [-200, -7, -1, 1, 2, 9, 200])
def test_the_unit_of_the_hessian_does_not_matter(power: int):
    w, h = weights(20, 128), hessian(128)
    one, _ = Gptq().on_factor(w, 4, factorize(h))
    other, _ = Gptq().on_factor(w, 4, factorize(h * 2.0**power))
    np.testing.assert_array_equal(one.codes, other.codes)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 1.3])
@pytest.mark.parametrize("outliers", [0.0, 0.01])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_gain_is_that_of_the_pivots(decay: float, outliers: float, bits: int):
    """Loss over that of round-to-nearest is tr D / tr H within 6 %: uniform residues."""
    x = inputs(4096, 256, decay, outliers)
    w = weights(512, 256)
    h = Calibration.of(x).hessian
    factor = factorize(h, act_order=False)
    grid = Rtn(128, "integer")
    q, loss = Gptq(grid, act_order=False).on_factor(w, bits, factor)
    nearest = w.astype(np.float64) - grid.quantize(w, bits).dequantize()
    damped = h + 0.01 * np.diag(h).mean() * np.eye(256)
    ratio = loss.sum() / quadratic(nearest, damped).sum()
    assert ratio == pytest.approx(factor.pivots.sum() / np.trace(damped), rel=0.06)
    difference = w.astype(np.float64) - q.dequantize()
    if decay >= 1:
        assert quadratic(difference, h).sum() < 0.6 * quadratic(nearest, h).sum()


def test_unclipped_loss_is_bounded_by_the_pivots():
    """Babai's bound: sum s^2 D / 4 a row. One large row sets the scale, so no other clips."""
    w, h = weights(40, 128), hessian(128)
    w[0] *= 8
    factor = factorize(h)
    q, loss = Gptq(Rtn("tensor", "integer")).on_factor(w, 8, factor)
    codes = unpacked(q)[1:]
    assert codes.min() > 0
    assert codes.max() < 255
    bound = float(q.decoding.arrays(q.layout)[0][0, 0]) ** 2 * factor.pivots.sum() / 4
    assert (loss[1:] <= bound * (1 + 1e-4)).all()
    assert loss[1:].max() > bound / 10


def test_columns_in_another_order_give_the_same_codes():
    """With a scale a row, and columns ordered by their own diagonal, their place is nothing."""
    w, h = weights(30, 96), hessian(96)
    shuffled = np.random.default_rng(3).permutation(96)
    grid = Rtn("channel", "integer")
    one, _ = Gptq(grid).on_factor(w, 4, factorize(h))
    other, _ = Gptq(grid).on_factor(w[:, shuffled], 4, factorize(h[np.ix_(shuffled, shuffled)]))
    assert np.mean(unpacked(one)[:, shuffled] == unpacked(other)) >= 0.999


def test_rows_are_independent(monkeypatch: pytest.MonkeyPatch):
    w, h = weights(300, 128), hessian(128)
    whole, _ = Gptq().on_factor(w, 4, factorize(h))
    part, _ = Gptq().on_factor(w[100:163], 4, factorize(h))
    assert np.mean(unpacked(whole)[100:163] == unpacked(part)) >= 0.9999
    monkeypatch.setattr(quantizers.gptq, "MOST_ROWS", 64)
    pieces, _ = Gptq().on_factor(w, 4, factorize(h))
    assert np.mean(unpacked(whole) == unpacked(pieces)) >= 0.9999


@pytest.mark.parametrize("block", [1, 7, 500])
def test_the_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch):
    w, h = weights(40, 128), hessian(128)
    usual, _ = Gptq().on_factor(w, 4, factorize(h))
    monkeypatch.setattr(quantizers.gptq, "BLOCK", block)
    other, _ = Gptq().on_factor(w, 4, factorize(h))
    assert np.mean(unpacked(usual) == unpacked(other)) >= 0.9999


def test_a_factor_multiplies_out_to_its_hessian():
    h = hessian(64)
    factor = factorize(h, 0.02)
    unit = np.eye(64) + factor.feedback
    ordered = h[np.ix_(factor.order, factor.order)] + 0.02 * np.diag(h).mean() * np.eye(64)
    np.testing.assert_allclose(unit * factor.pivots @ unit.T, ordered, rtol=1e-12, atol=1e-14)
    assert (np.tril(factor.feedback) == 0).all()
    assert (np.diff(np.diag(h)[factor.order]) <= 0).all()


def test_a_scaled_factor_is_the_factor_of_scaled_inputs():
    h = hessian(64)
    scale = np.random.default_rng(4).uniform(0.1, 5, 64)
    scaled = factorize(h, act_order=False).scaled(scale)
    damped = h + 0.01 * np.diag(h).mean() * np.eye(64)
    direct = factorize(damped / np.outer(scale, scale), 0.0, act_order=False)
    np.testing.assert_allclose(scaled.feedback, direct.feedback, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scaled.pivots, direct.pivots, rtol=1e-9)


def test_what_is_never_active_is_rounded_to_nearest():
    x = inputs(512, 64)
    x[:, [3, 40]] = 0
    w = weights(20, 64)
    q = Gptq(Rtn(32)).quantize(w, 4, x)
    nearest = Rtn(32).quantize(w, 4).dequantize()
    np.testing.assert_array_equal(q.dequantize()[:, [3, 40]], nearest[:, [3, 40]])
    assert (q.dequantize() != nearest).any()
    dead = ("2 input channels are never active: rounded to nearest",)
    assert q.notes == dead
    assert Gptq(Rtn(32), damping=0).quantize(w, 4, x).notes == dead  # they ask for no damping


def test_damping_is_raised_where_it_must_be_and_said():
    h = np.diag(np.r_[np.ones(63), 1e-3])
    h[0, 63] = h[63, 0] = 0.05  # one eigenvalue is below 0
    assert factorize(h, 0.0).damping == 0.01
    assert factorize(h, 0.01).damping == 0.01
    q, _ = Gptq(Rtn(32), damping=0.0).on_factor(weights(20, 64), 4, factorize(h, 0.0))
    assert np.isfinite(q.dequantize()).all()
    assert q.notes == ("damping raised from 0 to 0.01: the Hessian was not positive definite",)


def test_what_is_never_active_costs_nothing():
    x = inputs(512, 64)
    x[:, [3, 40]] = 0
    h = Calibration.of(x).hessian
    w = weights(20, 64)
    q, loss = Gptq(Rtn(32)).on_factor(w, 2, factorize(h))
    damped = h + 0.01 * np.diag(h)[np.diag(h) > 0].mean() * np.diag(np.diag(h) > 0)
    expected = quadratic(w.astype(np.float64) - q.dequantize(), damped)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_an_empty_weight_stays_empty():
    q = Gptq(Rtn(32)).quantize(weights(4, 64)[:0], 4, inputs(99, 64))
    assert q.dequantize().shape == (0, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": R2q()}, r"grid=R2q\(.*\) is neither an Rtn nor an Mse"),
        ({"grid": "mse"}, "grid='mse' is neither an Rtn nor an Mse"),
        ({"damping": "a"}, "damping='a' is not from 0 to 1"),
        ({"damping": 2}, "damping=2 is not from 0 to 1"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(SchemeError, match=message):
        Gptq(**options)


def test_the_calibration_is_factored_once():
    calibration = Calibration.of(inputs(300, 64))
    assert calibration.factor() is calibration.factor(0.01, True)
    assert calibration.factor(0.02) is not calibration.factor()


REFUSED = {
    "shape": (np.ones((3, 4)), "the Hessian has shape (3, 4); expected (channels, channels)"),
    "nan": (np.array([[1.0, np.nan], [np.nan, 1]]), "the Hessian has nan at index (0, 1)"),
    "negative": (np.diag([1.0, -2.0]), "the Hessian has -2 on its diagonal at 1"),
    "asymmetric": (np.array([[1.0, 0.5], [0.1, 1]]), "the Hessian is not symmetric"),
    "zero": (np.zeros((2, 2)), "the Hessian is 0: every calibration input is 0"),
    "indefinite": (
        np.array([[1.0, 9.0], [9.0, 1.0]]),
        "the Hessian is not positive definite, even with 1 of the mean of its diagonal added",
    ),
}


@pytest.mark.parametrize(("h", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_hessian_is_refused(h: Array, message: str):
    with pytest.raises(TensorError) as error:
        factorize(h)
    assert message in str(error.value)


def test_bad_calibration_is_refused():
    w = weights(8, 64)
    with pytest.raises(TensorError, match="gptq needs calibration: the layer's inputs"):
        Gptq().quantize(w, 4)
    with pytest.raises(
        TensorError, match="63 calibration tokens for 64 input channels of weight; give"
    ):
        Gptq().quantize(w, 4, inputs(63, 64))
    with pytest.raises(TensorError, match=r"inputs has 32 channels; weight of shape \(8, 64\)"):
        Gptq().quantize(w, 4, inputs(99, 32))
    with pytest.raises(TensorError, match=r"the Hessian has 32 channels; weight of shape \(8, 64"):
        Gptq().on_factor(w, 4, factorize(hessian(32)))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("columns", [1, 3, 8, 21])
def test_codes_are_packed_low_bits_first(bits: int, columns: int):
    codes = np.random.default_rng(5).integers(0, 2**bits, (5, columns), np.uint8)
    np.testing.assert_array_equal(pack(codes, bits), pack_slowly(codes, bits))


@pytest.mark.parametrize("zero", ["none", "integer", "float"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_stay_in_their_range(zero: str, bits: int):
    q, _ = Gptq(Rtn(32, zero)).on_factor(weights(50, 96), bits, factorize(hessian(96, 2.0)))
    assert unpacked(q).min() >= lowest_code(bits, zero)
    assert unpacked(q).max() <= 2**bits - 1


def test_extreme_weights_stay_finite():
    w = weights(6, 64)
    w[0] = 0
    w[1] = 3.0e38
    w[2] = 1e-44
    w[3] = -5.0
    for bits in (2, 4, 8):
        for grid in GRIDS.values():
            q, loss = Gptq(grid).on_factor(w, bits, factorize(hessian(64)))
            assert np.isfinite(q.dequantize()).all()
            assert np.isfinite(loss).all()
            assert (q.dequantize()[0] == 0).all() or grid.zero == "float"
