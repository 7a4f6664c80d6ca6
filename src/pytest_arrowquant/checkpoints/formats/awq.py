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
from ..dynamic_rules import DynamicRules
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
        if name.endswith(".qweight"):
            parts = {role: names.get(f"{name[:-8]}.{role}") for role in ROLES}
            return _shown({role: part for role, part in parts.items() if part}) is not None
    return False


def _shown(parts: Parts) -> str | None:
    """The layout in which the words of a module lie, as shapes and types show it; None if none."""
    weight, zeros, scales = (parts.get(role) for role in ROLES)
    if weight is None or scales is None or not len(weight.shape) == len(scales.shape) == 2:
        return None
    lines, words = weight.shape
    if weight.stored_dtype == "I16":
        return "gemv_fast"
    if weight.stored_dtype == "I32" and zeros is None and words == 2 * scales.shape[1]:
        return "marlin"
    if weight.stored_dtype != "I32" or zeros is None or len(zeros.shape) != 2:
        return None
    if lines == scales.shape[0] == zeros.shape[0] and scales.shape[1] == 8 * zeros.shape[1]:
        return "gemv"
    return "gemm" if scales.shape[1] == 8 * words else None


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a module that has words of codes."""
    said = {**checkpoint.quantization}
    said = {"bits": said.get("w_bit"), "group_size": said.get("q_group_size"), **said}
    modules = by_module(checkpoint, ROLES)
    # those of activations: what was scaled for the next layer is divided by them
    activations = [m for m, parts in modules.items() if _is_activation(parts)]
    companions = [modules.pop(module)["scales"] for module in activations]
    shown = next(filter(None, map(_shown, modules.values())), "gemm")
    version = str(said.get("version") or said.get("checkpoint_format") or shown).lower()
    if version not in VERSIONS:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} is in the AWQ layout {version!r}, which only its own "
            f"kernel reads; read are {', '.join(VERSIONS)}"
        )
    load = _gemm if version == "gemm" else _gemv
    rules = DynamicRules.of(checkpoint)  # of GPTQModel
    entries = [
        Entry(
            f"{module}.weight",
            parts,
            partial(load, module, parts, {**said, **rules.changes(module)}),
        )
        for module, parts in modules.items()
    ]
    parts_of_names = (Exemption(text, partial(_covers, text)) for text in _skipped(checkpoint))
    exempt = (*parts_of_names, *rules.exempt)
    keys = ("bits", "group_size", "zero_point")
    settings = {key: said[key] for key in keys if said.get(key) is not None}
    return contents(
        "awq", checkpoint, entries, companions, exempt if checkpoint.quantization else None,
        {"version": version, **settings},
    )  # fmt: skip


def _is_activation(parts: Parts) -> bool:
    return parts.keys() == {"scales"} and len(parts["scales"].shape) == 1


def _skipped(checkpoint: Checkpoint) -> list[str]:
    """Parts of the names of modules that stay as they are."""
    listed = checkpoint.quantization.get("modules_to_not_convert") or []
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise CheckpointError(
            f"checkpoint {checkpoint.path}: the config's modules_to_not_convert is {listed!r}; "
            "expected a list of parts of names"
        )
    return listed


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
    module: str, parts: Parts, said: Mapping[str, Any], version: str
) -> tuple[StoredTensor, StoredTensor, StoredTensor]:
    shown = _shown(parts)
    if shown not in (None, version):
        weight = parts["qweight"]
        raise CheckpointError(
            f"{weight} is {weight.stored_dtype} {weight.shape} beside scales of "
            f"{parts['scales'].shape}, which is the layout {shown!r}; expected {version!r}"
        )
    weight, zeros, scales = (require_part(parts, role, module) for role in ROLES)
    if said.get("bits") not in (None, 4):
        raise CheckpointError(f"{weight} is said to be of {said['bits']!r} bits; read are 4")
    if len(weight.shape) != 2 or weight.stored_dtype != "I32" or 0 in weight.shape:
        raise CheckpointError(
            f"{weight} is {weight.stored_dtype} {weight.shape}; expected I32 of two dimensions"
        )
    if len(scales.shape) != 2 or 0 in scales.shape:
        raise CheckpointError(f"{scales} is of shape {scales.shape}; expected two dimensions")
    return weight, zeros, scales


def _gemm(module: str, parts: Parts, said: Mapping[str, Any]) -> StoredWeight:
    weight, zeros, scales = _parts(module, parts, said, "gemm")
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
    weight, zeros, scales = _parts(module, parts, said, "gemv")
    rows, columns, padded = weight.shape[0], weight.shape[1] * 8, scales.shape[1]
    scale = scales.require((rows, padded), *FLOATS).astype(np.float32)
    used = np.flatnonzero(scale.any(axis=0)).max(initial=0) + 1  # what pads lines is 0
    size, groups = _grouping(weight, columns, int(used), said)
    if groups != used:
        raise CheckpointError(
            f"{scales} holds scales of {used} groups a row; expected {groups} for "
            f"{rows} x {columns} weights in groups of {size}"
        )
    words = zeros.require((rows, -(-padded // 8)), "I32", why=f"for {padded} groups a row")
    zero = np.empty((rows, groups), np.uint8)
    bitstream.unpack_rows(words.view(np.uint32), 4, zero)
    read = GroupedCodes(
        weight.array.view(np.uint32), columns, 4, np.ascontiguousarray(scale[:, :groups]), size,
        zero=zero.astype(np.float32),
    ).read  # fmt: skip
    return CodedWeight((rows, columns), _grid(said, size, columns), _nbytes(parts), read)


def _grouping(
    weight: StoredTensor, columns: int, groups: int, said: Mapping[str, Any]
) -> tuple[int, int]:
    """(columns a group, groups), as the config says, else as there are scales."""
    declared = said.get("group_size")
    if declared is None and columns % groups:
        raise CheckpointError(
            f"{weight}: no config says the group_size, and {columns} input channels are no "
            f"multiple of the {groups} groups that scales are there for"
        )
    size = columns // groups if declared is None else declared
    if type(size) is not int or size < -1 or size == 0:
        raise CheckpointError(
            f"{weight}: the config says group_size {size!r}; expected a number of input "
            "channels, or -1 for all"
        )
    size = size if 0 < size < columns else columns
    return size, -(-columns // size)


def _grid(said: Mapping[str, Any], size: int, columns: int) -> Grid:
    grain: GroupSize = size if size < columns else "channel"
    return Grid(4, "integer" if said.get("zero_point", True) else "none", grain)


def _nbytes(parts: Parts) -> int:
    return sum(part.stored_bytes for part in parts.values())
