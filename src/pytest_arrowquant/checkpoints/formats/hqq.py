"""HQQ: codes under float zeros, packed by halves, quarters or tenths of the weight.

Source: hqq 0.2.8, core/quantize.py and bitpack.py; the tensors are HQQLinear's state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from typing import Any

import numpy as np

from ...arrays import Array
from ...codes import Codes, Grid
from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Exemption, Parts, by_module, contents, require_part
from ..flat_blocks import FlatBlocks
from ..skipped_modules import listed
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

ROLES = (
    *("W_q", "scale", "zero", "shape", "nbits", "group_size", "axis", "packing"),
    *("view_as_float", "unpack_view_dtype", "compute_dtype", "quant_scale", "quant_zero"),
    *("channel_wise", "optimize", "round_zero", "offload_meta", "encoded_state_dict"),
    "stores_quant_config",
)
PACKINGS = {  # codes of an element, bits of each, type of the elements
    "8bit_u8": (1, 8, np.uint8),
    "4bit_u8": (2, 4, np.uint8),
    "3bit_32": (10, 3, np.uint32),
    "2bit_u8": (4, 2, np.uint8),
    "1bit_u8": (8, 1, np.uint8),
}
FLOATS = ("F32", "BF16", "F16")
NAMELESS = ("model", "layers")  # parts of a name that no tag has, nor numbers


def claims(checkpoint: Checkpoint) -> bool:
    """The config says so, or says nothing and there is a `W_q`."""
    method = checkpoint.quantization.get("quant_method")
    if method is not None:
        return bool(method == "hqq")
    return any(name.endswith(".W_q") for name in checkpoint.tensors)


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a module that has codes, or what is said of codes."""
    said = checkpoint.quantization
    entries = [
        Entry(f"{module}.weight", parts, partial(_load, module, parts, _own(said, module)))
        for module, parts in by_module(checkpoint, ROLES).items()
        if "W_q" in parts or {"nbits", "packing"} <= parts.keys()
    ]
    exempt = tuple(
        Exemption(text, partial(_covers, text)) for text in listed(checkpoint, "skip_modules")
    )
    whole = _own(said, "")
    settings = {key: whole[key] for key in ("nbits", "group_size", "axis") if key in whole}
    return contents("hqq", checkpoint, entries, (), exempt if said else None, settings)


def _tag(module: str) -> str:
    """A module as configs call it: the same in all layers."""
    parts = (part for part in module.split(".") if part not in NAMELESS and not part.isnumeric())
    return ".".join(parts)


def _covers(text: str, module: str) -> bool:
    return text in (module, _tag(module))


def _own(said: Mapping[str, Any], module: str) -> Mapping[str, Any]:
    """What the config says of a module, or of all; empty if nothing."""
    given = said.get("quant_config")
    given = given if isinstance(given, Mapping) else {}
    own = given if "weight_quant_params" in given else given.get(_tag(module))
    found = own.get("weight_quant_params") if isinstance(own, Mapping) else None
    return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True, eq=False)
class _Hqq:
    """packed: flat; element i holds codes i, i + size, ... of the flat weight, the first highest.

    scale, zero: float32, one a group. blocks: those groups; None where they run down the columns
    of the weight reshaped to (group size, groups).
    """

    packed: Array
    codes: int
    bits: int
    columns: int
    scale: Array
    zero: Array
    blocks: FlatBlocks | None

    def read(self, start: int, stop: int) -> Codes:
        """Codes of rows start to stop."""
        values = self._unpacked(start * self.columns, stop * self.columns)
        values = values.reshape(stop - start, self.columns)
        if self.blocks is not None:
            scale, zero = (self.blocks.of_rows(p, start, stop) for p in (self.scale, self.zero))
            return Codes(values, scale, self.blocks.run, zero)
        group = np.arange(values.size) + start * self.columns % self.scale.size
        scale, zero = (
            p.take(group, mode="wrap").reshape(values.shape) for p in (self.scale, self.zero)
        )
        # every column its own group: by `order`, since groups of one are slow to restore
        return Codes(values, scale, 1, zero, order=np.arange(self.columns, dtype=np.int32))

    def _unpacked(self, start: int, stop: int) -> Array:
        """Codes of the flat weight."""
        values, size = np.empty(stop - start, np.uint8), self.packed.size
        for i in range(start // size, ceil(stop / size)):
            first, last = max(start, i * size), min(stop, (i + 1) * size)
            shift = self.bits * (self.codes - 1 - i)
            elements = self.packed[first - i * size : last - i * size]
            values[first - start : last - start] = (elements >> shift) & (2**self.bits - 1)
        return values


def _load(module: str, parts: Parts, said: Mapping[str, Any]) -> StoredWeight:
    packed, scale, zero = (require_part(parts, role, module) for role in ROLES[:3])
    width = _number(parts, "nbits", module)
    axis, size = (int(_number(parts, role, module)) for role in ("axis", "group_size"))
    _agree(packed, said, nbits=width, group_size=size, axis=axis)
    where = require_part(parts, "shape", module)
    shape = tuple(int(n) for n in where.require((prod(where.shape),), "I64", "I32"))
    weights = prod(shape)
    if len(shape) < 2 or weights < 1 or size < 1 or weights % size or axis not in (0, 1):
        raise CheckpointError(
            f"{where} says {shape}, in groups of {size} along axis {axis}; expected two or more "
            "dimensions that groups divide, and axis 0 or 1"
        )
    groups = weights // size
    lines, length = (groups, size) if axis == 1 else (size, groups)
    codes, bits, dtype = _packing(parts, width, module)
    why = f"for {width:g}-bit codes of {shape} weights in groups of {size} along axis {axis}"
    elements = _elements(packed, ceil(lines / codes) * length, dtype, why)
    grouping = (groups, 1) if axis == 1 else (1, groups)
    blocks = FlatBlocks(weights // shape[0], size) if axis == 1 else None
    found = _Hqq(
        elements, codes, bits, weights // shape[0],
        scale.require(grouping, *FLOATS, why=why).astype(np.float32).reshape(-1),
        zero.require(grouping, *FLOATS, why=why).astype(np.float32).reshape(-1),
        blocks,
    )  # fmt: skip
    grid = Grid(ceil(width), "float", blocks.grain if blocks else None)
    nbytes = sum(part.stored_bytes for part in parts.values())
    return CodedWeight(shape, grid, nbytes, found.read)


def _number(parts: Parts, role: str, module: str) -> float:
    """One of the numbers that are stored as tensors."""
    tensor = require_part(parts, role, module)
    value = float(tensor.require((), "I32", "I64", "U8", "F32"))
    return 1.58 if np.float32(value) == np.float32(1.58) else value


def _agree(packed: StoredTensor, said: Mapping[str, Any], **found: float) -> None:
    """Raise CheckpointError where the config says something else than the tensors do."""
    for key, value in found.items():
        if said.get(key) not in (None, value):
            raise CheckpointError(
                f"{packed} has {key} {value:g} beside it; the config says {said[key]!r}"
            )


def _packing(parts: Parts, width: float, module: str) -> tuple[int, int, Any]:
    """An entry of PACKINGS, which must be wide enough."""
    tensor = require_part(parts, "packing", module)
    name = tensor.require((prod(tensor.shape),), "U8").tobytes().decode("ascii", "replace")
    codes, bits, dtype = PACKINGS.get(name, (0, 0, None))
    if not 0 < width <= bits:
        fit = (known for known, (_, bits, _) in PACKINGS.items() if width <= bits)
        raise CheckpointError(
            f"{tensor} is {name!r}; expected for {width:g} bits {' or '.join(fit) or 'no such'}"
        )
    return codes, bits, dtype


def _elements(packed: StoredTensor, count: int, dtype: Any, why: str) -> Array:
    """The packed elements, flat, from their bytes: they may be viewed as floats."""
    nbytes = count * np.dtype(dtype).itemsize
    if packed.stored_bytes != nbytes:
        raise CheckpointError(
            f"{packed} is {packed.stored_dtype} {packed.shape}, {packed.stored_bytes} bytes; "
            f"expected {nbytes} bytes {why}"
        )
    elements: Array = packed.raw.view(dtype)
    return elements
