"""One call of somebody's quantizer: what it restores, or what it did wrong, by its name."""

from dataclasses import replace
from typing import Any

import numpy as np

from .arrays import FLOATS, Array, as_floating, dequantizes
from .codes import Grid
from .errors import ArrowQuantError, QuantizerError
from .examine import Restored
from .scheme import rows_and_columns
from .traits import Traits

ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)
CASTS = ("float32", "bfloat16", "float16", "float64")  # what a weight is cast to, if it must be


def taken(weight: Array, traits: Traits, name: str) -> Array:
    """The weight as the quantizer takes it, read-only.

    As rows and columns if it has other axes than the quantizer takes; in float32, or the next
    dtype that it takes, if it takes not its own. QuantizerError where values are lost by more than
    rounding.
    """
    domain = traits.domain
    if weight.ndim not in domain.dimensions:
        axes = domain.axes_of_rows
        if axes is None:
            raise QuantizerError(
                f"quantizer {traits.name!r} takes vectors alone; {name} has shape {weight.shape}"
            )
        weight = weight.reshape(*rows_and_columns(weight.shape), *(1,) * (axes - 2))
    if weight.dtype.name not in domain.dtypes:
        dtype = next(name for name in CASTS if name in domain.dtypes)
        with np.errstate(over="ignore"):
            cast = weight.astype(dtype)
        if not np.isfinite(cast).all():
            raise QuantizerError(
                f"quantizer {traits.name!r} takes {', '.join(domain.dtypes)}; {name} is "
                f"{weight.dtype}, and in {dtype} its largest would be infinite"
            )
        weight = cast
    weight = weight.view()
    weight.flags.writeable = False
    return weight


def quantized(
    quantizer: Any, traits: Traits, weight: Array, bits: int, calibration: object, name: str
) -> Any:
    """What quantize() returns; QuantizerError where it raises or returns nothing restorable.

    weight: an array, handed over as it is. name: of the tensor, for errors.
    """
    given = (weight, bits, calibration) if traits.needs_calibration else (weight, bits)
    try:
        result = quantizer.quantize(*given)
    except (QuantizerError, *ENDS):
        raise
    except BaseException as error:  # of a test framework's skip(), too
        raise _raised(traits, "", weight, bits, name, error) from error
    if not dequantizes(result):
        raise QuantizerError(
            f"quantizer {traits.name!r} returned a {type(result).__name__} for {name}, which has "
            "no dequantize()"
        )
    return result


def restored(result: Any, traits: Traits, weight: Array, bits: int, name: str) -> Array:
    """What dequantize() returns as an array of the weight's shape; QuantizerError if it does not.

    Of the weight's dtype, or of float32 or float64, in which most compute.
    """
    try:
        values = result.dequantize()
    except (QuantizerError, *ENDS):
        raise
    except BaseException as error:
        raise _raised(traits, " in dequantize()", weight, bits, name, error) from error
    try:
        array = as_floating(values, "what it restored")
    except ArrowQuantError as error:
        raise QuantizerError(
            f"quantizer {traits.name!r} on {_described(weight, bits, name)}: {error}"
        ) from None
    if array.shape != weight.shape:
        raise QuantizerError(
            f"quantizer {traits.name!r} restored shape {array.shape} of "
            f"{_described(weight, bits, name)}"
        )
    narrow = FLOATS.index(array.dtype.name) < FLOATS.index("float32")
    if narrow and array.dtype != weight.dtype:
        fitting = dict.fromkeys((weight.dtype.name, "float32"))
        raise QuantizerError(
            f"quantizer {traits.name!r} restored {array.dtype} of "
            f"{_described(weight, bits, name)}; expected {' or '.join(fitting)}"
        )
    if np.may_share_memory(array, weight):
        raise QuantizerError(
            f"quantizer {traits.name!r} returned {name} itself, not restored values"
        )
    return array


def with_grid(result: Any, values: Array, traits: Traits, bits: int) -> Restored:
    """The values with what the result says of its size and groups, or else what is declared."""
    whole = Restored.of(values, result)
    if whole.grid is None and traits.granularity is not None:
        return replace(whole, grid=Grid(bits, None, traits.granularity))
    return whole


def _raised(
    traits: Traits, where: str, weight: Array, bits: int, name: str, error: BaseException
) -> QuantizerError:
    said = f"{type(error).__name__}: {error}"
    wrote = "read-only" in str(error)
    of_weight = "; weights are handed over read-only and must not be written to" if wrote else ""
    return QuantizerError(
        f"quantizer {traits.name!r} raised{where} on {_described(weight, bits, name)}: {said}"
        f"{of_weight}"
    )


def _described(weight: Array, bits: int, name: str) -> str:
    return f"{name} {weight.shape} {weight.dtype} at {bits} bits"
