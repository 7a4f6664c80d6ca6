"""QuantizedTensor: packed codes, how to decode them, and round-to-nearest that makes them."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .arrays import Array, as_floating, as_rows, common_dtype, first_non_finite
from .decoding import Affine, Decoding
from .errors import TensorError
from .kernels import encode
from .scheme import Layout, Scheme


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedTensor:
    """What a quantizer returns.

    codes: uint8 (rows, row bytes), low bits first, each row starting on a byte. notes: what a
    record should say of how they were made. feedback: whether by error feedback, which gives up
    nearest codes for nearer outputs.
    """

    codes: Array
    decoding: Decoding
    scheme: Scheme
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()
    feedback: bool = False

    @classmethod
    def empty(cls, scheme: Scheme, shape: tuple[int, ...]) -> Self:
        """A tensor to be quantized into, as `out`."""
        layout = scheme.layout(shape)
        codes = np.empty((layout.rows, layout.row_bytes), np.uint8)
        return cls(codes, Affine.empty(scheme, layout.parameter_shape), scheme, shape)

    @property
    def layout(self) -> Layout:
        """Rows and groups of this tensor."""
        return self.scheme.layout(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, scales, zero points and minima."""
        return self.codes.nbytes + self.decoding.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Stored bits over the number of weights; 0.0 for an empty tensor."""
        layout = self.layout
        weights = layout.rows * layout.columns
        return self.nbytes * 8 / weights if weights else 0.0

    def dequantize(self, out: Array | None = None) -> Array:
        """The restored weights, float32 in the original shape; `out` is filled and returned."""
        restored = np.empty(self.shape, np.float32) if out is None else out
        if not _fits(restored, np.float32, self.shape):
            raise TensorError(
                f"out is {_described(restored)}; "
                f"expected writeable C-contiguous float32 {self.shape}"
            )
        layout = self.layout
        rows = restored.reshape(layout.rows, layout.columns)
        self.decoding.dequantize(self.codes, layout, self.scheme.bits, rows)
        return restored

    def compare(self, reference: object) -> Array:
        """Sums of each row against the reference, without restoring more than one row.

        Returns float64 (rows, 4): energy of the reference, energy of the restored values, energy
        of the error, largest error. Raises TensorError where the shapes differ.
        """
        array = as_floating(reference, "reference")
        if array.shape != self.shape:
            raise TensorError(f"reference has shape {array.shape}, the codes {self.shape}")
        layout = self.layout
        sums = np.zeros((layout.rows, 4))
        rows = as_rows(array, common_dtype(array))
        self.decoding.compare(rows, self.codes, layout, self.scheme.bits, sums)
        return sums


def quantize(
    weight: object, scheme: Scheme, out: QuantizedTensor | None = None, name: str = "weight"
) -> QuantizedTensor:
    """Round `weight` to nearest under `scheme`; `out` is filled and returned, nothing allocated.

    Codes are rint(x * (1 / scale)), half to even. Raises TensorError for what is no floating
    array, for NaN or infinity (naming the index) and for an `out` of another shape or scheme.
    """
    array = as_floating(weight, name)
    rows = weight_rows(array, name)
    if out is None:
        out = QuantizedTensor.empty(scheme, array.shape)
    elif (out.scheme, out.shape) != (scheme, array.shape):
        raise TensorError(f"out is {out.scheme} {out.shape}; {name} needs {scheme} {array.shape}")
    layout, affine = out.layout, out.decoding
    if not isinstance(affine, Affine):
        raise TensorError(f"out decodes by {type(affine).__name__}; {name} needs Affine")
    if scheme.group_size == "tensor":
        finite = _quantize_tensor(rows, out, affine)
    else:
        kernel = encode.QUANTIZE[scheme.bits]
        finite = kernel(
            rows, layout.group_size, out.codes, affine.scale, affine.zero_point, affine.minimum
        )
    if not finite:
        raise TensorError(f"{name} has {first_non_finite(array)}; every value must be finite")
    return out


def weight_rows(array: Array, name: str) -> Array:
    """The rows of a weight as float32; TensorError where a float64 exceeds the range of float32."""
    with np.errstate(over="ignore"):
        rows = as_rows(array, np.float32)
    if array.dtype == np.float64 and not np.isfinite(rows).all() and np.isfinite(array).all():
        where = first_non_finite(rows.reshape(array.shape)).partition(" at ")[2]
        raise TensorError(f"{name} exceeds the range of float32 at {where}")
    return rows


def pack(codes: Array, bits: int) -> Array:
    """Codes, uint8 (rows, columns), as uint8 (rows, row bytes): low bits first, rows on a byte."""
    per_byte = 8 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per_byte)))
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    parts = padded.reshape(len(codes), padded.shape[1] // per_byte, per_byte) << shifts
    return np.bitwise_or.reduce(parts, axis=2)  # type: ignore[no-any-return]


def encode_rows(rows: Array, out: QuantizedTensor) -> None:
    """Fill the codes of `out` under the parameters that it already holds."""
    out.decoding.encode(rows, out.layout, out.scheme.bits, out.codes)


def _quantize_tensor(rows: Array, out: QuantizedTensor, affine: Affine) -> bool:
    """One scale for all: the range first, then the codes."""
    if not rows.size:
        return True
    scheme = out.scheme
    finite, low, high = encode.extent(
        rows.reshape(-1).view(np.int32), 0, rows.size, scheme.symmetric
    )
    if not finite:
        return False
    affine.scale[...], zero_point, minimum = encode.parameters(
        np.float32(low),
        np.float32(high),
        scheme.bits,
        scheme.zero == "integer",
        scheme.zero == "float",
    )
    affine.zero_point[...] = zero_point
    affine.minimum[...] = minimum
    encode_rows(rows, out)
    return True


def _described(array: Any) -> str:
    if isinstance(array, np.ndarray):
        return f"{array.dtype} {array.shape}"
    return f"a {type(array).__name__}"


def _fits(array: Any, dtype: type, shape: tuple[int, ...]) -> bool:
    return (
        isinstance(array, np.ndarray)
        and array.dtype == dtype
        and array.shape == shape
        and array.flags.c_contiguous
        and array.flags.writeable
    )


@dataclass(frozen=True, slots=True)
class WidthKernels:
    """The compiled kernels of one width: quantize, dequantize, compare."""

    bits: int

    def quantize(
        self,
        x: object,
        group_size: int = 64,
        symmetric: bool = True,
        out: QuantizedTensor | None = None,
    ) -> QuantizedTensor:
        """Round x to nearest in groups; an integer zero point unless symmetric. See quantize()."""
        scheme = Scheme(self.bits, "none" if symmetric else "integer", group_size)
        return quantize(x, scheme, out, name="x")

    def dequantize(self, q: QuantizedTensor, out: Array | None = None) -> Array:
        """The restored values as float32. See QuantizedTensor.dequantize()."""
        return q.dequantize(out)

    def compare(self, x: object, q: QuantizedTensor) -> Array:
        """Sums of each row of codes against x, in one pass. See QuantizedTensor.compare()."""
        return q.compare(x)

    def warm(self) -> None:
        """Compile, so that neither timings nor hypothesis deadlines pay for it."""
        x = np.ones((1, 8), np.float32)
        for symmetric in (True, False):
            q = self.quantize(x, 8, symmetric)
            q.dequantize()
            q.compare(x)
