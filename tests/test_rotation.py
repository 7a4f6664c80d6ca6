"""Rotation: against dense matrices built from their definitions, and against theorems."""

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest

from pytest_arrowquant.errors import SchemeError, TensorError
from pytest_arrowquant.kernels import hadamard
from pytest_arrowquant.quantizers import Rtn
from pytest_arrowquant.transforms import ActivationQuantizer, Identity, Rotation
from pytest_arrowquant.transforms.rotation import factors, paley, random_signs

Array = np.ndarray[Any, Any]

# width, Paley's order, power of two, blocks
FACTORS = [
    *[(1, 1, 1, 1), (2, 1, 2, 1), (64, 1, 64, 1), (256, 1, 256, 1)],
    *[(12, 12, 1, 1), (96, 12, 8, 1), (80, 20, 4, 1), (56, 28, 2, 1), (72, 36, 2, 1)],
    *[(7, 1, 1, 7), (6, 1, 2, 3), (50, 1, 2, 25), (172, 1, 4, 43)],
]
WIDTHS = {width: tuple(rest) for width, *rest in FACTORS}
every_width = pytest.mark.parametrize("width", WIDTHS)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Uncompiled kernels let infinities pass in silence, as compiled ones do."""
    quiet: Any = {"over": "ignore", "invalid": "ignore"} if numba.config.DISABLE_JIT else {}
    with np.errstate(**quiet):
        yield


def sylvester(n: int) -> Array:
    """H_2n = [[H_n, H_n], [H_n, -H_n]], from H_1 = 1."""
    if n == 1:
        return np.ones((1, 1))
    half = sylvester(n // 2)
    return np.block([[half, half], [half, -half]])


def dense(rotation: Rotation) -> Array:
    """The matrix of a rotation, float64: its columns are the images of the unit vectors."""
    return rotation.weight(np.eye(rotation.channels))


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def distance(got: Array, want: Array) -> float:
    """The relative Frobenius norm of the difference."""
    difference = got.astype(np.float64) - want.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(want.astype(np.float64)))


# The matrices


@pytest.mark.parametrize("order", [12, 20, 28, 36, 44, 52 * 2, 60, 76, 84, 108, 140, 148, 200])
def test_paley_matrices_are_hadamard(order: int):
    matrix = paley(order)
    assert set(matrix.reshape(-1).tolist()) == {1.0, -1.0}
    np.testing.assert_array_equal(matrix @ matrix.T, order * np.eye(order))


@every_width
def test_widths_are_factored(width: int):
    order, power, blocks = WIDTHS[width]
    assert factors(width) == (order, power)
    assert order * power * blocks == width


@pytest.mark.parametrize(
    ("width", "order", "power"),
    [
        *[(768, 12, 64), (1152, 36, 32), (1280, 20, 64), (1536, 12, 128), (3072, 12, 256)],
        *[(4096, 1, 4096), (11008, 1, 256), (14336, 28, 512)],
    ],
)
def test_widths_of_known_models(width: int, order: int, power: int):
    assert factors(width) == (order, power)


@every_width
def test_rotation_is_its_dense_matrix(width: int):
    order, power, blocks = WIDTHS[width]
    hadamard = np.kron(np.eye(blocks), np.kron(paley(order), sylvester(power)))
    signs = random_signs(width, 3)
    matrix = signs[:, None] * hadamard / np.sqrt(order * power)
    rotation, x = Rotation(width, seed=3), gaussian(5, width)
    np.testing.assert_allclose(dense(rotation), matrix, rtol=0, atol=1e-15)
    assert distance(rotation.weight(x), x @ matrix) < 1e-6
    assert distance(rotation.inputs(x), x @ matrix) < 1e-6
    assert distance(rotation.restore(x), x @ matrix.T) < 1e-6


def butterflies(x: Array) -> Array:
    """H x by halves, in the type of x."""
    if x.size == 1:
        return x
    low, high = butterflies(x[: x.size // 2]), butterflies(x[x.size // 2 :])
    return np.concatenate([low + high, low - high])


@every_width
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernel_is_its_twin_to_the_bit(width: int, dtype: Any):
    order, power, blocks = WIDTHS[width]
    kind, mixing = np.dtype(dtype).type, paley(order).astype(dtype)
    rows = gaussian(3 * blocks, order * power).astype(dtype)
    factor = kind(0.3)
    want = []
    for row in rows:
        halved = [butterflies(part) for part in (row * factor).reshape(order, power)]
        for signs in mixing if order > 1 else []:
            total = np.zeros(power, dtype)
            for sign, part in zip(signs, halved, strict=True):
                total = total + sign * part
            want.append(total)
        want += halved if order == 1 else []
    hadamard.transform(rows, mixing, factor)
    bits = f"u{rows.itemsize}"
    np.testing.assert_array_equal(rows.view(bits), np.array(want).reshape(rows.shape).view(bits))


def test_every_entry_is_as_large():
    for width in (64, 96, 768):
        np.testing.assert_allclose(abs(dense(Rotation(width))), width**-0.5, rtol=1e-14)


# Theorems


@every_width
def test_orthogonal(width: int):
    matrix = Rotation(width).weight(np.eye(width, dtype=np.float32)).astype(np.float64)
    assert np.linalg.norm(matrix @ matrix.T - np.eye(width)) < 1e-6


@every_width
def test_outputs_are_kept(width: int):
    rotation, x, w = Rotation(width), gaussian(9, width), gaussian(7, width, seed=1)
    assert distance(rotation.inputs(x) @ rotation.weight(w).T, x @ w.T) < 1e-6


@every_width
def test_weights_come_back_and_keep_their_norm(width: int):
    rotation, w = Rotation(width), gaussian(7, width)
    assert distance(rotation.restore(rotation.weight(w)), w) < 1e-6
    norms = [np.linalg.norm(rows.astype(np.float64)) for rows in (rotation.weight(w), w)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


@every_width
def test_hessian_is_that_of_the_rotated_inputs(width: int):
    rotation, x = Rotation(width), gaussian(2 * width, width).astype(np.float64)
    rotated = rotation.inputs(x)
    assert rotated.dtype == np.float64
    assert distance(rotation.hessian(x.T @ x), rotated.T @ rotated) < 1e-12


def test_what_is_given_is_left_as_it_is():
    rotation, w, h = Rotation(96), gaussian(4, 96), np.eye(96)
    copies = w.copy(), h.copy()
    w.setflags(write=False)
    rotation.weight(w), rotation.restore(w), rotation.inputs(w), rotation.hessian(h)
    np.testing.assert_array_equal(w, copies[0])
    np.testing.assert_array_equal(h, copies[1])
    np.testing.assert_array_equal(
        rotation.weight(np.asfortranarray(w)), rotation.weight(w)
    )  # whatever the order in memory


def test_signs_are_those_of_the_seed():
    one = random_signs(768, 0)
    assert abs(one.mean()) < 4 / 768**0.5
    np.testing.assert_array_equal(one, random_signs(768, 0))
    assert (one != random_signs(768, 1)).mean() > 0.4
    drawn_once = [1, 1, -1, -1, 1, -1, 1, 1, 1, 1, 1, 1]  # every machine must draw the same
    assert random_signs(12, 0).tolist() == drawn_once


# Outliers


def sqnr_db(want: Array, got: Array) -> float:
    return -20 * np.log10(distance(got, want))


@pytest.mark.parametrize("group_size", ["tensor", "channel", 64])
@pytest.mark.parametrize("seed", range(3))
def test_gain_with_outlier_channels(group_size: Any, seed: int):
    """W8A8, one range for all inputs, 4 of 768 channels x 20: at least 14 dB over plain."""
    rng = np.random.default_rng(seed)
    scale = np.ones(768)
    scale[rng.permutation(768)[:4]] = 20
    x, w = gaussian(256, 768, seed=seed) * scale.astype(np.float32), gaussian(256, 768, seed=9)

    def outputs_db(transform: Any) -> float:
        tokens, rows = transform.inputs(x), transform.weight(w)
        restored = Rtn(group_size).quantize(rows, 8).dequantize()
        rounded = ActivationQuantizer.fit(tokens).quantize(tokens)
        return sqnr_db(x @ w.T, rounded @ restored.T)

    plain, rotated = outputs_db(Identity()), outputs_db(Rotation(768))
    assert 18 < plain < 23
    assert rotated - plain >= 14


# Bad input


@pytest.mark.parametrize("channels", [0, -4, 1.5, True, "768"])
def test_a_width_that_is_none(channels: Any):
    with pytest.raises(SchemeError, match="is not a number of input channels"):
        Rotation(channels)


@pytest.mark.parametrize("method", ["weight", "restore", "inputs"])
def test_rows_that_do_not_fit(method: str):
    apply = getattr(Rotation(96), method)
    with pytest.raises(TensorError, match=r"has shape \(2, 95\); expected \(rows, 96\)"):
        apply(gaussian(2, 95))
    with pytest.raises(TensorError, match=r"has shape \(96,\); expected \(rows, 96\)"):
        apply(gaussian(96))
    poisoned = gaussian(2, 96)
    poisoned[1, 5] = np.nan
    with pytest.raises(TensorError, match=r"has nan at index \(1, 5\); every value must be finite"):
        apply(poisoned)
    with pytest.raises(TensorError, match="leaves the range of float32 where it is transformed"):
        apply(np.copysign(np.float32(3e38), dense(Rotation(96))).astype(np.float32))


def test_hessians_that_do_not_fit():
    with pytest.raises(TensorError, match=r"hessian has shape \(3, 4\); expected \(96, 96\)"):
        Rotation(96).hessian(np.ones((3, 4)))
    poisoned = np.eye(96)
    poisoned[2, 3] = np.inf
    with pytest.raises(TensorError, match=r"hessian has inf at index \(2, 3\)"):
        Rotation(96).hessian(poisoned)


def test_what_the_record_says():
    assert Rotation(768, seed=2).options == {"transform": "rotation", "seed": 2, "block": 768}
    assert Rotation(11008).options["block"] == 256
    assert (Rotation(768).nbytes, Rotation(7).nbytes, Identity().nbytes) == (96, 1, 0)
    assert Identity().options == {"transform": "identity"}
