"""compressed-tensors: the format of llm-compressor, vLLM's own.

Source: compressed-tensors 0.20, compressors/ and quantization/lifecycle/forward.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ...arrays import Array
from ...codes import Grid
from ...errors import CheckpointError
from ...kernels import bitstream
from ...scheme import GroupSize, Zero
from ..checkpoint import Checkpoint
from ..config_groups import ConfigGroups, ignored
from ..entries import Contents, Entry, Parts, by_module, contents, require_part
from ..grouped_codes import GroupedCodes
from ..small_floats import E2M1, TABLES, e4m3_scales, powers_of_two
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

NAME = "compressed-tensors"
ROLES = (
    *("weight", "weight_packed", "weight_shape", "weight_scale", "weight_zero_point"),
    *("weight_g_idx", "weight_global_scale"),
)
COMPANIONS = (
    *(".input_scale", ".input_zero_point", ".input_global_scale", ".output_scale"),
    *(".output_zero_point", ".q_scale", ".k_scale", ".v_scale", ".k_zero_point", ".v_zero_point"),
)
FLOATS = ("F32", "BF16", "F16")
CODED = ("I8", *TABLES)  # what `weight` holds where it is quantized


def claims(checkpoint: Checkpoint) -> bool:
    """The config says so, or says nothing and there are packed or int8 weights with scales."""
    method = checkpoint.quantization.get("quant_method")
    if method is not None:
        return bool(method == NAME)
    names = checkpoint.tensors
    return any(
        f"{name.removesuffix('_scale')}_packed" in names
        or (name.removesuffix("_scale") in names and _is_int8(names[name.removesuffix("_scale")]))
        for name in names
        if name.endswith(".weight_scale")
    )


def _is_int8(tensor: StoredTensor) -> bool:
    return tensor.stored_dtype == "I8"


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a module that has codes, or should have."""
    groups = ConfigGroups.of(checkpoint)
    entries = [
        Entry(f"{module}.weight", parts, partial(_load, module, parts, groups))
        for module, parts in by_module(checkpoint, ROLES).items()
        if _is_quantized(parts)
    ]
    companions = [t for n, t in checkpoint.tensors.items() if n.endswith(COMPANIONS)]
    said = checkpoint.quantization
    settings = {**({"format": said["format"]} if said.get("format") else {}), **groups.settings}
    exempt = ignored(checkpoint) if said else None
    return contents(NAME, checkpoint, entries, companions, exempt, settings)


def _is_quantized(parts: Parts) -> bool:
    coded = "weight" in parts and parts["weight"].stored_dtype in CODED
    return coded or "weight_packed" in parts or "weight_scale" in parts


@dataclass(frozen=True, slots=True, eq=False)
class _Scales:
    """Parameters, float32 (rows // rows that share one, groups), and which weights share one."""

    values: Array
    rows: int
    columns: int
    grain: GroupSize | None

    @classmethod
    def of(
        cls, tensor: StoredTensor, shape: tuple[int, int], said: Mapping[str, Any], *dtypes: str
    ) -> "_Scales":
        """Those of a tensor for weights of `shape`, as the config says or its own shape does."""
        rows, columns = shape
        strategy, block = said.get("strategy"), said.get("block_structure")
        if strategy == "block" and block:
            height, width = int(block[0]), int(block[1])
            grain: GroupSize | None = None
        elif strategy in (None, "tensor") and prod(tensor.shape) == 1 < rows:
            height, width, grain = max(rows, 1), max(columns, 1), "tensor"
        else:
            height, width = 1, int(said.get("group_size") or 0)
            if width < 1 or strategy == "channel":
                groups = tensor.shape[1] if len(tensor.shape) == 2 else 1
                width = -(-columns // max(groups, 1)) if strategy is None else columns
            grain = width if width < columns else "channel"
        expected = (-(-rows // height), -(-columns // width))
        flat = tensor.shape if prod(tensor.shape) == prod(expected) and 1 in expected else expected
        values = tensor.require(
            flat, *(dtypes or FLOATS), why=f"for {rows} x {columns} weights in blocks of "
            f"{height} x {width}",
        )  # fmt: skip
        return cls(values.astype(np.float32).reshape(expected), height, width, grain)


def _load(module: str, parts: Parts, groups: ConfigGroups) -> StoredWeight:
    said = groups.weights(module)
    if "weight_packed" not in parts:
        weight = require_part(parts, "weight", module)
        scale = require_part(parts, "weight_scale", module)
        if weight.stored_dtype == "I8":
            return _integers(parts, weight, scale, said)
        return _floats(parts, weight, scale, said)
    packed = parts["weight_packed"]
    scale = require_part(parts, "weight_scale", module)
    if packed.stored_dtype == "U8":
        return _fp4(parts, packed, scale, said)
    return _packed(parts, packed, scale, said)


def _packed(
    parts: Parts, packed: StoredTensor, scale: StoredTensor, said: Mapping[str, Any]
) -> StoredWeight:
    """pack-quantized: words of integers that are stored from 0 on."""
    rows, columns = _shape(parts, packed)
    words = packed.shape[-1] if packed.shape else 0
    bits, old = _packing(packed, columns, words, said)
    stored = packed.require((rows, words), "I32", why=f"for {bits}-bit codes of {rows} x {columns}")
    scales = _Scales.of(scale, (rows, columns), said)
    zero = np.full_like(scales.values, 2 ** (bits - 1))
    if "weight_zero_point" in parts:
        zero = _packed_zeros(parts["weight_zero_point"], zero.shape, bits, old)
    order = _order(parts, columns, zero.shape[1])
    lines = stored.view(np.uint32)
    codes = GroupedCodes(
        _closed_up(lines, bits, columns) if old else lines, columns, 8 if old else bits,
        scales.values, scales.columns, scales.rows, zero=zero, order=order,
    )  # fmt: skip
    grid = _grid(parts, bits, scales, order)
    return CodedWeight((rows, columns), grid, _nbytes(parts), codes.read)


def _shape(parts: Parts, packed: StoredTensor) -> tuple[int, int]:
    where = require_part(parts, "weight_shape", packed.name.removesuffix(".weight_packed"))
    shape = where.require((2,), "I64", "I32")
    return int(shape[0]), int(shape[1])


def _packing(
    packed: StoredTensor, columns: int, words: int, said: Mapping[str, Any]
) -> tuple[int, bool]:
    """(bits, whether by the packing before 0.17, which let no code straddle two words)."""
    declared = said.get("num_bits")
    widths = {b: -(-columns * b // 32) for b in range(1, 9)}
    old_widths = {b: -(-columns // (32 // b)) for b in range(1, 9)}
    if declared is None:
        fit = [b for b, width in widths.items() if width == words]
        if not fit:
            raise CheckpointError(
                f"{packed} has {words} words a row; no width of 1 to 8 bits takes so many for "
                f"{columns} columns"
            )
        return (4 if 4 in fit else fit[-1]), False
    if declared not in widths:
        raise CheckpointError(f"{packed} is said to be of {declared!r} bits; read are 1 to 8")
    if words not in (widths[declared], old_widths[declared]):
        raise CheckpointError(
            f"{packed} has {words} words a row; the config says {declared} bits, which take "
            f"{widths[declared]} for {columns} columns"
        )
    return declared, words != widths[declared]


def _packed_zeros(tensor: StoredTensor, shape: tuple[int, int], bits: int, old: bool) -> Array:
    """Zero points, packed down the rows as the codes are along them; float32 as codes count."""
    rows, groups = shape
    words = -(-rows // (32 // bits)) if old else -(-rows * bits // 32)
    stored = tensor.require((words, groups), "I32", why=f"for {rows} x {groups} zero points")
    lines = np.ascontiguousarray(stored.T).view(np.uint32)
    if old:
        codes = _closed_up(lines, bits, rows)
    else:
        codes = np.empty((groups, rows), np.uint8)
        bitstream.unpack_rows(lines, bits, codes)
    return np.ascontiguousarray(codes.T, np.float32)


def _closed_up(words: Array, bits: int, count: int) -> Array:
    """Codes of words that each hold as many as fit whole, uint8 (lines, count)."""
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes = (words[..., None] >> shifts) & np.uint32(2**bits - 1)
    closed: Array = codes.reshape(len(words), -1)[:, :count].astype(np.uint8)
    return closed


def _integers(
    parts: Parts, weight: StoredTensor, scale: StoredTensor, said: Mapping[str, Any]
) -> StoredWeight:
    """int-quantized: an integer a byte, with zero points beside it."""
    bits = said.get("num_bits", 8)
    if bits not in range(1, 9):
        raise CheckpointError(f"{weight} is said to be of {bits!r} bits; read are 1 to 8")
    shape = _two_axes(weight)
    scales = _Scales.of(scale, shape, said)
    zero = np.full_like(scales.values, 2 ** (bits - 1))
    if "weight_zero_point" in parts:
        zero += _Scales.of(parts["weight_zero_point"], shape, said, "I8").values
    order = _order(parts, shape[1], zero.shape[1])
    codes = GroupedCodes(
        weight.array.view(np.uint8), shape[1], 8, scales.values, scales.columns, scales.rows,
        offset=2 ** (bits - 1), zero=zero, order=order,
    )  # fmt: skip
    return CodedWeight(shape, _grid(parts, bits, scales, order), _nbytes(parts), codes.read)


def _grid(parts: Parts, bits: int, scales: _Scales, order: Array) -> Grid:
    """The grid of integers, whose codes may come from GPTQ."""
    zero: Zero = "integer" if "weight_zero_point" in parts else "none"
    return Grid(bits, zero, "channel" if order.size else scales.grain, feedback=True)


def _floats(
    parts: Parts, weight: StoredTensor, scale: StoredTensor, said: Mapping[str, Any]
) -> StoredWeight:
    """float-quantized: an 8-bit float times its scale."""
    if weight.stored_dtype not in TABLES:
        raise CheckpointError(
            f"{weight} is {weight.stored_dtype}, though it has a scale; expected "
            f"I8 or {' or '.join(TABLES)}"
        )
    if said.get("num_bits", 8) != 8 or said.get("type", "float") != "float":
        raise CheckpointError(
            f"{weight} is {weight.stored_dtype}; the config says {said.get('num_bits')} bits of "
            f"type {said.get('type')!r}"
        )
    shape, table = _two_axes(weight), TABLES[weight.stored_dtype]
    scales = _Scales.of(scale, shape, said)
    codes = GroupedCodes(
        weight.array.view(np.uint8), shape[1], 8, scales.values, scales.columns, scales.rows,
        table=table,
    )  # fmt: skip
    return CodedWeight(shape, Grid(8, "none", scales.grain, table), _nbytes(parts), codes.read)


def _fp4(
    parts: Parts, packed: StoredTensor, scale: StoredTensor, said: Mapping[str, Any]
) -> StoredWeight:
    """nvfp4- and mxfp4-pack-quantized: two 4-bit floats a byte, under scales of small groups."""
    rows, half = _two_axes(packed)
    columns = 2 * half
    nv = "weight_global_scale" in parts
    group_size = said.get("group_size") or (16 if nv else 32)
    shape = (rows, -(-columns // group_size))
    why = f"for {rows} x {columns} weights in groups of {group_size}"
    if nv:
        whole = parts["weight_global_scale"]
        factor = whole.require(whole.shape, *FLOATS).astype(np.float32).reshape(-1)
        if factor.size != 1:
            raise CheckpointError(f"{whole} is of shape {whole.shape}; expected one value")
        scales = e4m3_scales(scale.require(shape, "F8_E4M3", why=why)) / factor[0]
    else:
        scales = powers_of_two(scale.require(shape, "U8", "F8_E8M0", why=why))
    codes = GroupedCodes(packed.array, columns, 4, scales, group_size, table=E2M1)
    grid = Grid(4, "none", group_size, E2M1)
    return CodedWeight((rows, columns), grid, _nbytes(parts), codes.read)


def _two_axes(tensor: StoredTensor) -> tuple[int, int]:
    if len(tensor.shape) != 2:
        raise CheckpointError(f"{tensor} is of shape {tensor.shape}; expected two dimensions")
    return tensor.shape[0], tensor.shape[1]


def _order(parts: Parts, columns: int, groups: int) -> Array:
    """The group of each column where groups were made in another order; empty if not."""
    tensor = parts.get("weight_g_idx")
    if tensor is None:
        return np.empty(0, np.int32)
    order = tensor.require((columns,), "I32", "I64").astype(np.int32)
    if order.size and (order == -1).all():
        return np.empty(0, np.int32)
    if order.size and not 0 <= order.min() <= order.max() < groups:
        raise CheckpointError(
            f"{tensor} names group {order.max() if order.max() >= groups else order.min()}; "
            f"there are {groups}"
        )
    return order


def _nbytes(parts: Parts) -> int:
    return sum(part.stored_bytes for part in parts.values())
