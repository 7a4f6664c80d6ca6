"""bitsandbytes: NF4 and FP4 in blocks of the flat weight, and INT8 by rows.

Source: bitsandbytes 0.50, functional.py and backends/; the names are those of its modules' state,
or of GPTQModel 7.7, which writes `weight_absmax` for `weight.absmax`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, TypeGuard

import numpy as np

from ...arrays import Array
from ...codes import Codes, Grid
from ...errors import CheckpointError
from ...kernels import bitstream
from ...scheme import rows_and_columns
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Exemption, Parts, contents, require_part
from ..flat_blocks import FlatBlocks
from ..grouped_codes import GroupedCodes
from ..skipped_modules import pattern_of, skipped
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

STATE = re.compile(
    r"(?P<weight>.+?)[._](?P<role>(?:nested_)?(?:absmax|quant_map)|quant_state)"
    r"(?:\.bitsandbytes__\w+)?"
)
INT8 = re.compile(r"(?P<module>.+)\.(?P<role>SCB|weight_format|weight_scb)")
STATES = {"absmax", "nested_absmax", "quant_map", "nested_quant_map", "quant_state"}
KINDS = ("nf4", "fp4")
FORMATS = ("row", "col32", "col_turing", "col_ampere")  # by weight_format
SKIP = "-:"  # before a pattern of modules that GPTQModel does not quantize


def claims(checkpoint: Checkpoint) -> bool:
    """The config says so, or says nothing and there is the state of a 4-bit weight, or an SCB."""
    said = checkpoint.quantization
    if "quant_method" in said:
        return bool(said["quant_method"] == "bitsandbytes")
    return any(
        ".quant_state.bitsandbytes__" in name
        or name.endswith((".weight_quant_state", ".SCB", ".weight_scb"))
        for name in checkpoint.tensors
    )


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a weight that has scales."""
    said = checkpoint.quantization
    entries = [
        Entry(weight, parts, partial(_load, weight, parts, said))
        for weight, parts in _weights(checkpoint).items()
    ]
    exempt = skipped(checkpoint, "llm_int8_skip_modules") + _of_gptqmodel(checkpoint)
    keys = ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant") if _said_bits(said) == 4 else ()
    settings = {key: said[key] for key in (*keys, "format", "block_size") if key in said}
    if bits := _said_bits(said):
        settings = {"bits": bits, **settings}
    return contents("bitsandbytes", checkpoint, entries, (), exempt if said else None, settings)


def _of_gptqmodel(checkpoint: Checkpoint) -> tuple[Exemption, ...]:
    """What is kept out by `dynamic`: patterns of the start of a module's name."""
    dynamic = checkpoint.quantization.get("dynamic")
    texts = [text for text in dynamic if text.startswith(SKIP)] if isinstance(dynamic, dict) else []
    patterns = [pattern_of(checkpoint, text, text.removeprefix(SKIP)) for text in texts]
    return tuple(
        Exemption(text, partial(_matches, pattern))
        for text, pattern in zip(texts, patterns, strict=True)
    )


def _matches(pattern: re.Pattern[str], module: str) -> bool:
    return pattern.match(module) is not None


def _said_bits(said: Mapping[str, Any]) -> int | None:
    if said.get("load_in_8bit"):
        return 8
    return 4 if said.get("load_in_4bit") else said.get("bits")


def _weights(checkpoint: Checkpoint) -> dict[str, dict[str, StoredTensor]]:
    """weight -> role -> tensor, of all that have a scale or what else belongs to one."""
    found: dict[str, dict[str, StoredTensor]] = defaultdict(dict)
    for name, tensor in checkpoint.tensors.items():
        if state := STATE.fullmatch(name):
            found[state["weight"]][state["role"]] = tensor
        elif scale := INT8.fullmatch(name):
            role = scale["role"].replace("weight_scb", "SCB")
            found[f"{scale['module']}.weight"][role] = tensor
    for weight, parts in found.items():
        if weight in checkpoint.tensors:
            parts["weight"] = checkpoint.tensors[weight]
    return dict(found)


def _load(name: str, parts: Parts, said: Mapping[str, Any]) -> StoredWeight:
    weight = require_part(parts, "weight", name)
    bits = 4 if STATES & parts.keys() else 8
    if _said_bits(said) not in (None, bits):
        raise CheckpointError(
            f"{weight} is of {bits} bits, by what is beside it; the config says {_said_bits(said)}"
        )
    return _integers(name, parts, weight) if bits == 8 else _four_bits(name, parts, weight, said)


def _integers(name: str, parts: Parts, weight: StoredTensor) -> StoredWeight:
    """LLM.int8(): the largest magnitude of a row is 127."""
    form = parts.get("weight_format")
    if form is not None and (number := int(form.require((), "U8"))):
        known = FORMATS[number] if number < len(FORMATS) else number
        raise CheckpointError(f"{form} says {known}, in the order of a kernel; read is row")
    if len(weight.shape) != 2:
        raise CheckpointError(f"{weight} is of shape {weight.shape}; expected two dimensions")
    rows, columns = weight.shape
    stored = weight.require((rows, columns), "I8", why="beside scales of rows")
    largest = require_part(parts, "SCB", name).require((rows,), "F32", why=f"for {rows} rows")
    scale = (largest / np.float32(127)).reshape(rows, 1)
    codes = GroupedCodes(
        stored.view(np.uint8), columns, 8, scale, max(columns, 1),
        offset=128, zero=np.full_like(scale, 128),
    )  # fmt: skip
    return CodedWeight((rows, columns), Grid(8, "none", "channel"), _nbytes(parts), codes.read)


@dataclass(frozen=True, slots=True, eq=False)
class _FourBits:
    """packed: the bytes, flat, high nibble first. scale: float32, one a block."""

    packed: Array
    blocks: FlatBlocks
    scale: Array
    table: Array

    def read(self, start: int, stop: int) -> Codes:
        """Codes of rows start to stop, cut from whole bytes."""
        columns = self.blocks.columns
        first, last = start * columns // 2, -(-stop * columns // 2)
        codes = np.empty(2 * (last - first), np.uint8)
        bitstream.unpack_high_first(self.packed[first:last], codes)
        codes = codes[start * columns - 2 * first :][: (stop - start) * columns]
        return Codes(
            codes.reshape(stop - start, columns),
            self.blocks.of_rows(self.scale, start, stop),
            self.blocks.run,
            table=self.table,
        )


def _four_bits(
    name: str, parts: Parts, weight: StoredTensor, said: Mapping[str, Any]
) -> StoredWeight:
    """A table of 16 values times the largest magnitude of a block."""
    state = _state(require_part(parts, "quant_state", name), said)
    shape = tuple(state["shape"])
    count = prod(shape)
    if weight.stored_bytes != -(-count // 2):
        raise CheckpointError(
            f"{weight} holds {weight.stored_bytes} bytes; expected {-(-count // 2)} for 4-bit "
            f"codes of {shape} weights"
        )
    blocks = -(-count // state["blocksize"])
    why = f"for {count} weights in blocks of {state['blocksize']}"
    absmax = require_part(parts, "absmax", name)
    if "nested_absmax" in parts or "nested_quant_map" in parts:
        scale = _nested(name, parts, absmax.require((blocks,), "U8", why=why), state)
    else:
        scale = absmax.require((blocks,), "F32", "BF16", "F16", why=why).astype(np.float32)
    table = require_part(parts, "quant_map", name).require((16,), "F32", why="for 4-bit codes")
    if not np.isfinite(table).all() or not table.any():
        raise CheckpointError(f"{parts['quant_map']} is {table.tolist()}; expected finite values")
    if len(shape) == 3:
        shape = (shape[0] * shape[1], shape[2])  # experts, one below the other
    found = FlatBlocks(rows_and_columns(shape)[1], state["blocksize"])
    grid = Grid(4, "none", found.grain, tuple(table.tolist()))
    read = _FourBits(weight.raw, found, scale, table.copy()).read
    return CodedWeight(shape, grid, _nbytes(parts), read)


def _nested(name: str, parts: Parts, codes: Array, state: Mapping[str, Any]) -> Array:
    """Scales that are codes of 8 bits themselves, in blocks of their own, above an offset."""
    size, offset = state.get("nested_blocksize"), state.get("nested_offset")
    if not _is_size(size) or not isinstance(offset, (int, float)):
        raise CheckpointError(
            f"{parts['quant_state']} says nested_blocksize {size!r} and nested_offset {offset!r}; "
            "expected a whole number from 1 and a number, as the scales are nested"
        )
    table = require_part(parts, "nested_quant_map", name).require((256,), "F32")
    why = f"for {codes.size} scales in blocks of {size}"
    largest = require_part(parts, "nested_absmax", name)
    outer = largest.require((-(-codes.size // size),), "F32", why=why)
    scale: Array = table[codes] * outer[np.arange(codes.size) // size] + np.float32(offset)
    return scale


def _state(tensor: StoredTensor, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON that is stored as a tensor: quant_type, blocksize, shape and more."""
    try:
        state = json.loads(tensor.require(tensor.shape, "U8").tobytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{tensor} is not JSON: {error}") from None
    state = state if isinstance(state, dict) else {}
    shape = state.get("shape")
    fits = isinstance(shape, list) and len(shape) > 1 and all(map(_is_size, shape))
    if state.get("quant_type") not in KINDS or not _is_size(state.get("blocksize")) or not fits:
        raise CheckpointError(
            f"{tensor} says quant_type {state.get('quant_type')!r}, blocksize "
            f"{state.get('blocksize')!r} and shape {shape!r}; expected {' or '.join(KINDS)}, a "
            "whole number from 1 and two or more of them"
        )
    wanted = said.get("bnb_4bit_quant_type", said.get("format"))
    if wanted not in (None, "bitsandbytes", state["quant_type"]):
        raise CheckpointError(
            f"{tensor} says quant_type {state['quant_type']!r}; the config says {wanted!r}"
        )
    return state


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _nbytes(parts: Parts) -> int:
    return sum(part.stored_bytes for part in parts.values())
