"""What users may hand over, and what kernels are handed."""

import ml_dtypes
import numpy as np
import pytest

from pytest_arrowquant import TensorError
from pytest_arrowquant.arrays import as_floating, as_rows


class OnlyArray:
    def __array__(self, dtype=None, copy=None):
        return np.float32([1, 2])


class OnlyDlpack:
    array = np.float64([1, 2])

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_other_libraries():
    assert as_floating(OnlyArray(), "w").dtype == np.float32
    assert as_floating(OnlyDlpack(), "w").dtype == np.float64
    assert as_floating([1.0, 2.0], "w").dtype == np.float64


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.arange(3), "w is an array of int64; expected float16, bfloat16, float32 or float64"),
        (np.ones(3, complex), "w is an array of complex128; expected"),
        (np.array(["a"]), "w is an array of <U1; expected"),
        (np.array([None]), "w is an array of object; expected"),
        (np.ones(3, ml_dtypes.float8_e4m3fn), "w is an array of float8_e4m3fn; expected"),
        (True, "w is bool True; expected"),
        ("text", "w is str 'text'; expected"),
        (None, "w is NoneType None; expected"),
        ([[1.0], [1.0, 2.0]], "w is list [[1.0], [1.0, 2.0]], not an array"),
    ],
)
def test_what_is_no_floating_array_is_named(value, said):
    with pytest.raises(TensorError) as error:
        as_floating(value, "w")
    assert said in str(error.value)


def test_rows_of_a_read_only_array_are_one_type_and_one_memory():
    """numba compiles a kernel again for a read-only array; no copy may be made to avoid it."""
    array = np.ones((3, 2, 4), np.float32)
    array.setflags(write=False)
    rows = as_rows(array, np.float32)
    assert rows.shape == (3, 8)
    assert rows.flags.writeable
    assert np.shares_memory(rows, array)
    assert not array.flags.writeable


def test_rows_outlive_the_array_they_are_of():
    array = np.arange(100_000, dtype=np.float32)
    array.setflags(write=False)
    rows = as_rows(array, np.float32)
    del array
    np.testing.assert_array_equal(rows[0], np.arange(100_000))


def test_rows_are_contiguous_and_hold_narrow_floats_exactly():
    array = np.arange(12, dtype=ml_dtypes.bfloat16).reshape(3, 4).T
    rows = as_rows(array, np.float32)
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, array.astype(np.float32))
