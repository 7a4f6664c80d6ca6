"""Smoothing and cross-layer equalization: against their formulas a channel, and theorems."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.errors import SchemeError, TensorError
from pytest_arrowquant.quantizers import Rtn
from pytest_arrowquant.transforms import (
    ActivationQuantizer,
    Identity,
    Smoothing,
    equalization_scale,
    equalize,
    smooth,
)
from pytest_arrowquant.transforms.smoothing import smoothing_scale
from pytest_arrowquant.transforms.spatial import ALPHAS, held_back

Array = np.ndarray[Any, Any]


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scales(channels: int, seed: int = 5) -> Array:
    return np.exp(np.random.default_rng(seed).standard_normal(channels)).astype(np.float32)


def powers(channels: int, seed: int = 5) -> Array:
    exponents = np.random.default_rng(seed).integers(-6, 7, channels)
    return np.ldexp(np.float32(1), exponents).astype(np.float32)


def distance(got: Array, want: Array) -> float:
    """The relative Frobenius norm of the difference."""
    difference = got.astype(np.float64) - want.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(want.astype(np.float64)))


# A given scale


def test_smoothing_is_a_diagonal_matrix():
    scale, x, w = scales(12), gaussian(9, 12), gaussian(7, 12, seed=1)
    smoothing = Smoothing(scale)
    np.testing.assert_array_equal(smoothing.weight(w), w * scale)
    np.testing.assert_array_equal(smoothing.restore(w), w / scale)
    np.testing.assert_array_equal(smoothing.inputs(x), x / scale)


@pytest.mark.parametrize("channels", [1, 7, 96, 768])
def test_outputs_are_kept(channels: int):
    smoothing, x, w = Smoothing(scales(channels)), gaussian(64, channels), gaussian(48, channels)
    assert distance(smoothing.inputs(x) @ smoothing.weight(w).T, x @ w.T) < 1e-6
    assert distance(smoothing.restore(smoothing.weight(w)), w) < 1e-6


@pytest.mark.parametrize("channels", [1, 7, 96, 768])
def test_powers_of_two_keep_every_bit(channels: int):
    smoothing, x, w = Smoothing(powers(channels)), gaussian(64, channels), gaussian(48, channels)
    smoothed = smoothing.inputs(x) @ smoothing.weight(w).T
    np.testing.assert_array_equal(smoothed.view(np.uint32), (x @ w.T).view(np.uint32))
    back = smoothing.restore(smoothing.weight(w))
    np.testing.assert_array_equal(back.view(np.uint32), w.view(np.uint32))


def test_hessian_is_that_of_the_smoothed_inputs():
    smoothing, x = Smoothing(scales(48)), gaussian(100, 48).astype(np.float64)
    smoothed = smoothing.inputs(x)
    assert smoothed.dtype == np.float64
    h = x.T @ x
    assert distance(smoothing.hessian(h), smoothed.T @ smoothed) < 1e-12
    np.testing.assert_array_equal(h, x.T @ x)  # left as it was


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (np.ones(3), r"scale is float64 \(3,\); expected float32 \(input channels,\)"),
        (np.ones((3, 1), np.float32), r"scale is float32 \(3, 1\)"),
        (np.array([1, 0, 2], np.float32), "scale has 0.0 at channel 1; expected positive values"),
        (np.array([1, 2, -2], np.float32), "scale has -2.0 at channel 2"),
        (np.array([1, np.nan], np.float32), r"scale has nan at index \(1,\)"),
    ],
)
def test_scales_that_cannot_be(scale: Array, message: str):
    with pytest.raises(TensorError, match=message):
        Smoothing(scale)


@pytest.mark.parametrize("method", ["weight", "restore", "inputs"])
def test_rows_that_do_not_fit(method: str):
    apply = getattr(Smoothing(np.array([2, 0.5], np.float32)), method)
    with pytest.raises(TensorError, match=r"has shape \(2, 3\); expected \(rows, 2\)"):
        apply(gaussian(2, 3))
    with pytest.raises(TensorError, match=r"has inf at index \(0, 1\); every value must be finite"):
        apply(np.array([[1, np.inf]], np.float32))
    with pytest.raises(TensorError, match="leaves the range of float32 where it is transformed"):
        apply(np.array([[3e38, 3e38]], np.float32))


def test_hessians_that_do_not_fit():
    with pytest.raises(TensorError, match=r"hessian has shape \(3, 3\); expected \(2, 2\)"):
        Smoothing(np.ones(2, np.float32)).hessian(np.eye(3))


# The scale of an alpha


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_scale_is_equation_4_over_its_geometric_mean(alpha: float):
    peaks, ranges = scales(20, 1), scales(20, 2)
    want = [float(x) ** alpha / float(w) ** (1 - alpha) for x, w in zip(peaks, ranges, strict=True)]
    mean = math.exp(math.fsum(math.log(s) for s in want) / 20)
    np.testing.assert_allclose(smoothing_scale(peaks, ranges, alpha), np.array(want) / mean, 1e-6)


def test_half_alpha_gives_inputs_and_weights_the_same_ranges():
    peaks, ranges = scales(20, 1), scales(20, 2)
    s = smoothing_scale(peaks, ranges, 0.5)
    ratio = (peaks / s) / (ranges * s)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_dead_channel_is_left_alone(alpha: float):
    peaks, ranges = scales(6, 1), scales(6, 2)
    peaks[1], ranges[4] = 0, 0
    s = smoothing_scale(peaks, ranges, alpha)
    assert s[1] == s[4] == 1
    live = [0, 2, 3, 5]
    np.testing.assert_allclose(s[live], smoothing_scale(peaks[live], ranges[live], alpha))
    np.testing.assert_array_equal(smoothing_scale(np.zeros(6), ranges, alpha), np.ones(6))


def test_scales_are_clamped():
    s = smoothing_scale(np.array([1e-30, 1.0, 1e30]), np.ones(3), 1.0)
    assert s.tolist() == [2.0**-16, 1.0, 2.0**16]


# The search


def restored(bits: int, group_size: Any = 64) -> Callable[[Array], Array]:
    return lambda rows: Rtn(group_size).quantize(rows, bits).dequantize()


def layer(seed: int, outliers: int, channels: int = 768, tokens: int = 256) -> Array:
    """Gaussian tokens, some channels of which are 20 times larger."""
    scale = np.ones(channels, np.float32)
    scale[np.random.default_rng(77).permutation(channels)[:outliers]] = 20
    return gaussian(tokens, channels, seed=seed) * scale


def error_of(
    transform: Any, fitted: Calibration, x: Calibration, w: Array, quantize: Any, bits: Any, to: Any
) -> float:
    """The squared output error on x, ranges of inputs taken from `fitted`: step by step."""
    tokens = transform.inputs(x.inputs)
    if bits is not None:
        seen = Calibration.of(transform.inputs(fitted.inputs), fitted.timesteps)
        tokens = ActivationQuantizer.fit(seen, bits, to).quantize(tokens, x.timesteps)
    got = tokens.astype(np.float64) @ quantize(transform.weight(w)).astype(np.float64).T
    want = x.inputs.astype(np.float64) @ w.astype(np.float64).T
    return float(np.square(got - want).sum())


def split(inputs: Calibration) -> tuple[Calibration, Calibration]:
    """The tokens that set ranges, and those that smoothing is measured on."""
    at, every = held_back(inputs), np.arange(len(inputs.inputs))
    others = np.setdiff1d(every, at) if len(at) < len(every) else every
    return (
        Calibration.of(inputs.inputs[others], inputs.timesteps[others]),
        Calibration(inputs.inputs[at], inputs.timesteps[at], inputs.steps),
    )


@pytest.mark.parametrize(
    ("tokens", "steps", "held"),
    [(1, 1, 1), (2, 1, 1), (6, 6, 6), (100, 4, 48), (1000, 10, 248), (10000, 10, 250)],
)
def test_some_tokens_are_held_back(tokens: int, steps: int, held: int):
    at = np.arange(tokens) * steps // tokens
    others, tried = split(Calibration.of(gaussian(tokens, 3), at))
    assert others.steps == steps
    assert len(tried.inputs) == pytest.approx(held, abs=2)
    assert len(tried.inputs) <= 256
    assert len(others.inputs) + len(tried.inputs) in (tokens, 2 * tokens)


@pytest.mark.parametrize("powers_of_two", [False, True])
@pytest.mark.parametrize("outliers", [0, 2, 10])
@pytest.mark.parametrize(
    ("weight_bits", "bits", "groups"),
    [(8, 8, "static"), (4, 8, 4), (4, 4, "step"), (4, 4, "token"), (2, 8, "static"), (2, None, 1)],
)
def test_choice_is_the_best_of_the_grid_and_of_none(
    weight_bits: int, bits: Any, groups: Any, outliers: int, powers_of_two: bool
):
    x, w, quantize = (
        layer(1, outliers, channels=96),
        gaussian(32, 96, seed=2),
        restored(weight_bits),
    )
    inputs = Calibration.of(x * (1 + np.arange(256) // 64)[:, None], np.arange(256) // 32)
    others, held = split(inputs)

    def grid(seen: Calibration) -> list[Any]:
        peaks, ranges = abs(seen.inputs).max(axis=0), abs(w).max(axis=0)
        found = [smoothing_scale(peaks, ranges, alpha) for alpha in ALPHAS]
        if powers_of_two:
            found = [2 ** np.rint(np.log2(scale)) for scale in found]
        return [Identity(), *(Smoothing(scale.astype(np.float32)) for scale in found)]

    def error(one: Any, seen: Calibration) -> float:
        return error_of(one, seen, held, w, quantize, bits, groups)

    chosen = smooth(w, inputs, quantize, bits, groups, powers_of_two=powers_of_two)
    assert error(chosen, inputs) <= error(Identity(), inputs) * (1 + 1e-6)  # never worse than none
    apart = [error(one, others) for one in grid(others)]
    want = grid(inputs)[int(np.argmin(apart))]
    if error(want, inputs) > error(Identity(), inputs):
        want = Identity()
    assert type(chosen) is type(want)
    if isinstance(chosen, Smoothing):
        np.testing.assert_array_equal(chosen.scale, want.scale)


@pytest.mark.parametrize("group_size", ["tensor", "channel", 64])
@pytest.mark.parametrize("seed", range(3))
def test_gain_with_outlier_channels(group_size: Any, seed: int):
    """W8A8, one range for all inputs, 4 of 768 channels x 20: at least 8 dB over plain."""
    calibration, held_out = (Calibration.of(layer(10 * seed + i, 4, tokens=1024)) for i in (1, 2))
    w, quantize = gaussian(128, 768, seed=9), restored(8, group_size)
    chosen = smooth(w, calibration, quantize)
    errors = [
        error_of(one, calibration, held_out, w, quantize, 8, "static")
        for one in (Identity(), chosen)
    ]
    assert 10 * math.log10(errors[0] / errors[1]) >= 8


@pytest.mark.parametrize("tokens", [256, 1024])  # fewer than a third of the channels, and more
@pytest.mark.parametrize("weight_bits", [2, 4, 8])
@pytest.mark.parametrize("bits", [4, 8])
def test_without_outliers_nothing_is_lost(weight_bits: int, bits: int, tokens: int):
    """On held-out tokens either: with 256, in-sample choice would lose 5 dB at 8 bits."""
    calibration, held_out = (Calibration.of(layer(i, 0, tokens=tokens)) for i in (1, 2))
    w, quantize = gaussian(128, 768, seed=9), restored(weight_bits)
    chosen = smooth(w, calibration, quantize, bits)
    errors = [
        error_of(one, calibration, held_out, w, quantize, bits, "static")
        for one in (Identity(), chosen)
    ]
    assert -0.05 <= 10 * math.log10(errors[0] / errors[1]) <= 3


def test_a_scale_made_from_all_tokens_is_held_against_none_again():
    """Tokens held back have peaks of their own, which spoil a scale that was best without them."""
    w, x = gaussian(16, 32, seed=2), gaussian(256, 32, seed=52) * scales(32, 2) ** np.float32(0.2)
    quantize, at = restored(4, "channel"), held_back(Calibration.of(x))[:4]
    x[at, range(4)] = 30
    inputs = Calibration.of(x)
    others, held = split(inputs)

    def error(peaks: Array | None) -> float:
        one: Any = Identity()
        if peaks is not None:
            one = Smoothing(smoothing_scale(peaks, abs(w).max(axis=0), 0.3).astype(np.float32))
        return error_of(one, inputs, held, w, quantize, None, "static")

    apart, whole = (abs(seen.inputs).max(axis=0) for seen in (others, inputs))
    assert error(apart) < error(None) < error(whole)
    assert smooth(w, x, quantize, None) == Identity()


def test_identity_where_nothing_gains():
    w = np.where(gaussian(8, 64) > 0, 1, -1).astype(np.float32)  # on the grid already
    chosen = smooth(w, gaussian(50, 64, seed=1), restored(8), None)
    assert chosen == Identity()


def test_a_convolution_shares_a_scale_over_its_window():
    w, x = gaussian(8, 6, 3, seed=3), gaussian(64, 18, seed=4)
    x[:, 3:6] *= 30
    chosen = smooth(w, x, restored(8))
    assert isinstance(chosen, Smoothing)
    windows = chosen.scale.reshape(6, 3)
    np.testing.assert_array_equal(windows, windows[:, :1].repeat(3, axis=1))
    assert windows[1, 0] == windows.max()


def test_equalization_is_tried_where_the_producer_is_known():
    """One odd token hides the ranges of the others, which the weight before knows."""
    w, x = gaussian(16, 32) * scales(32) ** 2, gaussian(200, 32, seed=1)
    x[0] = 100 * scales(32, 9) ** 2
    ranges = abs(w).max(axis=0)
    chosen = smooth(w, x, restored(4, "channel"), None, producer=1 / ranges)
    assert chosen.options == {"transform": "smoothing", "rule": "equalization"}
    assert isinstance(chosen, Smoothing)
    np.testing.assert_allclose(chosen.scale, 1 / ranges, rtol=1e-6)
    with pytest.raises(TensorError, match="row ranges are of 31 channels, column ranges of 32"):
        smooth(w, x, restored(4), producer=ranges[1:])


def test_a_zero_channel_in_inputs_or_weight():
    x, w = layer(1, 2, channels=64), gaussian(16, 64, seed=2)
    x[:, 5], w[:, 9] = 0, 0
    chosen = smooth(w, x, restored(8))
    assert isinstance(chosen, Smoothing)
    assert chosen.scale[5] == chosen.scale[9] == 1


@pytest.mark.parametrize(
    ("weight", "inputs", "message"),
    [
        (gaussian(4, 8), gaussian(9, 7), r"7 channels; weight of shape \(4, 8\) takes 8"),
        (gaussian(4, 8, 3), gaussian(9, 8), r"8 channels; weight of shape \(4, 8, 3\) takes 24"),
        (np.full((2, 8), np.nan), gaussian(9, 8), r"weight has nan at index \(0, 0\)"),
        (gaussian(2, 8), np.full((9, 8), np.inf), r"calibration inputs has inf at index \(0, 0\)"),
        (np.ones((0, 8)), gaussian(9, 8), r"weight has shape \(0, 8\); expected \(outputs, inputs"),
    ],
)
def test_weights_and_inputs_that_do_not_fit(weight: Array, inputs: Array, message: str):
    with pytest.raises(TensorError, match=message):
        smooth(weight, inputs, restored(8))


def test_other_things_that_are_refused():
    w, x = gaussian(4, 8), gaussian(9, 8)
    with pytest.raises(TensorError, match=r"quantize returned shape \(4, 7\); expected \(4, 8\)"):
        smooth(w, x, lambda rows: rows[:, 1:])
    with pytest.raises(TensorError, match="the weight that quantize returned are not finite"):
        smooth(w, x, lambda rows: rows * np.nan)
    with pytest.raises(SchemeError, match="bits=3 is not a width of activations"):
        smooth(w, x, restored(8), 3)
    with pytest.raises(SchemeError, match="groups=2 is not a number of groups, 1 to 1"):
        smooth(w, x, restored(8), 8, 2)
    with pytest.raises(TensorError, match="timestep 1 of 3 has no token"):
        smooth(w, Calibration.of(x, np.array([0] * 5 + [2] * 4)), restored(8))


# Cross-layer equalization

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky relu": lambda x: np.where(x > 0, x, 0.2 * x),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


def pair(seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Two weights with ranges far apart, the bias of the first, and inputs."""
    first, second = gaussian(24, 10, seed=seed), gaussian(7, 24, seed=seed + 1)
    first *= scales(24, 1)[:, None] ** 2
    second *= scales(24, 2) ** 2
    return first, second, gaussian(24, seed=seed + 2), gaussian(50, 10, seed=seed + 3)


def network(x: Array, first: Array, bias: Array, function: Any, second: Array) -> Array:
    hidden = x.astype(np.float64) @ first.astype(np.float64).T + bias.astype(np.float64)
    return function(hidden) @ second.astype(np.float64).T


def test_both_ranges_become_the_root_of_their_product():
    first, second, bias, _ = pair()
    equal = equalize(first, second, bias)
    before = abs(first).max(axis=1), abs(second).max(axis=0)
    after = abs(equal.first).max(axis=1), abs(equal.second).max(axis=0)
    np.testing.assert_allclose(after[0], after[1], rtol=1e-6)
    np.testing.assert_allclose(after[0] * after[1], before[0] * before[1], rtol=1e-6)
    assert equal.bias is not None
    np.testing.assert_allclose(equal.bias * equal.scale, bias, rtol=1e-6)


@every_function
def test_the_function_is_kept(name: str):
    first, second, bias, x = pair()
    equal = equalize(first, second, bias)
    assert equal.bias is not None
    assert abs(np.log(equal.scale)).max() > 1
    got = network(x, equal.first, equal.bias, FUNCTIONS[name], equal.second)
    assert distance(got, network(x, first, bias, FUNCTIONS[name], second)) < 1e-6


@every_function
def test_powers_of_two_keep_every_bit_of_the_function(name: str):
    first, second, bias, x = pair()
    equal = equalize(first, second, bias, powers_of_two=True)
    assert equal.bias is not None

    def outputs(first: Array, bias: Array, second: Array) -> Array:
        hidden = np.asarray(FUNCTIONS[name](x @ first.T + bias), np.float32)
        return hidden @ second.T

    got, want = outputs(equal.first, equal.bias, equal.second), outputs(first, bias, second)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    ratio = abs(equal.first).max(axis=1) / abs(equal.second).max(axis=0)
    assert ratio.max() <= 2 + 1e-6
    assert ratio.min() >= 0.5 - 1e-6


def test_the_function_is_not_kept_where_it_is_not_homogeneous():
    first, second, bias, x = pair()
    equal = equalize(first, second, bias)
    assert equal.bias is not None

    def silu(x: Array) -> Array:
        return x / (1 + np.exp(-x))

    got = network(x, equal.first, equal.bias, silu, equal.second)
    assert distance(got, network(x, first, bias, silu, second)) > 1e-3


def convolved(x: Array, kernel: Array) -> Array:
    """A valid convolution along the last axis of x (channels, length), by its definition."""
    outputs, _, width = kernel.shape
    out = np.zeros((outputs, x.shape[1] - width + 1))
    for o in range(outputs):
        for t in range(out.shape[1]):
            out[o, t] = (x[:, t : t + width].astype(np.float64) * kernel[o]).sum()
    return out


def test_convolutions():
    first, second = gaussian(6, 4, 3, seed=1), gaussian(5, 6, 3, seed=2)
    first *= scales(6)[:, None, None] ** 2
    equal = equalize(first, second)
    assert equal.bias is None
    assert (equal.first.shape, equal.second.shape) == (first.shape, second.shape)
    x = gaussian(4, 20, seed=3)

    def outputs(first: Array, second: Array) -> Array:
        return convolved(np.maximum(convolved(x, first), 0), second)

    assert distance(outputs(equal.first, equal.second), outputs(first, second)) < 1e-6
    np.testing.assert_allclose(
        abs(equal.first).max(axis=(1, 2)), abs(equal.second).max(axis=(0, 2)), rtol=1e-6
    )


def test_equalizing_again_changes_nothing():
    once = equalize(*pair()[:3])
    twice = equalize(once.first, once.second, once.bias)
    np.testing.assert_allclose(twice.scale, 1, rtol=1e-6)


def test_a_zero_channel_is_left_alone():
    first, second, bias, x = pair()
    first[3], second[:, 8] = 0, 0
    equal = equalize(first, second, bias)
    assert equal.scale[3] == equal.scale[8] == 1
    assert equal.bias is not None
    np.testing.assert_array_equal(equal.first[[3, 8]], first[[3, 8]])
    np.testing.assert_array_equal(equal.second[:, [3, 8]], second[:, [3, 8]])
    relu = FUNCTIONS["relu"]
    got = network(x, equal.first, equal.bias, relu, equal.second)
    assert distance(got, network(x, first, bias, relu, second)) < 1e-6


def test_ranges_far_apart_stay_finite():
    scale = equalization_scale(np.array([1e-45, 3e38, 1e-300]), np.array([3e38, 1e-45, 1e300]))
    assert np.isfinite(scale).all()
    assert (scale > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (gaussian(4, 3), gaussian(2, 5)),
            r"first weight of shape \(4, 3\) has 4 output channels, second .* \(2, 5\) takes 5",
        ),
        ((gaussian(4), gaussian(2, 4)), r"first weight has shape \(4,\); expected"),
        ((gaussian(4, 3), gaussian(4)), r"second weight has shape \(4,\); expected"),
        ((gaussian(4, 3), gaussian(2, 4), gaussian(3)), r"bias has shape \(3,\); expected \(4,\)"),
        ((np.full((4, 3), np.nan), gaussian(2, 4)), r"first weight has nan at index \(0, 0\)"),
        ((gaussian(4, 3), np.full((2, 4), np.inf)), r"second weight has inf at index \(0, 0\)"),
        ((np.ones((4, 3), int), gaussian(2, 4)), "first weight is an array of int64"),
    ],
)
def test_weights_that_do_not_meet(arguments: Any, message: str):
    with pytest.raises(TensorError, match=message):
        equalize(*arguments)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([1.0, -2.0], [1.0, 1.0], r"row ranges has -2.0 at channel 1; expected max \|w\|"),
        ([1.0, 2.0], [1.0, np.nan], r"column ranges has nan at index \(1,\)"),
        ([[1.0]], [1.0], r"row ranges has shape \(1, 1\); expected \(channels,\)"),
        ([1.0], [1.0, 2.0], "row ranges are of 1 channels, column ranges of 2"),
    ],
)
def test_ranges_that_cannot_be(rows: Any, columns: Any, message: str):
    with pytest.raises(TensorError, match=message):
        equalization_scale(np.array(rows), np.array(columns))
