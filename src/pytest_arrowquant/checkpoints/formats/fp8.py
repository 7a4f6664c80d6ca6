"""FP8 as DeepSeek and transformers store it: 8-bit floats under scales of blocks, rows or tensors.

Source: transformers 5.23, integrations/finegrained_fp8.py and fbgemm_fp8.py; DeepSeek-V3's
README_WEIGHTS.md. Every scale multiplies, `weight_scale_inv` too. DeepSeek-V4 calls it `scale`,
Mistral `qscale_weight`; its experts are 4-bit floats, two a byte, in groups of 32.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ...arrays import Array
from ...codes import Grid
from ...errors import CheckpointError
from ...scheme import GroupSize
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Parts, contents, require_part
from ..grouped_codes import GroupedCodes
from ..skipped_modules import skipped
from ..small_floats import E2M1, TABLES, powers_of_two
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

METHODS = ("fp8", "fbgemm_fp8")
COMPANIONS = (
    *("activation_scale", "input_scale", "input_scale_ub", "qscale_act", ".output_scale"),
    *(".q_scale", ".k_scale", ".v_scale", ".kv_scale", ".prob_scale"),
)
FLOATS = ("F32", "BF16", "F16")
EXPONENTS = ("F8_E8M0", "U8")
BLOCK = (128, 128)  # where nothing is said
PACKED = "I8"  # two 4-bit floats
PACKED_BLOCK = (1, 32)


def claims(checkpoint: Checkpoint) -> bool:
    """The config says so, or says nothing and there are 8-bit floats with scales."""
    method = checkpoint.quantization.get("quant_method")
    if method is not None:
        return method in METHODS
    return any(
        tensor.stored_dtype in TABLES and _scale_of(checkpoint, name)
        for name, tensor in checkpoint.tensors.items()
    )


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a weight of 8-bit floats, and each that a scale is there for."""
    said = checkpoint.quantization
    entries = [
        Entry(weight, parts, partial(_load, weight, parts, said))
        for weight, parts in _weights(checkpoint).items()
    ]
    companions = [t for n, t in checkpoint.tensors.items() if n.endswith(COMPANIONS)]
    exempt = skipped(checkpoint, "modules_to_not_convert", "ignored_layers")
    keys = ("weight_block_size", "activation_scheme", "scale_fmt", "expert_dtype")
    settings = {key: said[key] for key in keys if said.get(key) is not None}
    return contents("fp8", checkpoint, entries, companions, exempt if said else None, settings)


def _scale_of(checkpoint: Checkpoint, weight: str) -> StoredTensor | None:
    """The scale of a weight, by any of its names."""
    module = weight.removesuffix(".weight")
    names = [f"{weight}_scale_inv", f"{weight}_scale"]
    if module != weight:
        names += [f"{module}.scale", f"{module}.qscale_weight"]
    return next((checkpoint.tensors[name] for name in names if name in checkpoint.tensors), None)


def _weights(checkpoint: Checkpoint) -> dict[str, dict[str, StoredTensor]]:
    """weight -> role -> tensor: of 8-bit floats, of bytes with a scale, and of scales without."""
    found: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        scale = _scale_of(checkpoint, name) if tensor.stored_dtype in (PACKED, *TABLES) else None
        if tensor.stored_dtype in TABLES or scale is not None:
            found[name] = {"weight": tensor} | ({"scale": scale} if scale else {})
    for name, tensor in checkpoint.tensors.items():
        weight = _without_scale(name)
        if weight and weight not in found:
            found[weight] = {"scale": tensor}
            if weight in checkpoint.tensors:
                found[weight]["weight"] = checkpoint.tensors[weight]
    return found


def _without_scale(name: str) -> str:
    """The weight that a scale is of, where its name can mean nothing else; else empty."""
    if name.endswith(".qscale_weight"):
        return name.removesuffix("qscale_weight") + "weight"
    if name.endswith(("_scale_inv", ".weight_scale")):
        return name.removesuffix("_inv").removesuffix("_scale")
    return ""


def _load(name: str, parts: Parts, said: Mapping[str, Any]) -> StoredWeight:
    weight, scale = (require_part(parts, role, name) for role in ("weight", "scale"))
    packed = weight.stored_dtype == PACKED
    coded = packed or weight.stored_dtype in TABLES
    if len(weight.shape) not in (2, 3) or 0 in weight.shape or not coded:
        raise CheckpointError(
            f"{weight} is {weight.stored_dtype} {weight.shape}, though it has a scale; expected "
            f"{', '.join(TABLES)} or {PACKED} of 2 dimensions, or of 3 where experts are stacked"
        )
    rows, columns = weight.shape[-2], weight.shape[-1] * (2 if packed else 1)
    stack = (*weight.shape[:-2], rows, columns)
    height, width = _block(scale, stack, PACKED_BLOCK if packed else said.get("weight_block_size"))
    values = _values(scale).reshape(-1, -(-rows // height), -(-columns // width))
    grain: GroupSize | None = None
    if values.size == 1:
        grain = "tensor"
    elif height == 1:
        grain = width if width < columns else "channel"
    by_row = np.repeat(values, height, axis=1)[:, :rows].reshape(prod(stack[:-1]), -1)
    bits, table = (4, E2M1) if packed else (8, TABLES[weight.stored_dtype])
    codes = GroupedCodes(
        weight.array.view(np.uint8).reshape(len(by_row), -1), columns, bits, by_row, width,
        table=table,
    )  # fmt: skip
    grid = Grid(bits, "none", grain, table)
    nbytes = sum(part.stored_bytes for part in parts.values())
    return CodedWeight((len(by_row), columns), grid, nbytes, codes.read)


def _block(scale: StoredTensor, stack: tuple[int, ...], said: Any) -> tuple[int, int]:
    """The rows and columns that share a scale: as the config says, else as there are scales."""
    *experts, rows, columns = stack
    if said is None:
        guesses = [(rows, columns), (1, columns), BLOCK, _divided(scale, rows, columns)]
        wanted = "one of all, of a row or of a block of 128 x 128"
    elif (
        isinstance(said, (list, tuple)) and [type(n) for n in said] == [int, int] and min(said) > 0
    ):
        guesses = [(said[0], said[1])]
        grid = (*experts, -(-rows // said[0]), -(-columns // said[1]))
        wanted = f"{grid} for blocks of {said[0]} x {said[1]}"
    else:
        raise CheckpointError(
            f"{scale}: the config says weight_block_size {said!r}; expected two whole numbers "
            "from 1, or null"
        )
    for height, width in guesses:
        if _has(scale.shape, tuple(experts), -(-rows // height), -(-columns // width)):
            return height, width
    raise CheckpointError(f"{scale} is of shape {scale.shape}; expected {wanted}, as {stack} is")


def _divided(scale: StoredTensor, rows: int, columns: int) -> tuple[int, int]:
    """The blocks that a weight falls into where so many are of one size."""
    down, along = scale.shape[-2:] if len(scale.shape) > 1 else (1, 1)
    if 0 in (down, along) or rows % down or columns % along:
        return BLOCK
    return max(rows // down, 1), max(columns // along, 1)


def _has(shape: tuple[int, ...], experts: tuple[int, ...], down: int, along: int) -> bool:
    """True for the shape of a grid of scales, whose last axes of one may be left out."""
    whole = (*experts, down, along)
    shapes = {whole, whole[:-1] if along == 1 else whole, experts if down == along == 1 else whole}
    return shape in shapes


def _values(scale: StoredTensor) -> Array:
    """Scales as float32, which may be stored as exponents alone."""
    values = scale.require(scale.shape, *FLOATS, *EXPONENTS)
    return powers_of_two(values) if scale.stored_dtype in EXPONENTS else values.astype(np.float32)
