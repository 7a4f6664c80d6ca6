"""GGUF: blocks of many types, restored by the gguf package.

Names stay those of the file, and values as the converter has left them (pairing knows both). A
weight `x.weight` is multiplied by `x.scale`, where that is there: of NVFP4, the scale of the tensor
or of each expert.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...arrays import Array
from ...codes import Grid
from ...errors import CheckpointError
from ...scheme import rows_and_columns
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Parts, contents
from ..gguf_file import VERSION
from ..small_floats import E2M1
from ..stored_tensor import DTYPES
from ..weight import RestoredWeight, StoredWeight

IQ4 = (  # of IQ4_NL and IQ4_XS; ggml-common.h
    *(-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0),
    *(1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0),
)

GRIDS = {
    "Q4_0": Grid(4, "none", 32),
    "Q4_1": Grid(4, "float", 32),
    "Q5_0": Grid(5, "none", 32),
    "Q5_1": Grid(5, "float", 32),
    "Q8_0": Grid(8, "none", 32),
    "Q2_K": Grid(2, "float", 16),
    "Q3_K": Grid(3, "none", 16),
    "Q4_K": Grid(4, "float", 32),
    "Q5_K": Grid(5, "float", 32),
    "Q6_K": Grid(6, "none", 16),
    "TQ1_0": Grid(2, "none", 256),
    "TQ2_0": Grid(2, "none", 256),
    "IQ4_NL": Grid(4, "none", 32, IQ4),
    "IQ4_XS": Grid(4, "none", 32, IQ4),
    "MXFP4": Grid(4, "none", 32, E2M1),
    "NVFP4": Grid(4, "none", 16, E2M1),
    # points of a lattice, eight or four weights at once: a weight has more levels than its width
    **dict.fromkeys(("IQ1_S", "IQ1_M"), Grid(1)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S"), Grid(2)),
    **dict.fromkeys(("IQ3_XXS", "IQ3_S"), Grid(3)),
}


def claims(checkpoint: Checkpoint) -> bool:
    """It was read from a GGUF file."""
    return VERSION in checkpoint.metadata


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a tensor of blocks."""
    tensors = checkpoint.tensors
    blocks = [tensor for tensor in tensors.values() if tensor.stored_dtype not in DTYPES]
    entries, companions = [], []
    for tensor in blocks:
        stem = tensor.name.removesuffix("weight")
        parts = {"blocks": tensor}
        if f"{stem}scale" in tensors:
            parts["scale"] = tensors[f"{stem}scale"]
        if f"{stem}input_scale" in tensors:
            companions.append(tensors[f"{stem}input_scale"])
        entries.append(Entry(tensor.name, parts, partial(_load, parts)))
    types = Counter(tensor.stored_dtype for tensor in blocks)
    return contents("gguf", checkpoint, entries, companions, settings={"types": dict(types)})


def _load(parts: Parts) -> StoredWeight:
    """Of stacked experts, [experts, out, in], the rows of one after those of the other."""
    tensor = parts["blocks"]
    if tensor.stored_dtype not in GRIDS:
        raise CheckpointError(
            f"{tensor} is {tensor.stored_dtype}, which the gguf package does not restore; it does "
            f"{', '.join(GRIDS)}"
        )
    shape = tensor.shape
    if len(shape) == 3:
        shape = (shape[0] * shape[1], shape[2])
    rows, columns = rows_and_columns(shape)
    packed = tensor.raw.reshape(rows, -1) if rows else tensor.raw.reshape(0, 0)
    blocks = _Blocks(packed, tensor.stored_dtype, columns, _scales(parts, rows))
    nbytes = sum(part.stored_bytes for part in parts.values())
    return RestoredWeight(shape, GRIDS[tensor.stored_dtype], nbytes, blocks.restored)


def _scales(parts: Parts, rows: int) -> Array:
    """The factor of each row that a tensor of its own gives, one a weight or an expert."""
    if "scale" not in parts:
        return np.empty((0, 1), np.float32)
    experts = parts["blocks"].shape[:-2] or (1,)
    scale = parts["scale"].require(experts, "F32", why=f"for {parts['blocks'].name!r}")
    return np.repeat(scale, rows // max(scale.size, 1)).reshape(-1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Rows of blocks, uint8 (rows, bytes), and a factor each, or none of any."""

    packed: Array
    kind: str
    columns: int
    scales: Array

    def restored(self, start: int, stop: int) -> Array:
        """The values of rows start to stop."""
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        if start == stop:
            return np.empty((0, self.columns), np.float32)
        values = dequantize(self.packed[start:stop], GGMLQuantizationType[self.kind])
        if self.scales.size:
            values = values * self.scales[start:stop]
        return np.ascontiguousarray(values, np.float32).reshape(stop - start, self.columns)
