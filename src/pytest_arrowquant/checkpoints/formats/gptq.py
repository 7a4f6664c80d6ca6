"""GPTQ: integers packed down the rows of the transposed weight, by AutoGPTQ and GPTQModel.

Source: GPTQModel 7.7, nn_modules/qlinear; AutoGPTQ 0.7.1, nn_modules/qlinear. Zero points are
stored less one ("gptq", v1) or as they are ("gptq_v2"). The config says which, as it does to what
runs the checkpoint; where there is none, zero points that all lie in the middle of the range do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...arrays import Array
from ...codes import NO_ORDER, Codes, Grid
from ...errors import CheckpointError
from ...kernels import bitstream
from ...scheme import GroupSize
from ..checkpoint import Checkpoint
from ..dynamic_rules import DynamicRules
from ..entries import Contents, Entry, Parts, by_module, contents, require_part
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

ROLES = ("qweight", "qzeros", "scales", "g_idx")
FLOATS = ("F16", "BF16", "F32")
VERSIONS = ("gptq", "gptq_v2")
WIDTHS = (2, 3, 4, 8)


def claims(checkpoint: Checkpoint) -> bool:
    """The config says so, or says nothing and the words of a module lie as GPTQ lays them."""
    method = checkpoint.quantization.get("quant_method", checkpoint.quantization.get("method"))
    if method is not None:
        return bool(method == "gptq")
    names = checkpoint.tensors
    for name in names:
        if name.endswith(".qweight") and (scales := names.get(f"{name[:-8]}.scales")) is not None:
            words = names[name]
            lines, width = words.shape if len(words.shape) == 2 else (0, 0)
            # AWQ's gemv has a line of scales for each of words
            return (
                words.stored_dtype == "I32"
                and scales.shape[:1] != (lines,)
                and (scales.shape[1:] == (width,))
            )
    return False


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a module that has words of codes."""
    said = checkpoint.quantization
    version = said.get("checkpoint_format") or said.get("format") or (VERSIONS[0] if said else "")
    version = "marlin" if said.get("is_marlin_format") else version
    if version and version not in VERSIONS:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} is in the GPTQ layout {version!r}, which only its own "
            f"kernel reads; read are {', '.join(VERSIONS)}"
        )
    rules = DynamicRules.of(checkpoint)
    entries = [
        Entry(f"{module}.weight", parts, partial(_load, module, parts, said, rules, version))
        for module, parts in by_module(checkpoint, ROLES).items()
    ]
    keys = ("bits", "group_size", "desc_act", "sym")
    settings = {key: said[key] for key in keys if key in said}
    return contents(
        "gptq", checkpoint, entries, (), rules.exempt if said else None,
        {**({"checkpoint_format": version} if version else {}), **settings},
    )  # fmt: skip


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


def _load(
    module: str, parts: Parts, said: Mapping[str, Any], rules: DynamicRules, version: str
) -> StoredWeight:
    weight, zeros, scales = (require_part(parts, role, module) for role in ROLES[:3])
    own = {**said, **rules.changes(module)}
    for part in (weight, zeros, scales):
        if len(part.shape) != 2 or 0 in part.shape:
            raise CheckpointError(f"{part} is of shape {part.shape}; expected two dimensions")
    groups, rows = scales.shape
    bits = _bits(weight, zeros, rows, own)
    columns = _columns(parts, weight, bits)
    why = f"for {bits}-bit codes of {rows} x {columns} weights in {groups} groups"
    words = weight.require((-(-columns * bits // 32), rows), "I32", why=why)
    packed = zeros.require((groups, -(-rows * bits // 32)), "I32", why=why)
    scale = scales.require((groups, rows), *FLOATS).astype(np.float32)
    codes = _zeros(packed.view(np.uint32), bits, rows, version, _adds_to_words(said))
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


def _columns(parts: Parts, weight: StoredTensor, bits: int) -> int:
    """How many input channels the words are of: all that have room, if no g_idx says fewer."""
    index = parts.get("g_idx")
    if index is not None and len(index.shape) == 1:
        columns = index.shape[0]
        if -(-columns * bits // 32) == weight.shape[0]:
            return columns
    return weight.shape[0] * 32 // bits


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


def _zeros(packed: Array, bits: int, rows: int, version: str, to_words: bool) -> Array:
    """Zero points as codes count, int32 (groups, rows).

    v1 stores them less one. Where one is 0, that borrows from the next field if a producer
    subtracts from whole words, as GPTQModel does; adding to whole words gives it back. Of 3 bits,
    fields straddle words, and GPTQModel subtracts from each by itself. AutoGPTQ, and what runs
    its files, adds to each field, so that 0 comes back as 2**bits.
    """
    stored = _unpacked(packed, bits, rows)
    if not version:
        version = VERSIONS[int((stored == 2 ** (bits - 1)).all())]
    if version == "gptq_v2":
        return stored
    if not to_words:
        return stored + 1
    if bits == 3:
        return (stored + 1) % 8
    ones = np.uint32(0xFFFFFFFF // (2**bits - 1))
    return _unpacked(packed + ones, bits, rows)


def _unpacked(packed: Array, bits: int, rows: int) -> Array:
    codes = np.empty((len(packed), rows), np.uint8)
    bitstream.unpack_rows(np.ascontiguousarray(packed), bits, codes)
    return codes.astype(np.int32)


def _adds_to_words(said: Mapping[str, Any]) -> bool:
    """True for the files of GPTQModel, whose configs say so in `meta`, and those without a config.

    AutoGPTQ's have no `meta`, or one of optimum that names it.
    """
    meta = said.get("meta")
    return not said or (isinstance(meta, Mapping) and "auto_gptq" not in str(meta.get("quantizer")))


def _groups(
    parts: Parts, weight: StoredTensor, columns: int, groups: int, said: Mapping[str, Any]
) -> tuple[int, Array]:
    """(columns a group, the group of each column where they are in another order)."""
    declared, index = said.get("group_size"), parts.get("g_idx")
    if declared is None and index is None and columns % groups:
        raise CheckpointError(
            f"{weight}: no config says the group_size, and {columns} input channels are no "
            f"multiple of the {groups} groups that scales are there for"
        )
    if declared is None:
        size = -(-columns // groups)
    elif type(declared) is not int or declared < -1 or declared == 0:
        raise CheckpointError(
            f"{weight}: the config says group_size {declared!r}; expected a number of input "
            "channels, or -1 for all"
        )
    else:
        size = declared if 0 < declared < columns else columns
    if groups != -(-columns // size):
        raise CheckpointError(
            f"{weight}: the config says group_size {declared}, of which {columns} input channels "
            f"are {-(-columns // size)} groups, and scales are there for {groups}"
        )
    plain = np.arange(columns, dtype=np.int32) // size
    if index is None:
        return size, NO_ORDER
    order = index.require((columns,), "I32", "I64", why=f"for {columns} input channels")
    wrong = np.flatnonzero((order < 0) | (order >= groups))
    if wrong.size:
        raise CheckpointError(
            f"{index}: input channel {wrong[0]} is of group {order[wrong[0]]}, and scales are "
            f"there for {groups}"
        )
    return size, NO_ORDER if np.array_equal(order, plain) else order.astype(np.int32)
