"""What users hand over, as numpy arrays of a known floating type; checked once, here."""

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from .errors import TensorError
from .scheme import rows_and_columns

Array = npt.NDArray[Any]
FLOATS = ("float16", "bfloat16", "float32", "float64")
NATIVE = frozenset(map(np.dtype, FLOATS))


def as_floating(value: object, name: str) -> Array:
    """`value` as a numpy array of float16, bfloat16, float32 or float64; not copied if it is one.

    Takes whatever has `__array__` or DLPack. Raises TensorError for any other type of number.
    """
    array = _as_array(value, name)
    if array.dtype not in NATIVE and array.dtype.name not in FLOATS:  # a name is slow to get
        kind = (
            f"an array of {array.dtype}" if array.shape or _is_array(value) else _described(value)
        )
        raise TensorError(f"{name} is {kind}; expected {', '.join(FLOATS[:-1])} or {FLOATS[-1]}")
    return array


def as_rows(array: Array, dtype: type[np.generic]) -> Array:
    """The array as C-contiguous rows of `dtype`, float32 or float64; a view where it can be.

    For kernels to read: one of a read-only array is marked writeable, as numba would compile
    every kernel a second time for it.
    """
    if array.dtype == dtype and array.flags.carray:
        return array.reshape(rows_and_columns(array.shape))
    rows = np.require(array, dtype, ["C", "A"]).reshape(rows_and_columns(array.shape))
    if rows.flags.writeable:
        return rows
    interface = dict(rows.__array_interface__)
    interface["data"] = (interface["data"][0], False)
    return np.asarray(SimpleNamespace(__array_interface__=interface, owner=rows))


def common_dtype(*arrays: Array) -> type[np.floating[Any]]:
    """float64 if any of the arrays is, else float32, which holds the narrower types exactly."""
    wide = any(array.dtype == np.float64 for array in arrays)
    return np.float64 if wide else np.float32


def limits_of(dtype: np.dtype[Any]) -> Any:
    """What `finfo` says of a floating dtype, bfloat16 included."""
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def first_non_finite(array: Array) -> str:
    """Where the first NaN or infinity stands, in words: 'nan at index (3, 7)'."""
    flat = int(np.argmin(np.isfinite(array)))
    index = tuple(int(i) for i in np.unravel_index(flat, array.shape))
    return f"{float(array[index])} at index {index}"


def require_finite(array: Array, name: str) -> None:
    """Raise TensorError naming the first NaN or infinity."""
    if not np.isfinite(array).all():
        raise TensorError(f"{name} has {first_non_finite(array)}; every value must be finite")


def dequantizes(value: object) -> bool:
    """True for a quantized result; a plain tensor of torch has a method of that name, too."""
    if not callable(getattr(value, "dequantize", None)):
        return False
    own = any(
        "dequantize" in vars(kind) and kind.__module__.partition(".")[0] != "torch"
        for kind in type(value).__mro__
    )
    return own or not _is_array(value) or bool(getattr(value, "is_quantized", False))


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def _described(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _as_array(value: Any, name: str) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):  # a torch tensor: numpy takes neither gradients nor bfloat16
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            return value.float().numpy().astype(ml_dtypes.bfloat16)  # type: ignore[no-any-return]
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TensorError(f"{name} is {_described(value)}, not an array: {error}") from None
