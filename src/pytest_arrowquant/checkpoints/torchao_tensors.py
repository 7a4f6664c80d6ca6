"""torchao's tensor subclasses: what the metadata says of one, and how its parts restore it.

Source: torchao 0.18, each class's own dequantize; of Int4Tensor that in prototype/gptq.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..arrays import Array
from ..codes import Grid
from ..errors import CheckpointError
from ..scheme import GroupSize, Zero
from .checkpoint import Checkpoint
from .entries import Parts
from .grouped_codes import GroupedCodes
from .small_floats import E2M1, TABLES, e4m3_scales, powers_of_two
from .stored_tensor import StoredTensor

FLOATS = ("F32", "BF16", "F16")
FP4 = "float4_e2m1fn_x2"
MX_ELEMENTS = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", FP4: "U8"}
Read = tuple[tuple[int, ...], Grid, GroupedCodes]


@dataclass(frozen=True, slots=True)
class Described:
    """What the metadata says of one tensor: its class, and the class's attributes."""

    kind: str
    roles: tuple[str, ...]
    said: Mapping[str, Any]

    @classmethod
    def of(cls, checkpoint: Checkpoint, name: str) -> "Described":
        """Of this tensor; CheckpointError where that is no description."""
        text = checkpoint.metadata[name]
        try:
            given = json.loads(text)
            return cls(str(given["_type"]), (*given["_tensor_data_names"],), dict(given["_data"]))
        except (TypeError, KeyError, ValueError):
            raise CheckpointError(
                f"checkpoint {checkpoint.path}: its metadata describes {name!r} as {text!r}; "
                "expected a JSON object of _type, _data and _tensor_data_names"
            ) from None

    def dtype(self, key: str, default: str = "") -> str:
        """The name of a torch dtype among the attributes."""
        value = self.said.get(key, default)
        return str(value.get("_data")) if isinstance(value, Mapping) else str(value)

    def block(self, shape: tuple[int, ...], where: StoredTensor) -> tuple[int, int]:
        """Rows and columns that share a scale."""
        size = self.said.get("block_size")
        sizes = [1] * (len(shape) - 1) + [size] if isinstance(size, int) else size
        if (
            not isinstance(sizes, list)
            or not 2 <= len(sizes) == len(shape)
            or any(type(n) is not int or n < 1 or m % n for n, m in zip(sizes, shape, strict=True))
        ):
            raise CheckpointError(
                f"{where} is of shape {shape}, and the metadata says block_size {size!r}; expected "
                "a divisor of each dimension"
            )
        if any(n != 1 for n in sizes[:-2]):
            raise CheckpointError(f"{where}: blocks of {size!r} that span experts are not read")
        return sizes[-2], sizes[-1]


def _integers(described: Described, parts: Parts) -> Read:
    """IntxUnpackedToInt8Tensor and Int8Tensor: (q - zero_point) * scale, one code a byte."""
    codes = parts["qdata"]
    width = re.fullmatch(r"int([1-8])", described.dtype("target_dtype", "int8"))
    if width is None:
        raise CheckpointError(
            f"{codes} is said to be of {described.dtype('target_dtype')}; expected int1 to int8"
        )
    bits = int(width[1])
    shape = codes.shape
    packed = codes.require(shape, "I8").view(np.uint8)
    block = described.block(shape, codes)
    scale = _scales(parts["scale"], shape, block, *FLOATS)
    points = (
        _scales(parts["zero_point"], shape, block, "I8", *FLOATS)
        if "zero_point" in parts
        else np.zeros_like(scale)
    )
    zero: Zero = "integer" if points.any() else "none"
    offset = 2 ** (bits - 1)
    return (
        shape,
        Grid(bits, zero, _group_size(shape, block)),
        GroupedCodes(
            packed.reshape(-1, shape[-1]), shape[-1], 8, scale, block[1], block[0], offset,
            zero=points + np.float32(offset),
        ),
    )  # fmt: skip


def _float8(described: Described, parts: Parts) -> Read:
    """Float8Tensor: q * scale."""
    codes = parts["qdata"]
    block = described.block(codes.shape, codes)
    scale = _scales(parts["scale"], codes.shape, block, "F32")
    return _floating(codes, codes.shape, block, scale)


def _int4(described: Described, parts: Parts) -> Read:
    """Int4Tensor: q * scale + zero_point; parameters lie [groups, out]."""
    codes = parts["qdata"]
    shape = _shape(described, codes)
    block = described.block(shape, codes)
    groups = (*shape[:-2], shape[-1] // block[1], shape[-2])
    packed = codes.require((*shape[:-1], shape[-1] // 2), "I8", "U8", why=f"for {shape} of 4 bits")
    scale, minimum = (
        np.ascontiguousarray(
            parts[role]
            .require(groups, *FLOATS, why=f"for {shape} in groups of {block[1]}")
            .astype(np.float32)
            .swapaxes(-1, -2)
        ).reshape(-1, groups[-2])
        for role in ("scale", "zero_point")
    )
    return (
        shape,
        Grid(4, "float", _group_size(shape, block)),
        GroupedCodes(
            packed.view(np.uint8).reshape(-1, shape[-1] // 2), shape[-1], 4, scale, block[1],
            offset=8, zero=np.full_like(scale, 8), minimum=minimum,
        ),
    )  # fmt: skip


def _mx(described: Described, parts: Parts) -> Read:
    """MXTensor: q * 2**scale."""
    codes = parts["qdata"]
    element = described.dtype("elem_dtype")
    if element not in MX_ELEMENTS:
        raise CheckpointError(
            f"{codes} is said to be of {element}; read are {', '.join(MX_ELEMENTS)}"
        )
    shape = (*codes.shape[:-1], codes.shape[-1] * (1 + (element == FP4)))
    scale = powers_of_two(_block_scales(described, parts["scale"], shape, "F8_E8M0"))
    return _floating(codes, shape, described.block(shape, codes), scale, MX_ELEMENTS[element])


def _nvfp4(described: Described, parts: Parts) -> Read:
    """NVFP4Tensor: q * (per_tensor_scale * scale)."""
    codes = parts["qdata"]
    shape = (*codes.shape[:-1], codes.shape[-1] * 2)
    scale = e4m3_scales(_block_scales(described, parts["scale"], shape, "F8_E4M3"))
    if "per_tensor_scale" in parts:
        whole = parts["per_tensor_scale"]
        if prod(whole.shape) not in (1, prod(shape[:-2])):
            raise CheckpointError(f"{whole} is of shape {whole.shape}; expected one a tensor")
        factors = whole.require(whole.shape, "F32").reshape(-1, 1, 1)
        scale = (factors * scale.reshape(factors.size, -1, scale.shape[-1])).reshape(scale.shape)
    return _floating(codes, shape, described.block(shape, codes), scale, "U8")


def _floating(
    codes: StoredTensor,
    shape: tuple[int, ...],
    block: tuple[int, int],
    scale: Array,
    stored: str = "",
) -> Read:
    """Codes of floats, of 8 bits or two a byte. stored: the dtype that they should have."""
    array = codes.require(codes.shape, *([stored] if stored else TABLES)).view(np.uint8)
    bits = 4 if stored == "U8" else 8
    table = E2M1 if bits == 4 else TABLES[codes.stored_dtype]
    return (
        shape,
        Grid(bits, "none", _group_size(shape, block), table),
        GroupedCodes(
            array.reshape(-1, array.shape[-1]), shape[-1], bits, scale, block[1], block[0],
            table=table,
        ),
    )  # fmt: skip


READERS: Mapping[str, Callable[[Described, Parts], Read]] = {
    "IntxUnpackedToInt8Tensor": _integers,
    "Int8Tensor": _integers,
    "Float8Tensor": _float8,
    "Int4Tensor": _int4,
    "MXTensor": _mx,
    "NVFP4Tensor": _nvfp4,
}


def _shape(described: Described, where: StoredTensor) -> tuple[int, ...]:
    """The shape that the metadata says."""
    shape = described.said.get("shape")
    if not isinstance(shape, list) or len(shape) < 2 or any(type(n) is not int for n in shape):
        raise CheckpointError(
            f"{where} is said to be of shape {shape!r}; expected two or more whole numbers"
        )
    return tuple(shape)


def _scales(
    tensor: StoredTensor, shape: tuple[int, ...], block: tuple[int, int], *dtypes: str
) -> Array:
    """Parameters of blocks, float32 (rows, groups)."""
    groups = (*shape[:-2], shape[-2] // block[0], shape[-1] // block[1])
    found = tensor.require(groups, *dtypes, why=f"for {shape} in blocks of {block}")
    return found.astype(np.float32).reshape(-1, groups[-1])


def _block_scales(
    described: Described, tensor: StoredTensor, shape: tuple[int, ...], dtype: str
) -> Array:
    """Scales of blocks along rows, as they are stored, (rows, groups)."""
    block = described.block(shape, tensor)
    rows, groups = prod(shape[:-1]), shape[-1] // block[1]
    if not described.said.get("is_swizzled_scales"):
        return tensor.require((*shape[:-1], groups), dtype).reshape(rows, groups)
    down, along = -(-rows // 128), -(-groups // 4)
    if prod(tensor.shape) != down * 128 * along * 4:
        raise CheckpointError(
            f"{tensor} is of shape {tensor.shape}; expected {down * 128 * along * 4} swizzled "
            f"scales for {shape} in groups of {block[1]}"
        )
    # tiles of 128 x 4, of which four rows, 32 apart, lie side by side
    tiles = tensor.require(tensor.shape, dtype).reshape(down, along, 32, 4, 4)
    straight = tiles.transpose(0, 3, 2, 1, 4).reshape(down * 128, along * 4)
    return np.ascontiguousarray(straight[:rows, :groups])


def _group_size(shape: tuple[int, ...], block: tuple[int, int]) -> GroupSize | None:
    if block[0] == 1:
        return "channel" if block[1] == shape[-1] else block[1]
    return "tensor" if block == shape else None
