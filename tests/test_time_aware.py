"""Time groups against brute force, activation rounding against its formula and the theory."""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import log, log10
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.errors import SchemeError, TensorError
from pytest_arrowquant.transforms import ActivationQuantizer, time_groups

Array = np.ndarray[Any, Any]

timesteps = st.lists(
    st.tuples(st.floats(0, 1e3) | st.sampled_from([0.0, 1.0, 2.0]), st.integers(1, 50)),
    min_size=1,
    max_size=8,
)


@pytest.fixture(autouse=True, scope="module")
def warm() -> Iterator[None]:
    """Compile before hypothesis starts its clock; uncompiled, let infinities pass in silence."""
    quiet: Any = {"over": "ignore"} if numba.config.DISABLE_JIT else {}
    with np.errstate(**quiet):
        yield


def cost(ranges: Any, counts: Any, boundaries: Any) -> float:
    """Sum over groups of tokens times the largest range squared."""
    return sum(
        sum(counts[first:last]) * max(ranges[first:last]) ** 2
        for first, last in pairwise(boundaries)
    )


def least_cost(ranges: Any, counts: Any, groups: int) -> float:
    """Of all partitions, tried one by one."""
    steps = len(ranges)
    return min(
        cost(ranges, counts, (0, *cuts, steps))
        for cuts in combinations(range(1, steps), groups - 1)
    )


def split(steps: list[tuple[float, int]]) -> tuple[Array, Array]:
    ranges, counts = zip(*steps, strict=True)
    return np.array(ranges), np.array(counts)


# Groups of timesteps


@given(timesteps)
def test_groups_are_a_partition_of_least_cost(steps: Any):
    ranges, counts = split(steps)
    costs = []
    for groups in range(1, len(ranges) + 1):
        boundaries = time_groups(ranges, counts, groups).tolist()
        assert (boundaries[0], boundaries[-1]) == (0, len(ranges))
        assert len(boundaries) == groups + 1
        assert all(first < last for first, last in pairwise(boundaries))
        costs.append(cost(ranges, counts, boundaries))
        assert costs[-1] == pytest.approx(least_cost(ranges, counts, groups), rel=1e-12)
    assert all(more <= fewer * (1 + 1e-12) for fewer, more in pairwise(costs))
    assert costs[0] == pytest.approx(counts.sum() * ranges.max() ** 2, rel=1e-12)  # static
    assert costs[-1] == pytest.approx((counts * ranges**2).sum(), rel=1e-12)  # per step


def test_groups_follow_the_ranges():
    ranges = np.array([1, 1, 1, 8, 8, 2, 2, 2], np.float32)
    assert time_groups(ranges, np.ones(8, int), 3).tolist() == [0, 3, 5, 8]


def test_groups_follow_the_counts():
    ranges = np.array([1.0, 2.0, 4.0])
    assert time_groups(ranges, np.array([100, 1, 1]), 2).tolist() == [0, 1, 3]
    assert time_groups(ranges, np.array([1, 100, 1]), 2).tolist() == [0, 2, 3]


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_groups_do_not_depend_on_the_unit(scale: float):
    ranges, counts = np.array([1.0, 2.0, 4.0, 3.0]), np.array([4, 3, 2, 1])
    for groups in range(1, 5):
        scaled = time_groups(ranges * scale, counts, groups)
        np.testing.assert_array_equal(scaled, time_groups(ranges, counts, groups))


@pytest.mark.parametrize("groups", [0, -1, 4, 2.0, True, "step"])
def test_a_number_of_groups_that_cannot_be(groups: Any):
    with pytest.raises(SchemeError, match="is not a number of groups, 1 to 3, of timesteps"):
        time_groups(np.ones(3), np.ones(3, int), groups)


@pytest.mark.parametrize(
    ("ranges", "counts", "message"),
    [
        ([1.0, np.nan], [1, 1], r"ranges has nan at index \(1,\); every value must be finite"),
        ([1.0, np.inf], [1, 1], r"ranges has inf at index \(1,\)"),
        ([1.0, -2.0], [1, 1], r"ranges have -2.0 at timestep 1; expected max \|x\|"),
        ([1.0, 2.0], [1, 0], "timestep 1 of 2 has 0 tokens; each needs one to set its range"),
        ([1.0, 2.0], [1.0, 2.0], "counts are float64; expected whole numbers of tokens"),
        ([1.0, 2.0], [1], r"ranges have shape \(2,\) and counts \(1,\); expected one of each"),
        ([], [], r"ranges have shape \(0,\) and counts \(0,\)"),
    ],
)
def test_ranges_and_counts_that_cannot_be(ranges: Any, counts: Any, message: str):
    with pytest.raises(TensorError, match=message):
        time_groups(np.array(ranges), np.array(counts), 1)


# Rounding


def rounded(x: Array, peaks: Array, bits: int) -> Array:
    """clip(rint(x * (1 / s)), -highest, highest) * s, with s = peak / highest a token."""
    one, highest = np.float32(1), np.float32(2 ** (bits - 1) - 1)
    scales = np.maximum(peaks.astype(np.float32) / highest, np.float32(2.0**-126))[:, None]
    with np.errstate(over="ignore"):
        return np.clip(np.rint(x * (one / scales)), -highest, highest) * scales


def drifting(steps: int = 6, tokens: int = 5, channels: int = 9, seed: int = 0) -> Calibration:
    """Tokens whose spread changes with the timestep."""
    rng = np.random.default_rng(seed)
    at = np.repeat(np.arange(steps), tokens)
    spread = np.exp(np.sin(at))[:, None]
    return Calibration.of((rng.standard_normal((len(at), channels)) * spread), at)


def peaks_of(calibration: Calibration) -> Array:
    return np.array([abs(tokens).max() for tokens in calibration.by_step()])


@pytest.mark.parametrize("bits", [4, 8])
def test_static_is_one_range_for_all(bits: int):
    inputs = drifting()
    quantizer = ActivationQuantizer.fit(inputs, bits, "static")
    peaks = np.full(len(inputs.inputs), abs(inputs.inputs).max())
    want = rounded(inputs.inputs, peaks, bits)
    np.testing.assert_array_equal(quantizer.quantize(inputs), want)
    np.testing.assert_array_equal(quantizer.quantize(inputs.inputs), want)  # without timesteps
    assert quantizer.boundaries == (0, 6)


@pytest.mark.parametrize("bits", [4, 8])
def test_step_is_one_range_a_timestep(bits: int):
    inputs = drifting()
    quantizer = ActivationQuantizer.fit(inputs, bits, "step")
    want = rounded(inputs.inputs, peaks_of(inputs)[inputs.timesteps], bits)
    np.testing.assert_array_equal(quantizer.quantize(inputs), want)
    same = ActivationQuantizer.fit(inputs, bits, 6)
    np.testing.assert_array_equal(same.quantize(inputs), want)


@pytest.mark.parametrize("bits", [4, 8])
def test_groups_share_the_largest_of_their_ranges(bits: int):
    inputs = drifting()
    quantizer = ActivationQuantizer.fit(inputs, bits, 3)
    peaks = peaks_of(inputs)
    want = time_groups(peaks, np.full(6, 5), 3)
    assert quantizer.boundaries == tuple(want)
    grouped = np.concatenate(
        [np.full(last - first, peaks[first:last].max()) for first, last in pairwise(want)]
    )
    np.testing.assert_array_equal(
        quantizer.quantize(inputs), rounded(inputs.inputs, grouped[inputs.timesteps], bits)
    )
    assert (quantizer.scales >= ActivationQuantizer.fit(inputs, bits, "step").scales).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_token_is_one_range_a_token(bits: int):
    inputs = drifting()
    quantizer = ActivationQuantizer.fit(inputs, bits, "token")
    want = rounded(inputs.inputs, abs(inputs.inputs).max(axis=1), bits)
    np.testing.assert_array_equal(quantizer.quantize(inputs), want)


@pytest.mark.parametrize("bits", [4, 8])
def test_ties_go_the_way_of_the_reciprocal(bits: int):
    """Half a scale is where x * (1 / s) and x / s disagree, and only there."""
    rng, highest = np.random.default_rng(0), 2 ** (bits - 1) - 1
    peaks = rng.uniform(0.5, 2, (500, 1)).astype(np.float32)
    codes = rng.integers(-highest, highest, (500, 8)).astype(np.float32) + np.float32(0.5)
    tokens = np.concatenate([peaks, codes * (peaks / np.float32(highest))], axis=1)
    restored = ActivationQuantizer.fit(tokens, bits, "token").quantize(tokens)
    np.testing.assert_array_equal(restored, rounded(tokens, peaks[:, 0], bits))


@pytest.mark.parametrize("groups", ["static", 2, "step", "token"])
@pytest.mark.parametrize("bits", [4, 8])
def test_calibrated_tokens_err_by_half_a_scale_at_most(bits: int, groups: Any):
    inputs = drifting()
    quantizer = ActivationQuantizer.fit(inputs, bits, groups)
    restored = quantizer.quantize(inputs)
    step = peaks_of(inputs) / (2 ** (bits - 1) - 1)
    if groups == "static":
        step[:] = step.max()
    if groups != 2:
        bound = step[inputs.timesteps][:, None] * (0.5 + 1e-5)
        assert (abs(restored - inputs.inputs) <= bound).all()
    # rounding again changes nothing
    np.testing.assert_allclose(quantizer.quantize(restored, inputs.timesteps), restored, rtol=1e-6)


def test_held_out_tokens_beyond_the_range_clip():
    quantizer = ActivationQuantizer.fit(np.array([[1.0, -2.0], [0.5, 1.0]]), 8)
    restored = quantizer.quantize(np.array([[100.0, -3.0]], np.float32))
    np.testing.assert_allclose(restored, [[2.0, -2.0]], rtol=1e-6)


@pytest.mark.parametrize("groups", ["static", 2, "step", "token"])
@pytest.mark.parametrize("bits", [4, 8])
def test_an_all_zero_timestep_stays_zero(bits: int, groups: Any):
    inputs = drifting()
    tokens = inputs.inputs.copy()
    tokens[inputs.timesteps == 2] = 0
    zeroed = Calibration.of(tokens, inputs.timesteps)
    restored = ActivationQuantizer.fit(zeroed, bits, groups).quantize(zeroed)
    assert np.isfinite(restored).all()
    assert not restored[inputs.timesteps == 2].any()
    nothing = ActivationQuantizer.fit(np.zeros((3, 4)), bits, "static")
    assert not nothing.quantize(np.zeros((2, 4))).any()


def test_the_largest_and_smallest_numbers_stay_finite():
    largest = np.finfo(np.float32).max
    tokens = np.array([[largest, -largest], [1e-45, -1e-40]], np.float32)
    for groups in ("static", "token"):
        restored = ActivationQuantizer.fit(tokens, 8, groups).quantize(tokens)
        assert np.isfinite(restored).all()
        np.testing.assert_allclose(restored[0], tokens[0], rtol=2e-3)
    denormal = np.array([[1e-40, 0]], np.float32)
    assert not ActivationQuantizer.fit(denormal, 8, "static").quantize(denormal).any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tokens_of_any_float(dtype: str):
    inputs = drifting().inputs.astype(dtype)
    inputs.setflags(write=False)
    quantizer = ActivationQuantizer.fit(inputs)
    restored = quantizer.quantize(inputs)
    assert restored.dtype == np.float32
    want = rounded(inputs.astype(np.float32), np.full(30, abs(inputs).max()), 8)
    np.testing.assert_array_equal(restored, want)


# Gains

# Decibels lost to a scale a step, ranges log-uniform over a factor: F: (static, 2, 4, 8 groups)
LOSS_DB = {
    2: (2.65, 1.35, 0.66, 0.30),
    4: (4.66, 2.38, 1.16, 0.53),
    16: (7.30, 3.61, 1.70, 0.73),
}
every_factor = pytest.mark.parametrize("factor", LOSS_DB)


@every_factor
def test_cost_of_groups_is_that_of_the_table(factor: int):
    ranges, counts = factor ** np.linspace(0, 1, 256), np.ones(256, int)
    least = cost(ranges, counts, range(257))
    losses = [
        10 * log10(cost(ranges, counts, time_groups(ranges, counts, groups)) / least)
        for groups in (1, 2, 4, 8)
    ]
    np.testing.assert_allclose(losses, LOSS_DB[factor], atol=0.3)
    closed_form = 10 * log10(2 * log(factor) * factor**2 / (factor**2 - 1))
    assert losses[0] == pytest.approx(closed_form, abs=0.1)


def gaussian_steps(factor: float, seed: int, steps: int = 64, tokens: int = 24) -> Calibration:
    """Gaussian tokens whose spread is log-uniform, cut at 4 sigma, which every step reaches."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.standard_normal((steps, tokens, 32)), -4, 4)
    x[:, 0, 0] = 4
    x *= (factor ** np.linspace(0, 1, steps))[:, None, None]
    return Calibration.of(x, np.repeat(np.arange(steps), tokens))


def sqnr_db(inputs: Calibration, restored: Array) -> float:
    error = inputs.inputs.astype(np.float64) - restored
    return 10 * log10(np.square(inputs.inputs, dtype=np.float64).sum() / np.square(error).sum())


@every_factor
def test_time_aware_gains_over_static(factor: int):
    calibration, held_out = gaussian_steps(factor, 0), gaussian_steps(factor, 1)
    static, *others = (
        sqnr_db(held_out, ActivationQuantizer.fit(calibration, 8, groups).quantize(held_out))
        for groups in ("static", 2, 4, 8, "step")
    )
    table = LOSS_DB[factor]
    want = [table[0] - loss for loss in (*table[1:], 0.0)]
    np.testing.assert_allclose([other - static for other in others], want, atol=0.3)


# Shrunk ranges


def weighted_error(inputs: Calibration, restored: Array, energies: Array) -> float:
    error = np.square(inputs.inputs.astype(np.float64) - restored)
    return float((error * energies).sum())


@pytest.mark.parametrize("groups", ["static", 2, "step", "token"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("outlier", [1, 50])
def test_shrunk_ranges_are_never_worse_on_calibration(bits: int, groups: Any, outlier: float):
    inputs = drifting(tokens=20, channels=12)
    inputs.inputs[:, 3] *= outlier
    energies = np.random.default_rng(1).random(12)
    whole = ActivationQuantizer.fit(inputs, bits, groups)
    shrunk = ActivationQuantizer.fit(inputs, bits, groups, energies)
    errors = [weighted_error(inputs, q.quantize(inputs), energies) for q in (whole, shrunk)]
    assert errors[1] <= errors[0]
    assert (errors[1] == errors[0]) == (shrunk.shrink == 1)


@pytest.mark.parametrize("groups", ["static", "token"])
def test_shrinking_pays_at_4_bits(groups: Any):
    inputs = drifting(tokens=20, channels=400)
    plain, shrunk = (
        ActivationQuantizer.fit(inputs, 4, groups, energies) for energies in (None, np.ones(400))
    )
    assert shrunk.shrink < 1
    assert sqnr_db(inputs, shrunk.quantize(inputs)) > sqnr_db(inputs, plain.quantize(inputs)) + 0.5


def test_shrinking_spares_a_column_that_matters():
    inputs = gaussian_steps(1, 0)
    inputs.inputs[:, 0] *= 4
    even, one = np.ones(32), np.full(32, 1e-4)
    one[0] = 1
    fit = ActivationQuantizer.fit
    assert fit(inputs, 4, "static", even).shrink < fit(inputs, 4, "static", one).shrink


# What is refused, and what the record says


@pytest.mark.parametrize("bits", [2, 16, True, "8", None])
def test_a_width_that_is_none(bits: Any):
    with pytest.raises(SchemeError, match=f"bits={bits!r} is not a width of activations: 4 or 8"):
        ActivationQuantizer.fit(drifting(), bits)


@pytest.mark.parametrize("groups", ["dynamic", None, 0, 7, 1.5])
def test_groups_that_are_none(groups: Any):
    with pytest.raises(SchemeError, match=f"groups={groups!r} is n"):
        ActivationQuantizer.fit(drifting(), 8, groups)


@pytest.mark.parametrize(
    ("tokens", "timesteps", "message"),
    [
        (np.ones((2, 9)), None, r"timesteps is object \(\); expected a whole number for each of 2"),
        (np.ones((2, 9)), [0], r"timesteps is int64 \(1,\); expected a whole number for each of 2"),
        (np.ones((2, 9)), [0, 6], r"timesteps run from 0 to 6; calibrated were 0\.\.5"),
        (np.ones((2, 9)), [-1, 0], r"timesteps run from -1 to 0; calibrated were 0\.\.5"),
        (np.ones(9), [0], r"inputs have shape \(9,\); expected \(tokens, channels\)"),
        (np.full((2, 9), np.nan), [0, 1], r"inputs has nan at index \(0, 0\)"),
    ],
)
def test_tokens_that_do_not_fit(tokens: Array, timesteps: Any, message: str):
    at = None if timesteps is None else np.array(timesteps)
    with pytest.raises(TensorError, match=message):
        ActivationQuantizer.fit(drifting(), 8, "step").quantize(tokens, at)


def test_column_energies_that_do_not_fit():
    with pytest.raises(TensorError, match=r"column energies have shape \(3,\); expected \(9,\)"):
        ActivationQuantizer.fit(drifting(), 4, "static", np.ones(3))


def test_what_the_record_says():
    grouped = ActivationQuantizer.fit(drifting(), 8, 2)
    boundaries = list(grouped.boundaries)
    assert grouped.options == {"bits": 8, "groups": 2, "boundaries": boundaries, "shrink": 1.0}
    assert all(type(boundary) is int for boundary in grouped.options["boundaries"])
    dynamic = ActivationQuantizer.fit(drifting(), 4, "token")
    assert dynamic.options == {"bits": 4, "groups": "token", "boundaries": [], "shrink": 1.0}
    assert (grouped.nbytes, dynamic.nbytes) == (8, 0)
