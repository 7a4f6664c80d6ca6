"""GPTQ: integers packed down the rows of the transposed weight, by AutoGPTQ and GPTQModel.

Source: GPTQModel 7.7, nn_modules/qlinear; AutoGPTQ 0.7.1, nn_modules/qlinear. Zero points are
stored less one ("gptq", v1) or as they are ("gptq_v2").
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...arrays import Array
from ...codes import NO_ORDER, Codes, Grid
from ...errors import CheckpointError
from ...kernels import bitstream, super_blocks
from ...scheme import GroupSize
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Exemption, Parts, by_module, contents, require_part
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

ROLES = ("qweight", "qzeros", "scales", "g_idx")
FLOATS = ("F16", "BF16", "F32")
VERSIONS = ("gptq", "gptq_v2")
WIDTHS = (2, 3, 4, 8)
SKIP = "-:"  # before a pattern of modules that are not quantized


def claims(checkpoint: Checkpoint) -> bool:
    """The config says so, or says nothing and the words of a module lie as GPTQ lays them."""
    method = checkpoint.quantization.get("quant_method", checkpoint.quantization.get("method"))
    if method is not None:
        return bool(method == "gptq")
    names = checkpoint.tensors
    for name in names:
        if name.endswith(".qweight") and (scales := names.get(f"{name[:-8]}.scales")) is not None:
            return len(names[name].shape) == 2 and names[name].shape[1:] == scales.shape[1:]
    return False


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a module that has words of codes."""
    said = checkpoint.quantization
    version = said.get("checkpoint_format") or said.get("format") or "gptq"
    if version not in VERSIONS:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} is in the GPTQ layout {version!r}, which only its own "
            f"kernel reads; read are {', '.join(VERSIONS)}"
        )
    entries = [
        Entry(f"{module}.weight", parts, partial(_load, module, parts, said, version))
        for module, parts in by_module(checkpoint, ROLES).items()
    ]
    dynamic = said.get("dynamic") or {}
    exempt = tuple(
        Exemption(text, partial(_matches, text.removeprefix(SKIP)))
        for text in dynamic
        if text.startswith(SKIP)
    )
    keys = ("bits", "group_size", "desc_act", "sym")
    settings = {key: said[key] for key in keys if key in said}
    return contents(
        "gptq", checkpoint, entries, (), exempt if said else None,
        {"checkpoint_format": version, **settings},
    )  # fmt: skip


def _matches(pattern: str, module: str) -> bool:
    return re.match(pattern, module) is not None


def _own(said: Mapping[str, Any], module: str) -> Mapping[str, Any]:
    """What is said of one module: `dynamic` has patterns that change it."""
    for text, changed in (said.get("dynamic") or {}).items():
        if not text.startswith(SKIP) and _matches(text.removeprefix("+:"), module):
            return {**said, **changed}
    return said


@dataclass(frozen=True, slots=True, eq=False)
class _Gptq:
    """words: uint32 (words, rows) as mapped. scale, zero: float32 (rows, groups)."""

    words: Array
    columns: int
    bits: int
    group_size: int
    scale: Array
    zero: Array
    order: Array = field(default_factory=lambda: NO_ORDER)

    def read(self, start: int, stop: int) -> Codes:
        """Codes of rows start to stop."""
        values = np.empty((stop - start, self.columns), np.uint8)
        bitstream.unpack_down(self.words[:, start:stop], self.bits, values)
        scale, zero = self.scale[start:stop], self.zero[start:stop]
        return Codes(values, scale, self.group_size, zero, order=self.order)


def _load(module: str, parts: Parts, said: Mapping[str, Any], version: str) -> StoredWeight:
    weight, zeros, scales = (require_part(parts, role, module) for role in ROLES[:3])
    own = _own(said, module)
    if len(weight.shape) != 2 or len(scales.shape) != 2 or len(zeros.shape) != 2:
        raise CheckpointError(f"{weight} is of shape {weight.shape}; expected two dimensions")
    groups, rows = scales.shape
    bits = _bits(weight, zeros, rows, own)
    columns = weight.shape[0] * 32 // bits
    why = f"for {bits}-bit codes of {rows} x {columns} weights in {groups} groups"
    words = weight.require((columns * bits // 32, rows), "I32", why=why)
    packed = zeros.require((groups, -(-rows * bits // 32)), "I32", why=why)
    scale = scales.require((groups, rows), *FLOATS).astype(np.float32)
    codes = _zeros(packed.view(np.uint32), bits, rows, version, _writes_words(said))
    size, order = _groups(parts, weight, columns, groups, own)
    grain: GroupSize = size if order.size == 0 and size < columns else "channel"
    symmetric = own.get("sym", (codes == 2 ** (bits - 1)).all())
    grid = Grid(bits, "none" if symmetric else "integer", grain, feedback=True)
    read = _Gptq(
        words.view(np.uint32),
        columns,
        bits,
        size,
        np.ascontiguousarray(scale.T),
        np.ascontiguousarray(codes.T, np.float32),
        order,
    ).read
    nbytes = sum(part.stored_bytes for part in parts.values())
    return CodedWeight((rows, columns), grid, nbytes, read)


def _bits(weight: StoredTensor, zeros: StoredTensor, rows: int, said: Mapping[str, Any]) -> int:
    """The width that the words of the zero points show, which must be the one that is declared."""
    shown = [bits for bits in WIDTHS if -(-rows * bits // 32) == zeros.shape[1]]
    declared = said.get("bits")
    if declared is None:
        if len(shown) != 1:
            raise CheckpointError(
                f"{zeros} has {zeros.shape[1]} words for {rows} rows; the width is one of "
                f"{', '.join(map(str, shown or WIDTHS))}, and no config says which"
            )
        return shown[0]
    if declared not in WIDTHS:
        raise CheckpointError(
            f"{weight} is said to be of {declared!r} bits; read are {', '.join(map(str, WIDTHS))}"
        )
    if declared not in shown:
        found = f"{shown[0]} bits" if shown else "none of these widths"
        raise CheckpointError(
            f"{weight}: the config says {declared} bits, and {zeros.name!r} of {zeros.shape[1]} "
            f"words for {rows} rows is of {found}"
        )
    return int(declared)


def _zeros(packed: Array, bits: int, rows: int, version: str, by_words: bool) -> Array:
    """Zero points as codes count, int32 (groups, rows).

    v1 stores them less one. Where one is 0, that borrows from the next field if a producer
    subtracts from whole words, as GPTQModel does; adding to whole words gives it back. Of 3 bits,
    fields straddle words, and GPTQModel subtracts from each by itself.
    """
    codes = np.empty((len(packed), rows), np.uint8)
    if version == "gptq" and by_words and bits != 3:
        ones = np.empty(packed.shape[1] * 4, np.uint8)
        super_blocks.pack(np.ones(ones.size * 8 // bits, np.uint8), bits, ones)
        packed = packed + ones.view(np.uint32)
    bitstream.unpack_rows(np.ascontiguousarray(packed), bits, codes)
    zeros = codes.astype(np.int32)
    if version == "gptq" and by_words and bits == 3:
        zeros = (zeros + 1) % 8
    elif version == "gptq" and not by_words:
        zeros += 1
    return zeros


def _writes_words(said: Mapping[str, Any]) -> bool:
    """True unless the config is AutoGPTQ's, which reads by field and names no quantizer."""
    meta = said.get("meta")
    return isinstance(meta, Mapping) or "checkpoint_format" not in said or "format" in said


def _groups(
    parts: Parts, weight: StoredTensor, columns: int, groups: int, said: Mapping[str, Any]
) -> tuple[int, Array]:
    """(columns a group, the group of each column where they are in another order)."""
    declared = said.get("group_size")
    size = columns if declared in (None, -1) else int(declared)
    if declared is None and groups > 1:
        size = -(-columns // groups)
    index = parts.get("g_idx")
    if index is None:
        plain = np.arange(columns) // size
    else:
        plain = index.require((columns,), "I32", "I64", why=f"for {columns} input channels")
    if plain.size and not 0 <= plain.min() <= plain.max() < groups:
        raise CheckpointError(
            f"{index or weight}: a column is of group {max(plain.max(), -plain.min())}, and "
            f"scales are there for {groups}; the config says group_size {declared}"
        )
    if np.array_equal(plain, np.arange(columns) // size):
        return size, NO_ORDER
    return size, plain.astype(np.int32)
