"""A checkpoint, in one file or many: its tensors by name, and what its config files say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .config import json_object, quantization
from .safetensors_file import read_safetensors
from .shards import find_shards
from .stored_tensor import StoredTensor


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Tensors by name, in the order of their names, whatever files they lie in.

    metadata: of the files' headers. config: config.json. quantization: what the producer says of
    its quantization, from `quantization_config` there or from a file of its own; empty if nothing.
    notes: what a reader should know, such as an index that is out of date.
    """

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def quantizable(self) -> tuple[StoredTensor, ...]:
        """Floating tensors of two or more dimensions."""
        return tuple(tensor for tensor in self.tensors.values() if not tensor.reason_left)

    @property
    def left(self) -> tuple[StoredTensor, ...]:
        """The others, which stay in full precision, each with its `reason_left`."""
        return tuple(tensor for tensor in self.tensors.values() if tensor.reason_left)


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`: a .safetensors or .gguf file, a folder, or an index of shards.

    Headers are read, data is mapped. Raises CheckpointError, naming file and tensor, for what is
    missing, truncated, malformed or contradictory.
    """
    shards = find_shards(path)
    if shards.files[0].suffix == ".gguf":
        from .gguf_file import read_gguf

        return read_gguf(shards.files[0])
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    for file in shards.files:
        found, described = read_safetensors(file)
        twice = next((name for name in found if name in tensors), None)
        if twice is not None:
            raise CheckpointError(
                f"checkpoint {path}: tensor {twice!r} is in both {tensors[twice].source} "
                f"and {file.name}"
            )
        tensors |= found
        metadata |= described
    folder = path if path.is_dir() else path.parent
    config = json_object(folder / "config.json")
    return Checkpoint(
        path,
        dict(sorted(tensors.items())),
        metadata,
        config,
        quantization(folder, config),
        shards.notes + shards.against(tensors),
    )
