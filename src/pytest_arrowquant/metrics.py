"""How far restored weights are from their reference: sums that merge, and the metrics they give."""

from dataclasses import dataclass, fields, replace
from math import inf, ldexp, log10, prod, sqrt
from typing import Any, Self

import numpy as np

from .arrays import Array, as_floating, as_rows, dequantizes, require_finite
from .errors import TensorError
from .kernels import structure
from .row_blocks import Block, RowBlocks

DB_PER_BIT = 20 * log10(2)  # Gaussian rate-distortion: D = 2^(-2R)
SMALLEST_NORMAL = -126  # exponent of the smallest normal float32; a row below it counts as zero
ROUNDING_ONLY = 1e-12  # error energy over reference energy at which only float32 rounding is left


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise); infinite without noise, minus infinity with noise alone."""
    if noise == 0:
        return inf
    return 10 * log10(signal / noise) if signal > 0 else -inf


@dataclass(frozen=True, slots=True)
class Sums:
    """Everything that adds up over tensors; energies are sums of squares in float64."""

    weights: int = 0
    reference_energy: float = 0.0
    restored_energy: float = 0.0
    error_energy: float = 0.0
    error: float = 0.0
    block_mean_energy: float = 0.0
    original_bytes: int = 0
    largest_error: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        added = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
        }
        return replace(Sums(**added), largest_error=max(self.largest_error, other.largest_error))

    def of_unit_energy(self) -> "Sums":
        """The sums as if the reference had energy 1, so that all that are added count alike."""
        if self.reference_energy == 0:
            return self
        energies = {
            name: getattr(self, name) / self.reference_energy
            for name in ("reference_energy", "restored_energy", "error_energy")
        }
        return replace(self, **energies)

    @property
    def product(self) -> float:
        """<w, r>, from |w - r|^2 = |w|^2 + |r|^2 - 2 <w, r>; to 1e-16 of the larger energy."""
        return (self.reference_energy + self.restored_energy - self.error_energy) / 2

    @property
    def cosine(self) -> float:
        """cos(w, r); 1 where both are zero, 0 where one is."""
        if self.reference_energy == 0 or self.restored_energy == 0:
            return float(self.reference_energy == self.restored_energy)
        cosine = self.product / sqrt(self.reference_energy) / sqrt(self.restored_energy)
        return min(1.0, max(-1.0, cosine))

    @property
    def gain(self) -> float:
        """<w, r> / <r, r>: what to multiply r by for the least error; 1 where both are zero."""
        if self.restored_energy == 0:
            return float(self.reference_energy == 0)
        return self.product / self.restored_energy

    @property
    def bias(self) -> float:
        """The mean error, or the rms of its block means if larger, over the rms error.

        Near 0.18 for independent errors in blocks of 32, near 1 for a constant offset a block;
        0 where nothing but float32 rounding is left.
        """
        if self.error_energy <= ROUNDING_ONLY * self.reference_energy:
            return 0.0
        mean = abs(self.error) / sqrt(self.weights * self.error_energy)
        return max(mean, sqrt(self.block_mean_energy / self.error_energy))


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one tensor or of several pooled; None where undefined or not asked for.

    Decibels are 10 log10 of energies and infinite where the error is zero.
    """

    cosine: float | None = None
    row_cosine_min: float | None = None
    sqnr_db: float | None = None
    row_sqnr_db_min: float | None = None
    norm_ratio: float | None = None
    gain: float | None = None
    bias: float | None = None
    max_abs_error: float | None = None
    output_cosine: float | None = None
    output_sqnr_db: float | None = None
    bits_per_weight: float | None = None
    compression_ratio: float | None = None
    original_bytes: int | None = None
    stored_bytes: int | None = None
    shannon_gap_db: float | None = None

    @classmethod
    def of(
        cls,
        sums: Sums,
        row_cosine_min: float | None,
        row_sqnr_db_min: float | None,
        stored_bytes: int | None,
        outputs: Sums | None = None,
    ) -> Self:
        """The metrics of pooled sums; rows and bytes come with them because they do not add up."""
        sqnr_db = decibels(sums.reference_energy, sums.error_energy)
        ratio = bits = gap = None
        if stored_bytes and sums.weights:
            bits = stored_bytes * 8 / sums.weights
            ratio = sums.original_bytes / stored_bytes
            gap = DB_PER_BIT * bits - sqnr_db
        both_zero = sums.reference_energy == sums.restored_energy == 0
        return cls(
            cosine=sums.cosine,
            row_cosine_min=row_cosine_min,
            sqnr_db=sqnr_db,
            row_sqnr_db_min=row_sqnr_db_min,
            norm_ratio=_norm_ratio(sums) if not both_zero else 1.0,
            gain=sums.gain,
            bias=sums.bias,
            max_abs_error=sums.largest_error,
            output_cosine=outputs.cosine if outputs else None,
            output_sqnr_db=decibels(outputs.reference_energy, outputs.error_energy)
            if outputs
            else None,
            bits_per_weight=bits,
            compression_ratio=ratio,
            original_bytes=sums.original_bytes,
            stored_bytes=stored_bytes,
            shannon_gap_db=gap,
        )


def _norm_ratio(sums: Sums) -> float:
    return sqrt(sums.restored_energy / sums.reference_energy) if sums.reference_energy else inf


@dataclass(frozen=True, slots=True, eq=False)
class Deviation:
    """How far one tensor is from its reference: sums, of all of it and of its rows.

    columns: weights of a row. row_sums: float64 (rows, 4) as kernels/decode.py gives them.
    exponent: both tensors were divided by 2 to this power; 0 unless a float64 leaves the range of
    float32.
    """

    columns: int
    row_sums: Array
    sums: Sums
    exponent: int

    @property
    def row_cosines(self) -> Array:
        """cos of each row; 1 where both are zero, 0 where one is."""
        reference, restored, error = self.row_sums.T[:3]
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines = (reference + restored - error) / 2 / np.sqrt(reference) / np.sqrt(restored)
        zero = (reference == 0) | (restored == 0)
        cosines[zero] = reference[zero] == restored[zero]
        return cosines.clip(-1, 1)  # type: ignore[no-any-return]

    @property
    def row_sqnr_db(self) -> Array:
        """SQNR of each row; a zero row is infinite if it stayed zero, else minus infinity."""
        reference, restored, error = self.row_sums.T[:3]
        smallest = ldexp(self.columns**0.5, SMALLEST_NORMAL - self.exponent)
        with np.errstate(divide="ignore", invalid="ignore"):
            sqnr_db = 10 * np.log10(reference / error)
        sqnr_db[error == 0] = inf
        zero = np.sqrt(reference) < smallest
        sqnr_db[zero] = np.where(np.sqrt(restored[zero]) < smallest, inf, -inf)
        return sqnr_db  # type: ignore[no-any-return]

    def not_finite(self, blocks: RowBlocks, *, restored: bool) -> str:
        """The first NaN or infinity of a side, in words: 'nan at index (3, 7)'; empty if none."""
        finite = np.isfinite(self.row_sums[:, int(restored)])
        return "" if finite.all() else blocks.non_finite(restored, int(np.argmin(finite)))


class Summing:
    """A Deviation in the making: a block of rows after the other."""

    def __init__(self, blocks: RowBlocks) -> None:
        rows, self.columns = blocks.layout
        self.blocks, self.unit = blocks, blocks.unit
        self.row_sums = np.zeros((rows, 4))
        self.unit_sums = np.zeros((-(-rows // self.unit), 2))

    def add(self, block: Block) -> None:
        """Sum the rows of one block."""
        stop, unit = block.start + len(block.reference), self.unit
        structure.sums(
            block.reference,
            block.restored,
            unit,
            self.row_sums[block.start : stop],
            self.unit_sums[block.start // unit : -(-stop // unit)],
        )

    def deviation(self) -> Deviation:
        """What all blocks came to; rows and units are added in their order."""
        reference = self.blocks.reference
        energies = self.row_sums.sum(axis=0)
        errors = self.unit_sums.sum(axis=0)
        with np.errstate(over="ignore"):
            peak = self.row_sums[:, 3].max(initial=0.0)
            largest = float(np.ldexp(peak, self.blocks.exponent))
        sums = Sums(
            weights=reference.size,
            reference_energy=float(energies[0]),
            restored_energy=float(energies[1]),
            error_energy=float(energies[2]),
            error=float(errors[0]),
            block_mean_energy=float(errors[1]),
            original_bytes=reference.nbytes,
            largest_error=largest,
        )
        return Deviation(self.columns, self.row_sums, sums, self.blocks.exponent)


def deviation(reference: Array, restored: Any) -> Deviation:
    """The sums of an array and another, or a StoredWeight, of the same shape."""
    return deviation_of(RowBlocks.of(reference, restored))


def deviation_of(blocks: RowBlocks) -> Deviation:
    """The sums of all blocks."""
    summing = Summing(blocks)
    for block in blocks:
        summing.add(block)
    return summing.deviation()


def outputs_of(weight: Array, inputs: Array) -> Array:
    """inputs @ weight.T as rows of output channels, in float64."""
    rows = as_rows(weight, np.float64)
    return rows @ inputs.reshape(-1, rows.shape[1]).astype(np.float64).T


def as_inputs(inputs: object, weight: Array) -> Array:
    """Calibration inputs, (tokens, input channels), checked against the weight they multiply."""
    array = as_floating(inputs, "inputs")
    require_finite(array, "inputs")
    columns = prod(weight.shape[1:]) if weight.ndim > 1 else weight.size
    if array.ndim < 2 or array.shape[-1] != columns or not array.size:
        raise TensorError(
            f"inputs has shape {array.shape}; a weight of shape {weight.shape} "
            f"takes (tokens, {columns})"
        )
    return array


def measure(reference: object, restored: object, nbytes: int | None = None) -> Metrics:
    """The metrics of restored weights against their reference.

    reference, restored: arrays of one shape, float16 to float64, bfloat16 included; `restored`
    may be a QuantizedTensor or anything with `dequantize()`. nbytes: bytes stored, if it cannot
    tell itself. Sums are float64. Raises TensorError for other types, another shape, NaN or
    infinity.
    """
    w = as_floating(reference, "reference")
    r = restored_values(restored, "restored")
    if w.shape != r.shape:
        raise TensorError(f"restored has shape {r.shape}, the reference {w.shape}")
    blocks = RowBlocks.of(w, r)
    found = deviation_of(blocks)
    for name, side in (("reference", False), ("restored", True)):
        if where := found.not_finite(blocks, restored=side):
            raise TensorError(f"{name} has {where}; every value must be finite")
    stored = nbytes if nbytes is not None else stored_bytes(restored)
    return Metrics.of(found.sums, *row_minima(found), stored)


def row_minima(found: Deviation) -> tuple[float, float]:
    """(worst row cosine, worst row SQNR in dB); of no rows, 1 and infinity."""
    return (
        float(found.row_cosines.min(initial=1.0)),
        float(found.row_sqnr_db.min(initial=inf)),
    )


def restored_values(restored: Any, name: str) -> Any:
    """A StoredWeight as it is, an array of what else has `dequantize()` or is one."""
    if hasattr(restored, "restore"):
        return restored
    return restored_array(restored, name)


def restored_array(restored: Any, name: str) -> Array:
    """All restored values."""
    values = restored.dequantize() if dequantizes(restored) else restored
    return as_floating(values, name)


def stored_bytes(restored: Any) -> int | None:
    """The bytes that a quantized result says it takes; None for a plain array."""
    if not dequantizes(restored):
        return None
    nbytes = getattr(restored, "nbytes", None)
    return None if nbytes is None else int(nbytes)
