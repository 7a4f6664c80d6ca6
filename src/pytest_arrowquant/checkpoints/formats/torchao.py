"""torchao: tensor subclasses taken apart, each described by JSON in the file's metadata.

Source: torchao 0.18, prototype/safetensors.
"""

from collections import Counter
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from ...arrays import Array
from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Parts, contents
from ..stored_tensor import StoredTensor
from ..torchao_tensors import FLOATS, READERS, Described
from ..weight import CodedWeight, StoredWeight

ACTIVATIONS = ("act_quant_scale", "act_quant_zero_point", "act_per_tensor_scale")
DEVICES = {
    "Int4TilePackedTo4dTensor": "is in the order of a CUDA kernel's tiles",
    "Int4PlainInt32Tensor": "is in the order of an XPU's or NPU's kernel",
}


def claims(checkpoint: Checkpoint) -> bool:
    """Tensors of torch's subclasses are described in the metadata."""
    return "tensor_names" in checkpoint.metadata and bool(_described(checkpoint))


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a tensor that the metadata says is of a subclass."""
    entries: list[Entry] = []
    companions: list[StoredTensor] = []
    kinds: Counter[str] = Counter()
    for name in _described(checkpoint):
        described = Described.of(checkpoint, name)
        module, _, own = name.rpartition(".")
        named = {role: f"{module}._{own}_{role}" for role in described.roles}
        parts = {
            role: checkpoint.tensors[n] for role, n in named.items() if n in checkpoint.tensors
        }
        companions += [parts.pop(role) for role in ACTIVATIONS if role in parts]
        if parts:
            kinds[described.kind] += 1
            entries.append(Entry(name, parts, partial(_load, described, parts)))
    return contents("torchao", checkpoint, entries, companions, settings={"types": dict(kinds)})


def _described(checkpoint: Checkpoint) -> list[str]:
    """The tensors that the metadata tells more of than that they are plain."""
    return [
        name
        for name, text in checkpoint.metadata.items()
        if '"_type"' in text and '"_tensor_data_names"' in text
    ]


def _load(described: Described, parts: Parts) -> StoredWeight:
    first = next(iter(parts.values()))
    if described.kind not in READERS:
        why = DEVICES.get(described.kind, "is not known")
        raise CheckpointError(
            f"{first} is of a {described.kind}, which {why}; read are {', '.join(READERS)}"
        )
    missing = [role for role in described.roles if role not in (*parts, *ACTIVATIONS)]
    if missing:
        raise CheckpointError(
            f"{first} has no {' and no '.join(map(repr, missing))} beside it, which the metadata "
            f"names; there {'is' if len(parts) == 1 else 'are'} {', '.join(map(repr, parts))}"
        )
    shape, grid, codes = READERS[described.kind](described, parts)
    nbytes = sum(part.stored_bytes for part in parts.values())
    if "act_pre_scale" in parts:
        # the inputs are multiplied by it: in effect, so are the columns
        codes = replace(codes, by_column=_by_column(parts["act_pre_scale"], shape[-1]))
        grid = replace(grid, group_size=None, feedback=True)
    return CodedWeight((prod(shape[:-1]), shape[-1]), grid, nbytes, codes.read)


def _by_column(tensor: StoredTensor, columns: int) -> Array:
    if prod(tensor.shape) != columns:
        raise CheckpointError(f"{tensor} is of shape {tensor.shape}; expected {columns} values")
    return tensor.require(tensor.shape, *FLOATS).astype(np.float32).reshape(-1)
