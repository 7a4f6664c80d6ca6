"""AWQ: 4-bit integers with zero points, packed across outputs (gemm) or along inputs (gemv).

Source: AutoAWQ 0.2.9, modules/linear. Weights were scaled by input channel before they were
quantized, and what feeds them divided by as much: that is undone where they are judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...arrays import Array
from ...codes import Codes, Grid
from ...errors import CheckpointError
from ...kernels import bitstream
from ...scheme import GroupSize
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Exemption, Parts, by_module, contents, require_part
from ..grouped_codes import GroupedCodes
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

ROLES = ("qweight", "qzeros", "scales")
FLOATS = ("F16", "BF16", "F32")
VERSIONS = ("gemm", "gemv")
NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)  # which nibble of a word is of output 0, 1, ... of eight
SHIFTS = np.array(NIBBLES, np.uint32) * np.uint32(4)


def claims(checkpoint: Checkpoint) -> bool:
    """The config says so, or says nothing and the words of a module lie as AWQ lays them."""
    said = checkpoint.quantization
    method = said.get("quant_method", said.get("method"))
    if method is not None:
        return bool(method == "awq")
    names = checkpoint.tensors
    for name in names:
        if name.endswith(".qweight") and (scales := names.get(f"{name[:-8]}.scales")) is not None:
            shape = names[name].shape
            return len(shape) == 2 == len(scales.shape) and shape[1] * 8 == scales.shape[1]
    return False


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a module that has words of codes."""
    said = {**checkpoint.quantization}
    said = {"bits": said.get("w_bit"), "group_size": said.get("q_group_size"), **said}
    version = str(said.get("version") or "gemm").lower()
    if version not in VERSIONS:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} is in the AWQ layout {version!r}, which only its own "
            f"kernel reads; read are {', '.join(VERSIONS)}"
        )
    load = _gemm if version == "gemm" else _gemv
    entries = [
        Entry(f"{module}.weight", parts, partial(load, module, parts, said))
        for module, parts in by_module(checkpoint, ROLES).items()
    ]
    # what stands for an activation that a scale was folded into
    companions = [t for n, t in checkpoint.tensors.items() if n.endswith(".act.scales")]
    exempt = tuple(
        Exemption(text, partial(_covers, text)) for text in said.get("modules_to_not_convert") or ()
    )
    keys = ("bits", "group_size", "zero_point")
    settings = {key: said[key] for key in keys if said.get(key) is not None}
    return contents(
        "awq", checkpoint, entries, companions, exempt if checkpoint.quantization else None,
        {"version": version, **settings},
    )  # fmt: skip


def _covers(text: str, module: str) -> bool:
    return text in module


@dataclass(frozen=True, slots=True, eq=False)
class _Gemm:
    """words: uint32 (columns, rows / 8) as mapped. scale, zero: float32 (rows, groups)."""

    words: Array
    group_size: int
    scale: Array
    zero: Array

    def read(self, start: int, stop: int) -> Codes:
        """Codes of rows start to stop, cut from whole eights."""
        first, last = start // 8, -(-stop // 8)
        values = np.empty((8 * (last - first), len(self.words)), np.uint8)
        bitstream.unpack_across(self.words[:, first:last], SHIFTS, values)
        values = values[start - 8 * first : stop - 8 * first]
        return Codes(values, self.scale[start:stop], self.group_size, self.zero[start:stop])


def _parts(
    module: str, parts: Parts, said: Mapping[str, Any]
) -> tuple[StoredTensor, StoredTensor, StoredTensor]:
    weight, zeros, scales = (require_part(parts, role, module) for role in ROLES)
    if said.get("bits") not in (None, 4):
        raise CheckpointError(f"{weight} is said to be of {said['bits']!r} bits; read are 4")
    if len(weight.shape) != 2 or weight.stored_dtype != "I32":
        raise CheckpointError(
            f"{weight} is {weight.stored_dtype} {weight.shape}; expected I32 of two dimensions "
            "(gemv_fast and tile-packed layouts are not read)"
        )
    return weight, zeros, scales


def _gemm(module: str, parts: Parts, said: Mapping[str, Any]) -> StoredWeight:
    weight, zeros, scales = _parts(module, parts, said)
    columns, rows = weight.shape[0], weight.shape[1] * 8
    size, groups = _grouping(weight, columns, scales.shape[0], said)
    why = f"for {rows} x {columns} weights in groups of {size}"
    scale = scales.require((groups, rows), *FLOATS, why=why).astype(np.float32)
    packed = zeros.require((groups, rows // 8), "I32", why=why).view(np.uint32)
    zero = np.empty((rows, groups), np.uint8)
    bitstream.unpack_across(packed, SHIFTS, zero)
    read = _Gemm(
        weight.array.view(np.uint32), size, np.ascontiguousarray(scale.T), zero.astype(np.float32)
    ).read
    return CodedWeight((rows, columns), _grid(said, size, columns), _nbytes(parts), read)


def _gemv(module: str, parts: Parts, said: Mapping[str, Any]) -> StoredWeight:
    weight, zeros, scales = _parts(module, parts, said)
    rows, columns = weight.shape[0], weight.shape[1] * 8
    size, groups = _grouping(weight, columns, None, said)
    if len(scales.shape) != 2 or scales.shape[1] < groups:
        raise CheckpointError(
            f"{scales} is of shape {scales.shape}; expected ({rows}, {groups} or more) for "
            f"{rows} x {columns} weights in groups of {size}"
        )
    padded = scales.shape[1]
    scale = scales.require((rows, padded), *FLOATS).astype(np.float32)[:, :groups]
    words = zeros.require((rows, -(-padded // 8)), "I32", why=f"for {padded} groups a row")
    zero = np.empty((rows, groups), np.uint8)
    bitstream.unpack_rows(words.view(np.uint32), 4, zero)
    read = GroupedCodes(
        weight.array.view(np.uint32), columns, 4, np.ascontiguousarray(scale), size,
        zero=zero.astype(np.float32),
    ).read  # fmt: skip
    return CodedWeight((rows, columns), _grid(said, size, columns), _nbytes(parts), read)


def _grouping(
    weight: StoredTensor, columns: int, groups: int | None, said: Mapping[str, Any]
) -> tuple[int, int]:
    """(columns a group, groups), as the config says, else as there are scales."""
    declared = said.get("group_size")
    if declared is None and groups is None:
        raise CheckpointError(f"{weight}: no config says the group_size, which gemv needs")
    size = -(-columns // groups) if declared is None and groups else int(declared or 0)
    size = columns if size < 1 else size
    return size, -(-columns // size)


def _grid(said: Mapping[str, Any], size: int, columns: int) -> Grid:
    grain: GroupSize = size if size < columns else "channel"
    return Grid(4, "integer" if said.get("zero_point", True) else "none", grain)


def _nbytes(parts: Parts) -> int:
    return sum(part.stored_bytes for part in parts.values())
