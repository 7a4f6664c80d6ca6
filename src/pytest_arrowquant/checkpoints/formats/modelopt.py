"""NVIDIA ModelOpt: FP8 by tensor or row, and NVFP4 under scales of two levels.

Source: nvidia-modelopt 0.47, torch/export; FP8QTensor and NVFP4QTensor.
"""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np

from ...arrays import Array
from ...codes import Grid
from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Exemption, Parts, by_module, contents, require_part
from ..grouped_codes import GroupedCodes
from ..small_floats import E2M1, E4M3, e4m3_scales
from ..stored_tensor import StoredTensor
from ..weight import CodedWeight, StoredWeight

ROLES = ("weight", "weight_scale", "weight_scale_2", "pre_quant_scale")
COMPANIONS = (
    *("input_scale", "output_scale", "q_scale", "k_scale", "v_scale"),
    *("k_proj.k_bias", "v_proj.v_bias"),
)
FP8 = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN")
NVFP4 = ("NVFP4", "NVFP4_AWQ", "W4A16_NVFP4", "W4A8_NVFP4_FP8")
STORED = {**dict.fromkeys(FP8, "F8_E4M3"), **dict.fromkeys(NVFP4, "U8")}  # by quant_algo
GROUP = 16  # of NVFP4, where nothing is said


def claims(checkpoint: Checkpoint) -> bool:
    """The config names ModelOpt, or nobody, and there is NVFP4 under scales of two levels."""
    said = checkpoint.quantization
    producer = said.get("producer")
    if said.get("quant_method") == "modelopt" or _name(producer) == "modelopt":
        return True
    return "quant_method" not in said and any(
        {"weight", "weight_scale", "weight_scale_2"} <= parts.keys()
        for parts in by_module(checkpoint, ROLES).values()
    )


def _name(producer: Any) -> Any:
    return producer.get("name") if isinstance(producer, Mapping) else None


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a module whose weight has a scale, or should have one."""
    said = checkpoint.quantization
    said = {**said, **said.get("quantization", {})}  # one level down in hf_quant_config.json
    entries = [
        Entry(f"{module}.weight", parts, partial(_load, module, parts, _own(said, module)))
        for module, parts in by_module(checkpoint, ROLES).items()
        if _is_quantized(parts)
    ]
    companions = [t for n, t in checkpoint.tensors.items() if n.endswith(COMPANIONS)]
    settings = {"quant_algo": said["quant_algo"]} if "quant_algo" in said else {}
    return contents("modelopt", checkpoint, entries, companions, _exempt(said), settings)


def _is_quantized(parts: Parts) -> bool:
    weight = parts.get("weight")
    codes = weight is not None and weight.stored_dtype in STORED.values()
    return codes or "weight_scale" in parts


def _exempt(said: Mapping[str, Any]) -> tuple[Exemption, ...] | None:
    """Names and wildcards; None where the config lists the quantized layers instead."""
    listed = said.get("exclude_modules", said.get("ignore"))
    if listed is None or "quantized_layers" in said:
        return None
    return tuple(Exemption(text, partial(_covers, text)) for text in listed)


def _covers(text: str, module: str) -> bool:
    return fnmatchcase(module, text)


def _own(said: Mapping[str, Any], module: str) -> Mapping[str, Any]:
    """What the config says of one module, where a mixture lists them; else of all."""
    layers = said.get("quantized_layers")
    if not isinstance(layers, Mapping):
        return said
    layer = layers.get(module)
    return layer if isinstance(layer, Mapping) else {}


def _load(module: str, parts: Parts, said: Mapping[str, Any]) -> StoredWeight:
    algorithm = said.get("quant_algo")
    weight = require_part(parts, "weight", module)
    stored = weight.stored_dtype if algorithm is None else STORED.get(algorithm)
    if stored is None:
        raise CheckpointError(
            f"{weight} is said to be of quant_algo {algorithm!r}; read are {', '.join(STORED)}"
        )
    if len(weight.shape) != 2 or weight.stored_dtype != stored:
        raise CheckpointError(
            f"{weight} is {weight.stored_dtype} {weight.shape}; expected {stored} of 2 dimensions"
            + (f" for quant_algo {algorithm!r}" if algorithm else "")
        )
    scale = require_part(parts, "weight_scale", module)
    if stored == "U8":
        double = require_part(parts, "weight_scale_2", module)
        grid, codes = _nvfp4(weight, scale, double, said.get("group_size") or GROUP)
    else:
        grid, codes = _fp8(weight, scale)
    if "pre_quant_scale" in parts:
        # the inputs are multiplied by it: in effect, so are the columns
        factors = parts["pre_quant_scale"].require((codes.columns,), "F32", "BF16", "F16")
        codes = replace(codes, by_column=factors.astype(np.float32))
        grid = Grid(grid.bits, grid.zero, None, grid.table, feedback=True)
    nbytes = sum(part.stored_bytes for part in parts.values())
    return CodedWeight((weight.shape[0], codes.columns), grid, nbytes, codes.read)


def _nvfp4(
    weight: StoredTensor, scale: StoredTensor, double: StoredTensor, size: int
) -> tuple[Grid, GroupedCodes]:
    """E2M1 * (E4M3 scale of a group * scale of the tensor)."""
    rows, columns = weight.shape[0], weight.shape[1] * 2
    groups = (rows, columns // size)
    why = f"for groups of {size} in {rows} rows of {columns} codes, two a byte"
    scales = e4m3_scales(scale.require(groups, "F8_E4M3", why=why)) * _scalar(double)
    grid = Grid(4, "none", size, E2M1)
    return grid, GroupedCodes(weight.array, columns, 4, scales, size, table=E2M1)


def _fp8(weight: StoredTensor, scale: StoredTensor) -> tuple[Grid, GroupedCodes]:
    """E4M3 * scale of the tensor or of the row."""
    rows, columns = weight.shape
    codes = weight.array.view(np.uint8)
    if scale.shape in ((rows,), (rows, 1)) and rows > 1:
        scales = scale.require(scale.shape, "F32").reshape(rows, 1)
        grid = Grid(8, "none", "channel", E4M3)
        return grid, GroupedCodes(codes, columns, 8, scales, columns, table=E4M3)
    if scale.shape not in ((), (1,)):
        raise CheckpointError(
            f"{scale} is of shape {scale.shape}; expected () or ({rows},) for {rows} rows of "
            f"{columns} codes"
        )
    grid = Grid(8, "none", "tensor", E4M3)
    whole = _scalar(scale).reshape(1, 1)
    return grid, GroupedCodes(codes, columns, 8, whole, columns, rows_a_scale=rows, table=E4M3)


def _scalar(tensor: StoredTensor) -> Array:
    """The one value of a tensor, float32 (1,)."""
    shape = tensor.shape if tensor.shape in ((), (1,)) else ()
    return tensor.require(shape, "F32", why="for the whole weight").reshape(1)
