"""QuantizedTensor: packed codes, how to decode them, and round-to-nearest that makes them."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .arrays import Array, as_floating, as_rows, common_dtype, first_non_finite
from .decoding import Affine, Decoding
from .errors import TensorError
from .kernels import decode, encode
from .row_threads import over_rows
from .scheme import Layout, Scheme

AT_A_TIME = 1 << 20  # weights that are fitted, then compared, while a cache holds them


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

    def dequantize(self, out: Array | None = None, threads: int = 1) -> Array:
        """The restored weights, float32 in the original shape; `out` is filled and returned.

        threads: how many may work on it; the bits do not depend on it.
        """
        restored = np.empty(self.shape, np.float32) if out is None else out
        if not _fits(restored, np.float32, self.shape):
            raise TensorError(
                f"out is {_described(restored)}; "
                f"expected writeable C-contiguous float32 {self.shape}"
            )
        layout = self.layout
        rows = restored.reshape(layout.rows, layout.columns)
        self.decoding.dequantize(self.codes, layout, self.scheme.bits, rows, threads)
        return restored

    def compare(self, reference: object, threads: int = 1) -> Array:
        """Sums of each row against the reference, without restoring more than a block of weights.

        Returns float64 (rows, 4): energy of the reference, energy of the restored values, energy
        of the error, largest error. Raises TensorError where the shapes differ.
        """
        array = as_floating(reference, "reference")
        if array.shape != self.shape:
            raise TensorError(f"reference has shape {array.shape}, the codes {self.shape}")
        layout = self.layout
        sums = np.zeros((layout.rows, 4))
        rows = as_rows(array, common_dtype(array))
        self.decoding.compare(rows, self.codes, layout, self.scheme.bits, sums, threads)
        return sums


def quantize(
    weight: object,
    scheme: Scheme,
    out: QuantizedTensor | None = None,
    name: str = "weight",
    threads: int = 1,
) -> QuantizedTensor:
    """Round `weight` to nearest under `scheme`; `out` is filled and returned, nothing allocated.

    Codes are rint(x * (1 / scale)), half to even, by up to `threads` threads; the bits do not
    depend on it. Raises TensorError for what is no floating array, for NaN or infinity (naming
    the index) and for an `out` of another shape or scheme.
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
        finite = _quantize_tensor(rows, out, affine, threads)
    else:
        size, bits, codes = layout.group_size, scheme.bits, out.codes
        scale, zero_point, minimum = affine.scale, affine.zero_point, affine.minimum

        def block(at: slice) -> bool:
            return encode.quantize(  # type: ignore[no-any-return]
                rows[at], size, bits, codes[at], scale[at], zero_point[at], minimum[at]
            )

        finite = all(over_rows(block, layout.rows, layout.columns, threads))
    if not finite:
        raise TensorError(f"{name} has {first_non_finite(array)}; every value must be finite")
    return out


def quantize_and_compare(
    weight: object, scheme: Scheme, name: str = "weight", threads: int = 1
) -> Array:
    """How far round-to-nearest under `scheme` takes each row, with no codes stored.

    Returns the sums of `quantize(weight, scheme).compare(weight)` to the rounding of float64, and
    raises what that does.
    """
    array = as_floating(weight, name)
    if scheme.group_size == "tensor":
        return quantize(weight, scheme, None, name, threads).compare(weight, threads)
    rows, layout = weight_rows(array, name), scheme.layout(array.shape)
    reference = rows if array.dtype != np.float64 else as_rows(array, np.float64)
    sums = np.zeros((layout.rows, 4))
    step = max(AT_A_TIME // max(layout.columns, 1), 1)

    def work(block: slice) -> bool:
        parameters = np.empty((3, min(step, layout.rows), layout.groups), np.float32)
        finite = True
        for start in range(block.start, block.stop, step):
            at = slice(start, min(start + step, block.stop))
            fitted = parameters[:, : at.stop - start]
            finite &= _rounded_sums(reference[at], rows[at], scheme, layout, fitted, sums[at])
        return finite

    if not all(over_rows(work, layout.rows, layout.columns, threads)):
        raise TensorError(f"{name} has {first_non_finite(array)}; every value must be finite")
    return sums


def _rounded_sums(
    reference: Array, rows: Array, scheme: Scheme, layout: Layout, fitted: Array, sums: Array
) -> bool:
    """Fit the parameters of each group of `rows`, then fill the sums; False if not all finite."""
    size, bits = layout.group_size, scheme.bits
    integer, floating = scheme.zero == "integer", scheme.zero == "float"
    finite = encode.fit(rows, size, bits, integer, floating, *fitted)
    lowest = scheme.lowest_code
    decode.compare_rounded(reference, rows, size, bits, lowest, floating, *fitted, sums)
    return bool(finite)


def weight_rows(array: Array, name: str) -> Array:
    """The rows of a weight as float32; TensorError where a float64 exceeds the range of float32."""
    if array.dtype != np.float64:
        return as_rows(array, np.float32)
    with np.errstate(over="ignore"):
        rows = as_rows(array, np.float32)
    if not np.isfinite(rows).all() and np.isfinite(array).all():
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


def _quantize_tensor(rows: Array, out: QuantizedTensor, affine: Affine, threads: int) -> bool:
    """One scale for all: the range first, then the codes."""
    scheme, layout = out.scheme, out.layout

    def extent(at: slice) -> tuple[bool, float, float]:
        return encode.extent(rows[at].reshape(-1).view(np.int32))  # type: ignore[no-any-return]

    if not rows.size:
        return True
    ranges = over_rows(extent, layout.rows, layout.columns, threads)
    finite, low, high = zip(*ranges, strict=True)
    if not all(finite):
        return False
    zeros = scheme.zero == "integer", scheme.zero == "float"
    affine.scale[...], zero_point, minimum = encode.parameters(
        np.float32(min(low)), np.float32(max(high)), scheme.bits, *zeros
    )
    affine.zero_point[...], affine.minimum[...] = zero_point, minimum
    size, bits, parts = layout.group_size, scheme.bits, affine.arrays(layout)

    def codes(at: slice) -> None:
        encode.encode(rows[at], size, bits, *(part[at] for part in parts), out.codes[at])

    over_rows(codes, layout.rows, layout.columns, threads)
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
        threads: int = 1,
    ) -> QuantizedTensor:
        """Round x to nearest in groups; an integer zero point unless symmetric. See quantize()."""
        return quantize(x, self._scheme(group_size, symmetric), out, "x", threads)

    def dequantize(self, q: QuantizedTensor, out: Array | None = None, threads: int = 1) -> Array:
        """The restored values as float32. See QuantizedTensor.dequantize()."""
        return q.dequantize(out, threads)

    def compare(self, x: object, q: QuantizedTensor, threads: int = 1) -> Array:
        """Sums of each row of codes against x, in one pass. See QuantizedTensor.compare()."""
        return q.compare(x, threads)

    def quantize_and_compare(
        self, x: object, group_size: int = 64, symmetric: bool = True, threads: int = 1
    ) -> Array:
        """The sums of compare(), with no codes stored. See quantize_and_compare()."""
        return quantize_and_compare(x, self._scheme(group_size, symmetric), "x", threads)

    def warm(self) -> None:
        """Compile, so that neither timings nor hypothesis deadlines pay for it."""
        x = np.ones((1, 8), np.float32)
        for symmetric in (True, False):
            q = self.quantize(x, 8, symmetric)
            q.dequantize()
            q.compare(x)
            self.quantize_and_compare(x, 8, symmetric)

    def _scheme(self, group_size: int, symmetric: bool) -> Scheme:
        return Scheme(self.bits, "none" if symmetric else "integer", group_size)
