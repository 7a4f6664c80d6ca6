"""This project's own checkpoints: quantized tensors, codes and all, in safetensors files."""

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
from ..stored_form import put_together, taken_apart
from ..tensor import QuantizedTensor
from .checkpoint import Checkpoint, open_checkpoint
from .entries import Parts
from .stored_tensor import DTYPES, StoredTensor

KEY = "arrowquant"  # in the header's metadata: the version; and arrowquant.w describes tensor w
VERSION = "1"
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


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
    header = {KEY: VERSION, **_own_metadata(metadata or {})}
    arrays: dict[str, Array] = {}
    owners: dict[str, str] = {}
    for name, tensor in tensors.items():
        _require_name(name)
        if isinstance(tensor, QuantizedTensor):
            try:
                described, parts = taken_apart(tensor)
            except TensorError as error:
                raise CheckpointError(f"tensor {name!r} cannot be stored: {error}") from None
            header[f"{KEY}.{name}"] = json.dumps(described)
            parts = {f"{name}.{role}": part for role, part in parts.items()}
        else:
            parts = {name: _storable(name, tensor)}
        for stored, array in parts.items():
            if stored in owners:
                raise CheckpointError(
                    f"tensors {owners[stored]!r} and {name!r} would both be stored as {stored!r}"
                )
            owners[stored] = name
            arrays[stored] = np.asarray(array, order="C")
    _write(Path(path), arrays, header)


def _own_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise CheckpointError(f"metadata has {key!r}: {text!r}; expected texts")
        if key == KEY or key.startswith(f"{KEY}."):
            raise CheckpointError(f"metadata has the key {key!r}, which this format keeps")
    return metadata


def _require_name(name: object) -> None:
    if not isinstance(name, str) or name == "__metadata__":
        raise CheckpointError(f"a tensor is called {name!r}; expected a text, not '__metadata__'")


def _storable(name: str, tensor: object) -> Array:
    if isinstance(tensor, np.ndarray) and tensor.dtype in NAMES:
        return tensor
    kind = type(tensor).__name__
    what = f"{kind} of {tensor.dtype}" if isinstance(tensor, np.ndarray) else kind
    raise CheckpointError(
        f"tensor {name!r} is of type {what}; expected a QuantizedTensor or a numpy array of floats "
        "or whole numbers"
    )


def _write(path: Path, arrays: Mapping[str, Array], header: Mapping[str, str]) -> None:
    """The file, by way of another, which takes its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # the library lets nobody but the owner read what it writes
        save_file(dict(arrays), temporary, dict(header))
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict[str, QuantizedTensor | Array]:
    """What save_checkpoint wrote, bit for bit, in the order of the names.

    path: a file, or a folder of several. Arrays are read-only views of the file. Raises
    CheckpointError for another kind of file, and for one that is damaged.
    """
    checkpoint = open_checkpoint(Path(path))
    loaded: dict[str, QuantizedTensor | Array] = {}
    plain = dict(checkpoint.tensors)
    for name in described_names(checkpoint):
        loaded[name], parts = quantized_tensor(checkpoint, name)
        for part in parts.values():
            plain.pop(part.name, None)
    return dict(sorted([*loaded.items(), *((name, t.array) for name, t in plain.items())]))


def described_names(checkpoint: Checkpoint) -> list[str]:
    """The quantized tensors of a header; CheckpointError if it is of another format or version."""
    version = checkpoint.metadata.get(KEY)
    if version is None:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} has no {KEY!r} in its metadata; was it written by "
            "save_checkpoint()?"
        )
    if version != VERSION:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} is of version {version!r} of this format; read is "
            f"{VERSION!r}"
        )
    prefix = f"{KEY}."
    return [key.removeprefix(prefix) for key in checkpoint.metadata if key.startswith(prefix)]


def quantized_tensor(checkpoint: Checkpoint, name: str) -> tuple[QuantizedTensor, Parts]:
    """One quantized tensor, and what it is stored in by role; no data is looked at.

    Raises CheckpointError, naming the tensor, where it is damaged.
    """
    parts: dict[str, StoredTensor] = {}

    def take(role: str, shape: tuple[int, ...], dtype: Any) -> Array:
        stored = checkpoint.tensors.get(f"{name}.{role}")
        if stored is None:
            raise TensorError(f"{f'{name}.{role}'!r} is not there")
        parts[role] = stored
        return stored.require(shape, NAMES[np.dtype(dtype)], why=f"as {name!r} is described")

    try:
        described = json.loads(checkpoint.metadata[f"{KEY}.{name}"])
        if not isinstance(described, dict):
            raise TensorError(f"it is described as {described!r}")
        return put_together(described, take), parts
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {checkpoint.path}: tensor {name!r}: {error}") from None
