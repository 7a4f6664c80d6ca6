"""What is done to the input, what is kept between calls, and what is refused."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .honest import Array, Honest, Stored, variant


def refusing(what: str, caught_by: str, refused: Callable[[Array], bool]) -> type[Honest]:
    """It raises for some weights, and does not say that it takes no such ones."""

    def quantize(self: Honest, weight: Array, bits: int) -> Any:
        if refused(weight):
            raise ValueError(f"no {what}, please")
        return Honest.quantize(self, weight, bits)

    return variant(f"raises for {what}", caught_by, quantize=quantize)


REFUSALS = (
    refusing("one weight", "finite", lambda weight: weight.size == 1),
    refusing("zeros", "zero_rows", lambda weight: not weight.any()),
    refusing("odd columns", "ragged_sizes", lambda weight: weight.shape[-1] % 2 == 1),
    refusing("half precision", "dtype_kept", lambda weight: weight.dtype.itemsize == 2),
    refusing("read-only weights", "layout_free", lambda weight: not weight.flags.writeable),
    refusing("views", "layout_free", lambda weight: not weight.flags.c_contiguous),
    refusing("kernels", "shape_kept", lambda weight: weight.ndim > 2),
)


class Broken(Honest):
    """At 4 bits unless it says otherwise; `kept` is what it remembers."""

    bits = (4,)

    def __init__(self) -> None:
        self.kept: dict[Any, Any] = {}


class WritesToItsInput(Broken):
    name = "writes to its input"
    caught_by = "input_untouched"

    def read(self, weight: Array) -> Array:
        np.clip(weight, -1, 1, out=weight)
        return super().read(weight)


class WritesWherePossible(Broken):
    name = "writes to its input where it can, and puts it back but for rounding"
    caught_by = "input_untouched"

    def read(self, weight: Array) -> Array:
        rows = super().read(weight)
        if weight.flags.writeable:
            most = np.abs(weight).max() or weight.dtype.type(1)
            weight /= most
            weight *= most
        return rows


class WritesToReadOnly(Broken):
    """As compiled code can."""

    name = "writes to its input though it is read-only"
    caught_by = "input_untouched"

    def read(self, weight: Array) -> Array:
        rows = super().read(weight)
        interface = dict(weight.view(f"u{weight.itemsize}").__array_interface__)
        interface["data"] = (interface["data"][0], False)
        np.asarray(SimpleNamespace(__array_interface__=interface))[..., -1] = 0
        return rows


class ReturnsItsInput(Broken):
    name = "returns its input"
    caught_by = "input_not_needed"

    def quantize(self, weight: Array, bits: int, calibration: object = None) -> Any:
        return SimpleNamespace(dequantize=lambda: weight)


class ReturnsCopy(Broken):
    name = "returns a copy of its input"
    caught_by = "levels bytes_honest ceiling"

    def quantize(self, weight: Array, bits: int, calibration: object = None) -> Any:
        copy = weight.copy()
        return SimpleNamespace(dequantize=copy.copy)


class ReturnsCopyAtEightBits(ReturnsCopy):
    """Of 32 weights 256 levels are no limit."""

    name = "returns a copy of its input at 8 bits"
    bits = (8,)
    caught_by = "bytes_honest"


class ReadsInputAgain(Broken):
    name = "quantizes when it is asked for the values"
    caught_by = "input_not_needed"

    def quantize(self, weight: Array, bits: int, calibration: object = None) -> Any:
        later = super().quantize
        return SimpleNamespace(dequantize=lambda: later(weight, bits).dequantize())


class RunningMaximum(Broken):
    symmetric = True
    name = "keeps a running maximum"
    caught_by = "error_bounded"
    most = 0.0

    def range_of(self, groups: Array) -> tuple[Array, Array]:
        self.most = max(self.most, np.abs(groups).max())
        return np.full(groups.shape[:2], -self.most), np.full(groups.shape[:2], self.most)


class ScaleByShape(Broken):
    name = "keeps the scales by shape"
    caught_by = "rows_independent error_bounded"

    def scale_of(self, low: Array, high: Array, bits: int) -> Array:
        return self.kept.setdefault(low.shape, super().scale_of(low, high, bits))


class ResultByWeight(Broken):
    """Stale once the weight has been updated in place."""

    name = "keeps results by weight"
    caught_by = "calls_independent"

    def quantize(self, weight: Array, bits: int, calibration: object = None) -> Any:
        made = weight, super().quantize(weight, bits)
        return self.kept.setdefault(id(weight), made)[1]


class ResultById(Broken):
    """Another weight may have the same one, later."""

    name = "keeps results by id()"
    caught_by = "calls_independent"

    def quantize(self, weight: Array, bits: int, calibration: object = None) -> Any:
        key = id(weight), weight.shape, weight.dtype
        return self.kept.setdefault(key, super().quantize(weight, bits))


class SharedValues(Broken):
    name = "restores into one buffer"
    caught_by = "calls_independent"

    def finished(self, values: Array, stored: Stored) -> Array:
        made = super().finished(values, stored)
        buffer = self.kept.setdefault((made.shape, made.dtype), made)
        buffer[...] = made
        return buffer


class SharedCodes(Broken):
    name = "packs into one buffer"
    caught_by = "calls_independent"

    def pack(self, codes: Array, bits: int) -> Array:
        made = super().pack(codes, bits)
        buffer = self.kept.setdefault(made.shape, made)
        buffer[...] = made
        return buffer


class ReleasesCodes(Broken):
    name = "releases the codes once restored"
    caught_by = "calls_independent"

    def restore(self, stored: Stored) -> Any:
        values = super().restore(stored)
        stored.packed[...] = 0
        return values


class UnpacksInPlace(Broken):
    symmetric = True
    name = "changes the codes when it restores"
    caught_by = "calls_independent"

    def pack(self, codes: Array, bits: int) -> Array:
        return super().pack(codes, bits) ^ 0x88

    def unpack(self, packed: Array, bits: int) -> Array:
        packed ^= 0x88
        return super().unpack(packed, bits)


class GroupsDownColumns(Broken):
    name = "groups that run down the columns"
    caught_by = "rows_independent"

    def quantize(self, weight: Array, bits: int, calibration: object = None) -> Any:
        turned = super().quantize(weight.T, bits) if weight.ndim == 2 else None
        if turned is None:
            return super().quantize(weight, bits)
        return SimpleNamespace(dequantize=lambda: turned.dequantize().T, nbytes=turned.nbytes)


CONDUCT = (
    WritesToItsInput,
    WritesWherePossible,
    WritesToReadOnly,
    ReturnsItsInput,
    ReturnsCopy,
    ReturnsCopyAtEightBits,
    ReadsInputAgain,
    RunningMaximum,
    ScaleByShape,
    ResultByWeight,
    ResultById,
    SharedValues,
    SharedCodes,
    ReleasesCodes,
    UnpacksInPlace,
    GroupsDownColumns,
)
