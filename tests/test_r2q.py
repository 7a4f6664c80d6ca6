"""R2Q against a slow twin, least squares, brute force, theorems and published figures."""

import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import ml_dtypes
import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import reference
from pytest_arrowquant import QUANTIZERS, R2q
from pytest_arrowquant.binary_terms import BinaryTerms
from pytest_arrowquant.errors import SchemeError, TensorError
from pytest_arrowquant.kernels import binary
from pytest_arrowquant.quantizers import Rtn
from pytest_arrowquant.tensor import QuantizedTensor, encode_rows
from reference import assert_same_bits, rows_of

Array = np.ndarray[Any, Any]
INTERPRETED = bool(numba.config.DISABLE_JIT)
LARGEST = float(np.finfo(np.float32).max)
MOST = LARGEST * (1 - 2.0**-10)  # levels end here
EIGHT_BITS = 2.0**-9  # what rounding to bfloat16 moves a number by, at most, relative to it

SHAPES = [(0,), (1,), (5,), (3, 64), (2, 130), (4, 3, 5), (2, 3, 3, 3), (0, 7), (3, 0), (), (7, 1)]
GROUP_SIZES = (4, 64, "channel", "tensor")


@pytest.fixture(autouse=True, scope="module")
def warm() -> Iterator[None]:
    """Compile before hypothesis starts its clock; uncompiled, let infinities pass in silence."""
    with np.errstate(over="ignore" if INTERPRETED else "warn"):
        for mean in (True, False):
            R2q(4, mean=mean).quantize(np.ones((2, 8), np.float32), 2).dequantize()
        yield


# Data


MAKERS = {
    "gaussian": lambda rng, n: rng.standard_normal(n),
    "student-t": lambda rng, n: rng.standard_t(3, n) * 0.02,
    "spike": lambda rng, n: rng.standard_normal(n) * 1e-3 + 5.0 * (np.arange(n) % 16 == 3),
    "offset": lambda rng, n: 3 + rng.standard_normal(n) * 0.01,
    "negative": lambda rng, n: -rng.random(n) - 0.1,
    "constant": lambda _, n: np.full(n, 0.3),
    "negative constant": lambda _, n: np.full(n, -0.3),
    "zeros": lambda _, n: np.zeros(n),
    "signed zeros": lambda rng, n: rng.choice([0.0, -0.0, 1.0], n),
    "whole": lambda rng, n: rng.integers(-3, 4, n),
    "smallest": lambda rng, n: rng.choice([-1.0, 0.0, 1.0], n) * 2.0**-149,
    "denormal": lambda rng, n: rng.standard_normal(n) * 1e-40,
    "tiny": lambda rng, n: rng.standard_normal(n) * 1e-37,
    "huge": lambda rng, n: rng.uniform(-3e38, 3e38, n),
    "largest": lambda rng, n: rng.choice([-LARGEST, LARGEST, 1.0], n),
    "all largest": lambda _, n: np.full(n, LARGEST),
    "all smallest": lambda _, n: np.full(n, -LARGEST),
}
DENORMAL = ("smallest", "denormal")  # bfloat16 has fewer than eight bits there
every_kind = pytest.mark.parametrize("kind", list(MAKERS))
every_mean = pytest.mark.parametrize("mean", [True, False], ids=["mean", "no mean"])
every_size = pytest.mark.parametrize("group_size", GROUP_SIZES)


def data(kind: str, shape: tuple[int, ...]) -> Array:
    n = math.prod(shape)
    values = MAKERS[kind](np.random.default_rng([n, list(MAKERS).index(kind)]), n)
    return np.asarray(values, np.float32).reshape(shape)


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def groups_of(x: Array, group_size: Any) -> list[list[Array]]:
    rows = rows_of(x)
    return [[rows[at].reshape(-1) for at in row] for row in reference.cut(*rows.shape, group_size)]


# The twin: a group at a time, its places as Python integers and its sums in float64


def to_eight_bits(value: float) -> float:
    """The nearest number of eight significant bits, half to even: bfloat16 without its range."""
    if value == 0:
        return value
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(fraction * 256), exponent - 8)


def places_of(group: Array, centred: bool) -> tuple[list[int], float]:
    """(places, unit): group = places * unit, to half a unit; 2^22 to 2^23 units reach its end."""
    largest = float(abs(group).max())
    exponent = max(math.frexp(largest)[1] - 1, -126) if largest else -126
    unit = 2.0 ** (exponent - 22)
    places = [round(float(w) / unit) for w in group]
    return places if centred else [abs(place) for place in places], unit


def cell_of(place: float, mean: float, a1: float) -> int:
    return (place >= mean - a1) + (place >= mean) + (place >= mean + a1)


def cells(places: list[int], mean: float, a1: float) -> tuple[list[float], list[float]]:
    members: list[list[int]] = [[], [], [], []]
    for place in places:
        members[cell_of(place, mean, a1)].append(place)
    return [float(len(cell)) for cell in members], [float(sum(cell)) for cell in members]


def folded(counts: list[float], sums: list[float], mean: float) -> tuple[float, float]:
    inner = sums[2] - sums[1] - mean * (counts[2] - counts[1])
    outer = sums[3] - sums[0] - mean * (counts[3] - counts[0])
    return inner, outer


def twin_centre(counts: list[float], sums: list[float], mean: float) -> float:
    weights, totals = [], []
    for low, high in ((0, 3), (1, 2)):
        if counts[low] and counts[high]:
            share = 1 / (counts[low] + counts[high])
            weights.append(counts[low] * counts[high] * share)
            totals.append((sums[low] * counts[high] + sums[high] * counts[low]) * 0.5 * share)
    return sum(totals) / sum(weights) if weights else mean


def twin_terms(group: Array, rounds: int, centred: bool) -> list[float]:
    """[a1, a2, mean] of one group, before they are stored."""
    places, unit = places_of(group, centred)
    n, total = len(places), float(sum(places))
    mean = to_eight_bits(total / n) if centred else 0.0
    a1 = to_eight_bits(sum(folded(*cells(places, mean, 0), mean)) / n)
    least, best = math.inf, [a1, 0.0, mean]
    for _ in range(rounds + 1):
        counts, sums = cells(places, mean, a1)
        inner, outer = folded(counts, sums, mean)
        n_inner, n_outer = counts[1] + counts[2], counts[0] + counts[3]
        a2 = to_eight_bits((outer - inner - a1 * (n_outer - n_inner)) / n)
        if a2 > a1:
            a1, a2 = a2, a1
            counts, sums = cells(places, mean, a1)
            inner, outer = folded(counts, sums, mean)
            n_inner, n_outer = counts[1] + counts[2], counts[0] + counts[3]
        low, high = a1 - a2, a1 + a2
        error = mean * (n * mean - 2 * total)
        error += low * (n_inner * low - 2 * inner)
        error += high * (n_outer * high - 2 * outer)
        if error >= least:
            break
        least, best = error, [a1, a2, mean]
        if centred:
            mean = to_eight_bits(twin_centre(counts, sums, mean))
        inner, outer = folded(counts, sums, mean)
        if n_inner and n_outer:
            a1 = to_eight_bits(abs(inner / n_inner + outer / n_outer) * 0.5)
    return [value * unit for value in best]


def truncated(value: float) -> float:
    """Towards zero, to a bfloat16."""
    bits = np.array(value, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return float(bits.view(np.float32))


def stored(terms: list[float]) -> list[float]:
    """(a1, a2, mean) such that no level leaves the range of float32."""
    a1, a2, mean = terms
    if abs(mean) > MOST:
        mean = math.copysign(truncated(MOST), mean)
    a1 = min(a1, a1 if a1 <= MOST - abs(mean) else truncated(MOST - abs(mean)))
    room = MOST - abs(mean) - a1
    return [a1, a2 if a2 <= room else truncated(room), mean]


def twin(x: Array, r2q: R2q) -> tuple[Array, Array]:
    """(codes unpacked, parameters (rows, groups, 3) as bfloat16)."""
    rows = rows_of(x)
    cut = reference.cut(*rows.shape, r2q.group_size)
    found = [
        [stored(twin_terms(rows[at].reshape(-1), r2q.rounds, r2q.mean)) for at in row]
        for row in cut
    ]
    groups = len(reference.cut(1, rows.shape[1], r2q.group_size)[0])
    p = np.array(found, np.float32).reshape(len(cut), groups, 3).astype(ml_dtypes.bfloat16)
    codes = np.zeros(rows.shape, np.uint8)
    for row, parameters in zip(cut, p.astype(np.float32), strict=True):
        for at, (a1, _, mean) in zip(row, parameters, strict=True):
            codes[at] = sum((rows[at] >= t).astype("u1") for t in (mean - a1, mean, mean + a1))
    return codes, p


def twin_values(codes: Array, p: Array, group_size: Any) -> Array:
    values = np.zeros(codes.shape, np.float32)
    for row, parameters in zip(
        reference.cut(*codes.shape, group_size), p.astype(np.float32), strict=True
    ):
        for at, (a1, a2, mean) in zip(row, parameters, strict=True):
            levels = [mean - a1 - a2, mean - a1 + a2, mean + a1 - a2, mean + a1 + a2]
            values[at] = np.array(levels, np.float32)[codes[at]]
    return values


# Helpers


def terms_of(q: QuantizedTensor) -> BinaryTerms:
    assert isinstance(q.decoding, BinaryTerms)
    return q.decoding


def squared_errors(x: Array, q: QuantizedTensor) -> list[float]:
    """The squared error of each group."""
    errors = rows_of(x).astype(float) - rows_of(q.dequantize())
    return [math.fsum(e * e) for row in groups_of(errors, q.scheme.group_size) for e in row]


def cosine(w: Array, v: Array) -> float:
    w, v = w.reshape(-1).astype(float), v.reshape(-1).astype(float)
    return float(w @ v / math.sqrt((w @ w) * (v @ v)))


def as_places(values: Any) -> tuple[Array, float]:
    places = np.asarray(values, np.int32)
    return places, float(places.sum())


# Twins


@every_mean
@every_size
@every_kind
def test_r2q_is_its_twin(kind: str, group_size: Any, mean: bool) -> None:
    for shape, rounds in product(SHAPES, (0, 10)):
        x, r2q = data(kind, shape), R2q(group_size, rounds, mean)
        codes, p = twin(x, r2q)
        q = r2q.quantize(x, 2)
        terms, nothing = terms_of(q), np.empty((0, 0), ml_dtypes.bfloat16)
        assert_same_bits(terms.first, p[..., 0].copy(), (shape, rounds))
        assert_same_bits(terms.second, p[..., 1].copy(), (shape, rounds))
        assert_same_bits(terms.mean, p[..., 2].copy() if mean else nothing, (shape, rounds))
        assert_same_bits(q.codes, reference.pack(codes, 2), (shape, rounds))
        values = twin_values(codes, p, group_size)
        assert_same_bits(rows_of(q.dequantize()), values, (shape, rounds))
        sums = reference.deviations(rows_of(x), values)
        np.testing.assert_allclose(q.compare(x), sums, rtol=1e-12)
        assert q.nbytes == len(q.codes.reshape(-1)) + p.size // 3 * (6 if mean else 4)


def test_what_it_is() -> None:
    x = gaussian(8, 128)
    q, without = R2q().quantize(x, 2), R2q(mean=False).quantize(x, 2)
    assert (q.scheme.bits, q.scheme.zero, q.scheme.group_size) == (2, "float", 64)
    assert (without.scheme.zero, without.scheme.symmetric) == ("none", True)
    assert q.bits_per_weight == 2 + 48 / 64
    assert without.bits_per_weight == 2 + 32 / 64
    assert QUANTIZERS["r2q"]() == R2q(group_size=64, rounds=10, mean=True)


def test_levels_and_codes_by_hand() -> None:
    """|w| has mean 4 and mean distance 2 from it: levels -6, -2, 2, 6."""
    x = np.array([[6, -2, 2, -6]], np.float32)
    q = R2q(4, rounds=0, mean=False).quantize(x, 2)
    assert terms_of(q).first.item() == 4
    assert terms_of(q).second.item() == 2
    assert q.codes.tolist() == [[0b00_10_01_11]]
    assert q.dequantize().tolist() == x.tolist()


# Theorems


NUMBERS = st.lists(st.integers(-(2**22), 2**22), min_size=1, max_size=200)


@settings(deadline=None, database=None, derandomize=True, max_examples=30 if INTERPRETED else 300)
@given(values=NUMBERS)
def test_the_greedy_error_is_the_energy_less_that_of_the_terms(values: list[int]) -> None:
    """mean(w^2) - a1^2 - a2^2, for exact terms and the greedy codes sign(w), sign(residual)."""
    places, total = as_places([abs(value) for value in values])
    a1 = binary.first_term(places, total, 0.0)
    a2 = binary.second_term(*binary.cells(places, total, 0.0, a1), 0.0, a1)
    w = np.array(values, float)
    residual = w - a1 * np.where(w >= 0, 1, -1)
    error = residual - a2 * np.where(residual >= 0, 1, -1)
    energy = np.mean(w**2)
    assert np.mean(error**2) == pytest.approx(energy - a1**2 - a2**2, abs=1e-12 * (energy + 1))


@settings(deadline=None, database=None, derandomize=True, max_examples=30 if INTERPRETED else 300)
@given(values=NUMBERS, mean=st.integers(-1000, 1000), a1=st.floats(0, 2**22), seed=st.integers(0))
def test_each_step_is_least_squares(values: list[int], mean: int, a1: float, seed: int) -> None:
    """Against a solver that knows nothing of cells, for the codes under (mean, a1)."""
    places, total = as_places(values)
    counts, sums = binary.cells(places, total, float(mean), a1)
    codes = np.array([cell_of(value, mean, a1) for value in values])
    b1, b2 = np.where(codes >= 2, 1.0, -1.0), np.where(codes % 2, 1.0, -1.0)
    y = places.astype(float)
    second = binary.second_term(counts, sums, float(mean), a1)
    want = np.linalg.lstsq(b2[:, None], y - mean - a1 * b1, rcond=None)[0]
    assert second == pytest.approx(want[0], rel=1e-9, abs=1e-6)
    found = binary.centre(counts, sums, float(mean))
    if len(set(codes.tolist())) >= 3:
        design = np.stack([b1, b2, np.ones(len(y))], axis=1)
        want = np.linalg.lstsq(design, y, rcond=None)[0]
        assert found == pytest.approx(want[2], rel=1e-9, abs=1e-6)
    elif set(codes.tolist()) in ({0}, {1}, {2}, {3}, {0, 1}, {2, 3}):
        assert found == mean  # no pair of levels about the mean is in use


@every_mean
@pytest.mark.parametrize("size", [4, 5, 6])
def test_no_assignment_of_codes_beats_it_by_much(size: int, mean: bool) -> None:
    """Brute force over all codes, each with its own least squares, is the limit from below."""
    rng, signs = np.random.default_rng(size), np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    reached = []
    for _ in range(5 if INTERPRETED else 20):
        x = rng.standard_normal((1, size)).astype(np.float32)
        (error,) = squared_errors(x, R2q("channel", 20, mean).quantize(x, 2))
        (greedy,) = squared_errors(x, R2q("channel", 0, mean).quantize(x, 2))
        least = math.inf
        for codes in product(range(4), repeat=size):
            design = signs[list(codes)].astype(float)
            design = np.column_stack([design, np.ones(size)]) if mean else design
            left = x[0] - design @ np.linalg.lstsq(design, x[0].astype(float), rcond=None)[0]
            least = min(least, float(left @ left))
        energy = float(np.sum(x.astype(float) ** 2))
        assert least - 1e-12 <= error <= greedy + 1e-6 * energy
        reached.append((error - least) / energy)
    assert np.median(reached) < 0.02


@every_mean
@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind not in DENORMAL])
def test_more_rounds_never_raise_the_error(kind: str, mean: bool) -> None:
    """To the fixed point in which it is counted: half of 2^-22 of a group's largest magnitude."""
    x = data(kind, (6, 130))
    if kind in ("largest", "all largest", "all smallest"):
        x = x / np.float32(4)  # no parameter is clipped
    errors = [
        np.array(squared_errors(x, R2q(32, rounds, mean).quantize(x, 2)))
        for rounds in (0, 1, 2, 3, 5, 10, 30)
    ]
    groups = [group.astype(float) for row in groups_of(x, 32) for group in row]
    unit = np.array([2.0**-22 * abs(group).max() for group in groups])
    size = np.array([len(group) for group in groups])
    with np.errstate(over="ignore"):
        for before, after in pairwise(errors):
            slack = 2 * unit * np.sqrt(size * before) + 2 * size * unit**2
            assert (after <= before + slack).all()
    if kind in ("gaussian", "student-t"):
        assert errors[5].sum() < 0.95 * errors[0].sum()


def test_a_round_that_rounding_spoils_is_not_kept() -> None:
    """In one of these groups bfloat16 loses more than least squares gains."""
    x = data("student-t", (40, 64))
    errors = [np.array(squared_errors(x, R2q(64, n).quantize(x, 2))) for n in range(14)]
    energy = np.sum(x.astype(float) ** 2, axis=1)
    for before, after in pairwise(errors):
        assert (after <= before + 1e-6 * energy).all()


@every_mean
@pytest.mark.parametrize("kind", ["gaussian", "student-t", "negative", "whole", "huge"])
def test_where_it_ends_least_squares_gains_only_what_rounding_costs(kind: str, mean: bool) -> None:
    x = data(kind, (4, 256)) / np.float32(4 if kind == "huge" else 1)
    q = R2q(64, 100, mean).quantize(x, 2)
    codes = reference.unpack(q.codes, 2, 256)
    errors = squared_errors(x, q)
    for error, w, code in zip(
        errors,
        [g for row in groups_of(x, 64) for g in row],
        [g for row in groups_of(codes, 64) for g in row],
        strict=True,
    ):
        design = [np.where(code >= 2, 1.0, -1.0), np.where(code % 2, 1.0, -1.0)]
        design += [np.ones(64)] if mean else []
        solution = np.linalg.lstsq(np.stack(design, axis=1), w.astype(float), rcond=None)[0]
        left = w - np.stack(design, axis=1) @ solution
        cost = 3 * 64 * EIGHT_BITS**2 * float(solution @ solution)
        assert error <= float(left @ left) + cost


@every_mean
@every_size
@every_kind
def test_codes_ascend_and_are_the_nearest(kind: str, group_size: Any, mean: bool) -> None:
    x = data(kind, (3, 70))
    q = R2q(group_size, 10, mean).quantize(x, 2)
    terms = terms_of(q)
    parameters = [
        np.broadcast_to(part, (3, q.layout.groups)).astype(float)
        for part in (terms.first, terms.second, *([terms.mean] if mean else []))
    ]
    restored = q.dequantize()
    size = q.layout.group_size
    for r, j in product(range(3), range(q.layout.groups)):
        w = x[r, j * size : (j + 1) * size].astype(float)
        v = restored[r, j * size : (j + 1) * size].astype(float)
        a1, a2, m = (*[part[r, j] for part in parameters], 0.0)[:3]
        assert a1 >= a2 >= 0
        order = np.argsort(w, kind="stable")
        assert (np.diff(v[order]) >= 0).all()
        levels = np.array([m - a1 - a2, m - a1 + a2, m + a1 - a2, m + a1 + a2])
        nearest = abs(w[:, None] - levels).min(axis=1)
        slack = 4 * 2.0**-24 * (abs(m) + a1 + a2)  # thresholds and levels are float32
        assert (abs(w - v) <= nearest + slack).all()


@every_mean
@every_size
@every_kind
def test_restored_values_are_finite(kind: str, group_size: Any, mean: bool) -> None:
    for shape in [(1,), (5,), (3, 70)]:
        x = data(kind, shape)
        restored = R2q(group_size, 10, mean).quantize(x, 2).dequantize()
        assert np.isfinite(restored).all()
        if kind in ("constant", "negative constant", "all largest", "all smallest"):
            assert abs(restored - x).max() <= 2.0**-7 * abs(x).max()
        if kind == "zeros":
            assert_same_bits(restored, np.zeros(shape, np.float32), "zeros")


def test_the_larger_term_comes_first() -> None:
    """A spike makes the greedy residual larger than the first term; the levels are the same."""
    x = np.zeros((1, 8), np.float32)
    x[0, 0] = 8
    greedy = terms_of(R2q("channel", 0, mean=False).quantize(x, 2))
    first, second = 1.0, (7.0 + 7 * 1.0) / 8  # mean |w|, mean ||w| - 1|
    assert second > first
    assert (greedy.first.item(), greedy.second.item()) == (second, first)


@pytest.mark.parametrize("exponent", [-60, -1, 1, 60])
@every_mean
@every_size
def test_powers_of_two_pass_through(group_size: Any, mean: bool, exponent: int) -> None:
    x, factor = gaussian(3, 70), np.float32(2.0**exponent)
    q = R2q(group_size, 10, mean).quantize(x, 2)
    scaled = R2q(group_size, 10, mean).quantize(x * factor, 2)
    assert_same_bits(scaled.codes, q.codes, "codes")
    assert_same_bits(scaled.dequantize(), q.dequantize() * factor, "restored")


def test_without_a_mean_signs_pass_through() -> None:
    x = gaussian(3, 70)
    q, negated = (R2q(mean=False).quantize(w, 2) for w in (x, -x))
    assert_same_bits(negated.dequantize(), -q.dequantize(), "restored")


@every_mean
def test_groups_are_alone_and_their_order_is_theirs(mean: bool) -> None:
    x = gaussian(4, 192)
    q = R2q(64, 10, mean).quantize(x, 2)
    changed = x.copy()
    changed[2, 64:128] = 7
    other = R2q(64, 10, mean).quantize(changed, 2)
    same = np.ones((4, 192), bool)
    same[2, 64:128] = False
    assert np.array_equal(other.dequantize()[same], q.dequantize()[same])
    assert not np.array_equal(other.dequantize()[~same], q.dequantize()[~same])
    swapped = R2q(64, 10, mean).quantize(x[::-1], 2)
    assert_same_bits(swapped.dequantize(), q.dequantize()[::-1].copy(), "rows")
    order = np.concatenate([64 * j + np.random.default_rng(j).permutation(64) for j in range(3)])
    shuffled = R2q(64, 10, mean).quantize(x[:, order], 2)
    assert_same_bits(shuffled.dequantize(), q.dequantize()[:, order].copy(), "within groups")


@every_mean
def test_encoding_again_changes_nothing(mean: bool) -> None:
    q = R2q(64, 10, mean).quantize(gaussian(3, 130), 2)
    again = QuantizedTensor(np.zeros_like(q.codes), q.decoding, q.scheme, q.shape)
    encode_rows(q.dequantize(), again)
    assert_same_bits(again.codes, q.codes, "codes")


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@example(x=np.full((1, 4), LARGEST, np.float32), group_size=4, rounds=10, mean=True)
@example(x=np.array([LARGEST, -LARGEST, 1], np.float32), group_size=4, rounds=0, mean=True)
@settings(deadline=None, database=None, derandomize=True, max_examples=30 if INTERPRETED else 300)
@given(
    x=arrays(
        np.float32,
        array_shapes(min_dims=1, max_dims=3, max_side=12),
        elements=st.floats(-4, 4, width=32) | FINITE,
    ),
    group_size=st.sampled_from(GROUP_SIZES),
    rounds=st.sampled_from([0, 1, 10]),
    mean=st.booleans(),
)
def test_any_weights(x: Array, group_size: Any, rounds: int, mean: bool) -> None:
    """The twin's bits; finite; and no group worse than its mean, or zero, in its place."""
    r2q = R2q(group_size, rounds, mean)
    q, (codes, p) = r2q.quantize(x, 2), twin(x, R2q(group_size, rounds, mean))
    assert_same_bits(q.codes, reference.pack(codes, 2), "codes")
    restored = q.dequantize()
    assert_same_bits(rows_of(restored), twin_values(codes, p, group_size), "values")
    assert np.isfinite(restored).all()
    for row, back in zip(groups_of(x, group_size), groups_of(restored, group_size), strict=True):
        for w, v in zip(row, back, strict=True):
            w = w.astype(float)
            energy = math.fsum(w * w)
            slack = 4 * EIGHT_BITS * energy + len(w) * 2.0**-260
            assert math.fsum((w - v) ** 2) <= energy + slack


# Published: cosines of greedy terms, ten alternations, and these with a mean, a group size

PUBLISHED = [
    (0, False, 32, 0.9391, 0.8990),
    (0, False, 64, 0.9370, 0.8938),
    (0, False, 128, 0.9358, 0.8916),
    (0, False, 768, 0.9351, 0.8890),
    (10, False, 32, 0.9466, 0.9298),
    (10, False, 64, 0.9433, 0.9191),
    (10, False, 128, 0.9414, 0.9113),
    (10, False, 768, 0.9398, 0.9041),
    (10, True, 32, 0.9537, 0.9400),
    (10, True, 64, 0.9475, 0.9256),
    (10, True, 128, 0.9439, 0.9155),
    (10, True, 768, 0.9404, 0.9052),
]


@pytest.mark.parametrize(
    ("rounds", "mean", "group_size", "distribution", "published"),
    [
        (*case[:3], distribution, value)
        for case in PUBLISHED
        for distribution, value in zip(("gaussian", "t5"), case[3:], strict=True)
    ],
)
def test_published_cosines(
    rounds: int, mean: bool, group_size: int, distribution: str, published: float
) -> None:
    rng, shape = np.random.default_rng(5), (16 if INTERPRETED else 1024, 768)
    x = rng.standard_normal(shape) if distribution == "gaussian" else rng.standard_t(5, shape)
    spread = (8 if INTERPRETED else 1) * (3 if distribution == "t5" else 1)
    restored = R2q(group_size, rounds, mean).quantize(x, 2).dequantize()
    assert cosine(x, restored) == pytest.approx(published, abs=5e-4 * spread)


@pytest.mark.skipif(INTERPRETED, reason="alternating over a million weights takes minutes")
def test_the_default_is_at_least_what_was_asked() -> None:
    rng = np.random.default_rng(6)
    for x, least in [
        (rng.standard_normal((1024, 1024)), 0.947),
        (rng.standard_t(5, (1024, 1024)), 0.925),
    ]:
        restored = R2q().quantize(x, 2).dequantize()
        assert cosine(x, restored) >= least
        assert cosine(x, restored) > cosine(x, Rtn(zero="float").quantize(x, 2).dequantize()) + 0.02


@pytest.mark.skipif(INTERPRETED, reason="alternating over a million weights takes minutes")
def test_at_equal_bits_a_mean_is_worth_its_place() -> None:
    """Groups of 48 with a mean and of 32 without take 3 bits a weight."""
    rng = np.random.default_rng(7)
    for x in (rng.standard_normal((1024, 768)), rng.standard_t(5, (1024, 768))):
        with_mean, without = R2q(48).quantize(x, 2), R2q(32, mean=False).quantize(x, 2)
        assert with_mean.bits_per_weight == without.bits_per_weight == 3
        assert cosine(x, with_mean.dequantize()) > cosine(x, without.dequantize()) + 5e-4


# Arguments


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"rounds": -1}, "rounds=-1 is not a whole number of at least 0"),
        ({"rounds": 2.0}, "rounds=2.0 is not a whole number of at least 0"),
        ({"rounds": True}, "rounds=True is not a whole number of at least 0"),
        ({"mean": 1}, "mean=1 is neither True nor False"),
    ],
    ids=str,
)
def test_options_that_do_not_exist(case: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemeError) as raised:
        R2q(**case)
    assert str(raised.value) == message


@pytest.mark.parametrize("bits", [4, 8, 1, "2"])
def test_other_widths_are_refused(bits: Any) -> None:
    with pytest.raises(SchemeError) as raised:
        R2q().quantize(np.ones((2, 8), np.float32), bits)
    assert str(raised.value) == f"bits={bits!r} is not 2, the only width of r2q"


def test_other_group_sizes_are_refused() -> None:
    with pytest.raises(SchemeError, match=r"^group_size=6 is neither a positive multiple of 4"):
        R2q(6).quantize(np.ones((2, 8), np.float32), 2)


@every_size
def test_nan_and_infinity_are_refused(group_size: Any) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        x = np.ones((3, 70), np.float32)
        x[1, 65] = bad
        with pytest.raises(TensorError) as raised:
            R2q(group_size).quantize(x, 2)
        want = f"weight has {bad} at index (1, 65); every value must be finite"
        assert str(raised.value) == want


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, ">f4"], ids=str)
def test_other_floats_are_taken_as_float32(dtype: Any) -> None:
    x = gaussian(3, 70).astype(dtype)
    q, want = R2q().quantize(x, 2), R2q().quantize(x.astype(np.float32), 2)
    assert_same_bits(q.codes, want.codes, dtype)
    assert_same_bits(q.dequantize(), want.dequantize(), dtype)
    sums = reference.deviations(rows_of(x).astype(float), rows_of(q.dequantize()))
    np.testing.assert_allclose(q.compare(x), sums, rtol=1e-12)


def test_a_comparison_of_many_rows_is_taken_a_part_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = gaussian(10, 130)
    q = R2q().quantize(x, 2)
    whole = q.compare(x)
    monkeypatch.setattr("pytest_arrowquant.binary_terms.AT_A_TIME", 300)
    assert_same_bits(q.compare(x), whole, "sums")


def test_a_read_only_strided_weight_is_taken() -> None:
    x = gaussian(6, 140)
    view = x[:, ::2]
    view.flags.writeable = False
    assert_same_bits(R2q().quantize(view, 2).codes, R2q().quantize(view.copy(), 2).codes, "codes")
