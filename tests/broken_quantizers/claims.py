"""Widths, bytes, types, shapes and properties that are not what they are called."""

import ml_dtypes
import numpy as np

from .honest import Honest, HonestMidRise, HonestSymmetric, variant
from .numbers import dithered

WIDTHS = (
    variant(
        "five levels at 2 bits",
        "levels",
        base=HonestSymmetric,
        bits=(2,),
        exact_scale=lambda self, low, high, bits: np.maximum(-low, high) / 2,
        clipped=lambda self, places, bits: places.astype(np.uint8),
        pack=lambda self, codes, bits: codes,
        unpack=lambda self, packed, bits: packed,
        nbytes_of=lambda self, stored: stored.packed.size // 4 + stored.scale.nbytes,
    ),
    variant(
        "INT8 inside INT4",
        "levels",
        quantize=lambda self, weight, bits: Honest.quantize(self, weight, 8),
    ),
    variant(
        "INT8 inside INT4, bytes as of INT4",
        "levels bytes_honest ceiling",
        quantize=lambda self, weight, bits: Honest.quantize(self, weight, 8),
        nbytes_of=lambda self, stored: stored.packed.nbytes // 2 + stored.scale.nbytes,
    ),
    variant(
        "always four bits",
        "floor error_bounded constant_rows",
        bits=(8,),
        quantize=lambda self, weight, bits: Honest.quantize(self, weight, 4),
    ),
    variant(
        "half of the bytes reported",
        "bytes_honest",
        nbytes_of=lambda self, stored: Honest.nbytes_of(self, stored) // 2,
    ),
    variant(
        "bytes of the scales left out, of groups of two",
        "bytes_honest",
        group=2,
        granularity=2,
        nbytes_of=lambda self, stored: stored.packed.nbytes,
    ),
)

TYPES = (
    variant(
        "reads memory in its own order",
        "layout_free",
        read=lambda self, weight: Honest.read(self, weight.ravel("K").reshape(weight.shape)),
    ),
    variant(
        "computes in the dtype of the weight",
        "finite",
        read=lambda self, weight: np.array(weight, order="C").reshape(
            len(weight) if weight.ndim > 1 else 1, -1
        ),
    ),
    variant(
        "casts to float16 first",
        "finite dtype_kept",
        read=lambda self, weight: Honest.read(self, weight.astype(np.float16)),
    ),
    variant(
        "float64 read as float32",
        "dtype_kept",
        read=lambda self, weight: Honest.read(
            self,
            np.resize(np.ascontiguousarray(weight).view(np.float32), weight.shape)
            if weight.dtype == np.float64
            else weight,
        ),
    ),
    variant(
        "bfloat16 read as float16",
        "dtype_kept finite",
        read=lambda self, weight: Honest.read(
            self,
            np.ascontiguousarray(weight).view(np.float16)
            if weight.dtype == ml_dtypes.bfloat16
            else weight,
        ),
    ),
    variant(
        "restores float16 of all",
        "dtype_kept",
        finished=lambda self, values, stored: values.reshape(stored.shape).astype(np.float16),
    ),
    variant(
        "restores codes",
        "dtype_kept",
        finished=lambda self, values, stored: values.reshape(stored.shape).astype(np.int8),
    ),
    variant(
        "restores an array of objects",
        "dtype_kept",
        finished=lambda self, values, stored: values.reshape(stored.shape).astype(object),
    ),
    variant(
        "a vector comes back as a matrix",
        "shape_kept",
        finished=lambda self, values, stored: (
            values.astype(stored.dtype)
            if len(stored.shape) == 1
            else Honest.finished(self, values, stored)
        ),
    ),
    variant(
        "a kernel comes back as a matrix",
        "shape_kept",
        finished=lambda self, values, stored: (
            values.astype(stored.dtype)
            if len(stored.shape) > 2
            else Honest.finished(self, values, stored)
        ),
    ),
    variant(
        "axes of length one dropped",
        "shape_kept",
        finished=lambda self, values, stored: Honest.finished(self, values, stored).squeeze(),
    ),
)

PROPERTIES = (
    variant(
        "zero_kept, with levels on both sides of zero",
        "zero_kept",
        base=HonestMidRise,
        properties=("zero_kept",),
    ),
    variant(
        "idempotent, with a scale that clips",
        "idempotent",
        base=HonestSymmetric,
        properties=("idempotent",),
        exact_scale=lambda self, low, high, bits: np.maximum(-low, high) / 7.3,
    ),
    variant(
        "monotone, with a dither along the row",
        "monotone",
        properties=("monotone",),
        rounded=dithered,
    ),
    variant(
        "permutation_equivariant, with a dither along the row",
        "permutation_equivariant",
        properties=("permutation_equivariant",),
        rounded=dithered,
    ),
    variant(
        "sign_symmetric, with half rounded up",
        "sign_symmetric",
        base=HonestSymmetric,
        properties=("sign_symmetric",),
        rounded=lambda self, places: np.floor(places + 0.5),
    ),
    variant(
        "scale_equivariant, with scales that are powers of 1.1",
        "scale_equivariant",
        properties=("scale_equivariant",),
        exact_scale=lambda self, low, high, bits: (
            1.1 ** np.ceil(np.log(Honest.exact_scale(self, low, high, bits)) / np.log(1.1))
        ),
    ),
    variant(
        "nested_widths, with grids that do not nest",
        "nested_widths",
        base=HonestSymmetric,
        bits=(4, 8),
        seen_at=(4,),
        properties=("nested_widths",),
    ),
)
