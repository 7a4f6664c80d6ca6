"""The library's tests, as they were, and two that hold its accuracy."""

import numpy as np
import pytest
from int_codec import decode, encode


@pytest.fixture
def weight():
    return np.random.default_rng(0).standard_normal((256, 512), dtype=np.float32)


def test_codes_are_bytes_within_the_width(weight):
    codes = encode(weight, 4).codes
    assert codes.dtype == np.uint8
    assert codes.max() == 15


def test_shape_and_dtype_are_kept(weight):
    restored = decode(encode(weight, 8))
    assert (restored.shape, restored.dtype) == (weight.shape, weight.dtype)


def test_zeros_stay_zero():
    zeros = np.zeros((4, 8), np.float32)
    assert not decode(encode(zeros, 4)).any()


@pytest.mark.arrowquant
@pytest.mark.parametrize("bits", [4, 8])
def test_every_width_is_accurate(arrowquant, weight, bits):
    arrowquant.check(weight, decode(encode(weight, bits)))


@pytest.mark.arrowquant(bits=4, output_cosine=0.99)
def test_outputs_of_a_layer_are_accurate(arrowquant, weight):
    inputs = np.random.default_rng(1).standard_normal((64, 512), dtype=np.float32)
    arrowquant.check(weight, decode(encode(weight, 4)), inputs=inputs)
