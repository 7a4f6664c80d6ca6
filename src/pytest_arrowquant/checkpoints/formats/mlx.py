"""MLX: words of codes with scales and biases, or floats of 4 and 8 bits under shared scales.

Source: mx.quantize of mlx 0.32; quantize_model of mlx-lm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ...arrays import Array
from ...codes import NO_VALUES, Grid
from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Parts, by_module, contents, require_part
from ..grouped_codes import GroupedCodes
from ..small_floats import E2M1, E4M3, e4m3_scales, powers_of_two
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

ROLES = ("weight", "scales", "biases", "global_scale")
AFFINE = [("affine", bits, size) for bits in (1, 2, 3, 4, 5, 6, 8) for size in (32, 64, 128)]
FLOATING = [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
LARGEST = np.float32(448 * 6)  # of E4M3 and E2M1; a global scale is the largest magnitude


def claims(checkpoint: Checkpoint) -> bool:
    """Words of 32 bits with `scales` beside them, and no name of another method."""
    if "quant_method" in checkpoint.quantization:
        return False
    return any(
        {"weight", "scales"} <= parts.keys() and _is_quantized({"weight": parts["weight"]})
        for parts in by_module(checkpoint, ROLES).values()
    )


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a module that has scales, or words of codes without them."""
    said = checkpoint.quantization
    found = by_module(checkpoint, ROLES)
    entries = [
        Entry(f"{module}.weight", parts, partial(_load, module, parts, _Setting.of(said, module)))
        for module, parts in found.items()
        if _is_quantized(parts)
    ]
    settings = {key: said[key] for key in ("bits", "group_size", "mode") if key in said}
    return contents("mlx", checkpoint, entries, settings=settings)


def _is_quantized(parts: Parts) -> bool:
    """True if it was meant to be."""
    weight = parts.get("weight")
    return "scales" in parts or (weight is not None and weight.stored_dtype == "U32")


@dataclass(frozen=True, slots=True)
class _Setting:
    """What the config says of one module; None where it does not."""

    mode: str | None = None
    bits: int | None = None
    group_size: int | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any], module: str) -> "_Setting":
        own = said.get(module)
        given = own if isinstance(own, Mapping) else said
        mode = given.get("mode") or ("affine" if "bits" in given else None)
        return cls(mode, given.get("bits"), given.get("group_size"))

    def allows(self, mode: str, bits: int, group_size: int) -> bool:
        """True if nothing is said against it."""
        pairs = ((self.mode, mode), (self.bits, bits), (self.group_size, group_size))
        return all(said in (None, found) for said, found in pairs)

    def __str__(self) -> str:
        given = (("mode", self.mode), ("bits", self.bits), ("group_size", self.group_size))
        return (
            ", ".join(f"{name} {value}" for name, value in given if value is not None) or "nothing"
        )


def _load(module: str, parts: Parts, said: _Setting) -> StoredWeight:
    weight = require_part(parts, "weight", module)
    scales = require_part(parts, "scales", module)
    if weight.stored_dtype != "U32" or len(weight.shape) < 2:
        raise CheckpointError(
            f"{weight} is {weight.stored_dtype} {weight.shape}; expected U32 of two or more "
            "dimensions, as it has scales"
        )
    mode, bits, group_size = _kind(weight, scales, parts, said)
    columns = weight.shape[-1] * 32 // bits
    groups = (*weight.shape[:-1], columns // group_size)
    why = f"for groups of {group_size} in rows of {columns} {mode} codes of {bits} bits"
    rows = prod(weight.shape[:-1])
    table: tuple[float, ...] = ()
    minimum = NO_VALUES
    if mode == "affine":
        scale = _floats(scales, groups, why).reshape(rows, -1)
        minimum = _floats(require_part(parts, "biases", module), groups, why).reshape(rows, -1)
    else:
        exponents = scales.require(groups, "U8", why=why).reshape(rows, -1)
        scale = (e4m3_scales if mode == "nvfp4" else powers_of_two)(exponents)
        table = E2M1 if bits == 4 else E4M3
    if "global_scale" in parts:
        scale = scale * _global_scales(parts["global_scale"], weight, mode)
    grid = Grid(bits, "float" if mode == "affine" else "none", group_size, table)
    codes = GroupedCodes(
        weight.array.reshape(rows, -1), columns, bits, scale, group_size,
        minimum=minimum, table=table,
    )  # fmt: skip
    nbytes = sum(part.stored_bytes for part in parts.values())
    return CodedWeight((rows, columns), grid, nbytes, codes.read)


def _kind(
    weight: StoredTensor, scales: StoredTensor, parts: Parts, said: _Setting
) -> tuple[str, int, int]:
    """Mode, bits and group size: as the config says, or the only ones that the shapes allow."""
    words, groups = weight.shape[-1], scales.shape[-1] if scales.shape else 0
    possible = AFFINE if said.mode == "affine" or "biases" in parts else FLOATING
    fits = [kind for kind in possible if words * 32 == groups * kind[1] * kind[2]]
    wanted = [kind for kind in fits if said.allows(*kind)]
    if len(wanted) == 1:
        return wanted[0]
    could_be = " or ".join(f"{bits} bits in groups of {size}" for _, bits, size in fits)
    raise CheckpointError(
        f"{weight} has {words} words a row and {scales.name!r} {groups} groups: "
        f"{could_be or 'that is no width and group size of MLX'}; the config says {said}"
    )


def _floats(tensor: StoredTensor, shape: tuple[int, ...], why: str) -> Array:
    return tensor.require(shape, "F32", "BF16", "F16", why=why).astype(np.float32)


def _global_scales(tensor: StoredTensor, weight: StoredTensor, mode: str) -> Array:
    """A factor for each row: its expert's."""
    if mode != "nvfp4":
        raise CheckpointError(f"{tensor} goes with mode nvfp4 alone, {weight.name!r} is {mode}")
    experts = weight.shape[:-2]
    largest = tensor.require(experts, "F32", why=f"for {weight.name!r}, {weight.shape}")
    return np.repeat(largest / LARGEST, weight.shape[-2]).reshape(-1, 1)
