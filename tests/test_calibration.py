"""Calibration: what it accepts, and its sums against plain numpy in float64."""

import numpy as np
import pytest

from pytest_arrowquant.arrays import Array
from pytest_arrowquant.calibration import Calibration
from pytest_arrowquant.errors import TensorError

TOKENS, CHANNELS = 5000, 24  # more than two blocks of tokens


@pytest.fixture
def tokens() -> Array:
    return np.random.default_rng(0).standard_normal((TOKENS, CHANNELS)).astype(np.float32)


def test_the_hessian_is_the_mean_outer_product(tokens: Array):
    calibration = Calibration.of(tokens)
    exact = tokens.astype(np.float64)
    np.testing.assert_allclose(
        calibration.hessian, exact.T @ exact / TOKENS, rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(calibration.energies, np.diag(calibration.hessian), rtol=1e-12)
    assert calibration.hessian is calibration.hessian


def test_tokens_are_ordered_by_timestep(tokens: Array):
    at = np.random.default_rng(1).integers(0, 7, TOKENS)
    calibration = Calibration.of(tokens, at)
    assert calibration.steps == 7
    for step, found in enumerate(calibration.by_step()):
        np.testing.assert_array_equal(found, tokens[at == step])
        np.testing.assert_array_equal(
            calibration.channel_peaks[step], np.abs(tokens[at == step]).max(axis=0)
        )


def test_leading_axes_are_tokens(tokens: Array):
    folded = tokens[:1200].reshape(3, 400, CHANNELS)
    np.testing.assert_array_equal(Calibration.of(folded).inputs, tokens[:1200])
    assert Calibration.of(folded).steps == 1


def test_a_calibration_passes_through(tokens: Array):
    calibration = Calibration.of(tokens)
    assert Calibration.of(calibration) is calibration


def test_what_does_not_fit_is_refused(tokens: Array):
    at = np.zeros(TOKENS, int)
    at[-1] = 2
    with pytest.raises(TensorError, match="timestep 1 of 3 has no token; each needs one"):
        Calibration.of(tokens, at)
    with pytest.raises(TensorError, match="timestep 3 of 4 has no token"):
        Calibration.of(tokens, np.arange(TOKENS) % 3, steps=4)
    with pytest.raises(TensorError, match=r"timesteps run from 0 to 2, not in 0\.\.1"):
        Calibration.of(tokens, np.arange(TOKENS) % 3, steps=2)
    with pytest.raises(TensorError, match=r"timesteps is float64 \(5000,\); expected a whole numb"):
        Calibration.of(tokens, at * 1.0)
    with pytest.raises(TensorError, match=r"timesteps is int64 \(7,\); expected a whole number fo"):
        Calibration.of(tokens, at[:7])
    with pytest.raises(TensorError, match=r"inputs has shape \(24,\); expected \(tokens, input c"):
        Calibration.of(tokens[0])
    with pytest.raises(TensorError, match=r"calibration inputs has shape \(0, 24\)"):
        Calibration.of(tokens[:0])
    with pytest.raises(TensorError, match="steps='3' is not a whole number of at least 1"):
        Calibration.of(tokens, steps="3")
    with pytest.raises(TensorError, match="inputs is a Calibration, which has its own timesteps"):
        Calibration.of(Calibration.of(tokens), np.zeros(TOKENS, int))
    with pytest.raises(TensorError, match=r"inputs as float32 has inf at index \(0, 0\)"):
        Calibration.of(np.full((2, 3), 1e300))
    tokens[3, 7] = np.inf
    with pytest.raises(TensorError, match=r"calibration inputs has inf at index \(3, 7\)"):
        Calibration.of(tokens)


def test_channels_must_be_those_of_the_weight(tokens: Array):
    Calibration.of(tokens).require_channels((5, 8, 3))
    with pytest.raises(
        TensorError, match=r"inputs has 24 channels; conv of shape \(5, 8, 4\) takes 32"
    ):
        Calibration.of(tokens).require_channels((5, 8, 4), "conv")
