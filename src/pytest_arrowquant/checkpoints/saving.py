"""This project's own checkpoints: quantized tensors, codes and all, in one safetensors file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  its import makes bfloat16 known to the safetensors library
import numpy as np
from safetensors.numpy import save_file

from ..arrays import Array
from ..errors import CheckpointError, TensorError
from ..stored_form import put_together, roles, taken_apart
from ..tensor import QuantizedTensor
from .checkpoint import Checkpoint, open_checkpoint
from .stored_tensor import DTYPES

DESCRIBED = "arrowquant"  # the key in the header's metadata
VERSION = 1


def save_checkpoint(
    path: str | Path,
    tensors: Mapping[str, QuantizedTensor | Array],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write quantized tensors, and arrays that stay as they are, into one safetensors file.

    A QuantizedTensor `w` becomes tensors `w.codes`, `w.scale`, ...; how they are to be read stands
    in the header. metadata: more texts for the header. The file is written whole or not at all.
    Raises CheckpointError for names that clash and for what cannot be stored.
    """
    described: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, QuantizedTensor):
            try:
                described[name], parts = taken_apart(tensor)
            except TensorError as error:
                raise CheckpointError(f"tensor {name!r} cannot be stored: {error}") from None
        else:
            parts = {"": _storable(name, tensor)}
        for role, array in parts.items():
            stored = f"{name}.{role}" if role else name
            if stored in arrays:
                raise CheckpointError(f"tensor {name!r} cannot be stored: there are two {stored!r}")
            arrays[stored] = np.ascontiguousarray(array)
    if DESCRIBED in (metadata or {}):
        raise CheckpointError(f"metadata has the key {DESCRIBED!r}, which this format keeps")
    header = {**(metadata or {}), DESCRIBED: json.dumps({"version": VERSION, "tensors": described})}
    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        save_file(arrays, temporary, header)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _storable(name: str, tensor: object) -> Array:
    if not isinstance(tensor, np.ndarray) or tensor.dtype not in map(np.dtype, DTYPES.values()):
        what = f"array of {tensor.dtype}" if isinstance(tensor, np.ndarray) else type(tensor)
        raise CheckpointError(
            f"tensor {name!r} is a {what}; expected a QuantizedTensor or a numpy array of floats "
            "or whole numbers"
        )
    return tensor


def load_checkpoint(path: str | Path) -> dict[str, QuantizedTensor | Array]:
    """What save_checkpoint wrote, bit for bit; arrays are read-only views of the file.

    Raises CheckpointError for another kind of file, and for one that is damaged.
    """
    checkpoint = open_checkpoint(Path(path))
    described = descriptions(checkpoint)
    loaded: dict[str, QuantizedTensor | Array] = {}
    taken: set[str] = set()
    for name, said in described.items():
        loaded[name] = quantized_tensor(checkpoint, name, said)
        taken |= {f"{name}.{role}" for role in roles(said)}
    plain = {n: t.array for n, t in checkpoint.tensors.items() if n not in taken}
    return {**loaded, **plain}


def descriptions(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """How each quantized tensor is described in the header; CheckpointError if it is of no kind."""
    text = checkpoint.metadata.get(DESCRIBED)
    try:
        said = json.loads(text or "null")
        if said["version"] != VERSION:
            raise CheckpointError(
                f"checkpoint {checkpoint.path} is of version {said['version']!r} of this format; "
                f"read is {VERSION}"
            )
        return {str(name): dict(described) for name, described in said["tensors"].items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        raise CheckpointError(
            f"checkpoint {checkpoint.path} has no {DESCRIBED!r} in its header that describes its "
            "tensors; was it written by save_checkpoint()?"
        ) from None


def quantized_tensor(
    checkpoint: Checkpoint, name: str, described: Mapping[str, Any]
) -> QuantizedTensor:
    """One quantized tensor; CheckpointError, naming it, where it is damaged."""
    where = f"{checkpoint.path.name}: tensor {name!r}"
    try:
        parts = {role: f"{name}.{role}" for role in roles(described)}
        missing = [part for part in parts.values() if part not in checkpoint.tensors]
        if missing:
            raise CheckpointError(f"{where} has no {missing[0]!r} beside it")
        arrays = {role: checkpoint.tensors[part].array for role, part in parts.items()}
        return put_together(described, arrays)
    except TensorError as error:
        raise CheckpointError(f"{where} cannot be read: {error}") from None
