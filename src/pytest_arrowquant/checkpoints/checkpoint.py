"""A checkpoint, in one file or many: its tensors by name, and what its config files say."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .safetensors_file import read_safetensors
from .stored_tensor import StoredTensor

INDEX = ".safetensors.index.json"
QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
SINGLE = "model.safetensors"
NUMBERED = re.compile(r"-(\d+)-of-(\d+)\.safetensors$")


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
    """The checkpoint at `path`: a .safetensors or .gguf file, a folder of shards, or their index.

    Headers are read, data is mapped. Raises CheckpointError, naming file and tensor, for what is
    missing, truncated, malformed or contradictory.
    """
    if path.suffix == ".gguf":
        from .gguf_file import read_gguf

        return read_gguf(path)
    files, index = _files(path)
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        found, described = read_safetensors(file)
        twice = next((name for name in found if name in tensors), None)
        if twice is not None:
            raise CheckpointError(
                f"checkpoint {path}: tensor {twice!r} is in both {tensors[twice].source} "
                f"and {file.name}"
            )
        tensors |= found
        metadata |= described
    notes = _against_index(index, tensors) if index else ()
    folder = path if path.is_dir() else path.parent
    config = _json(folder / "config.json")
    return Checkpoint(
        path, dict(sorted(tensors.items())), metadata, config, _quantization(folder, config), notes
    )


def _files(path: Path) -> tuple[list[Path], Path | None]:
    """The files of a checkpoint, and the index that names them, where there is one."""
    if path.name.endswith(INDEX):
        return _indexed(path), path
    if not path.is_dir():
        return [path], None
    indices = sorted(path.glob(f"*{INDEX}"))
    if len(indices) > 1:
        names = ", ".join(index.name for index in indices)
        raise CheckpointError(f"checkpoint {path} has several indices, {names}; give the one meant")
    if indices:
        return _indexed(indices[0]), indices[0]
    if (path / SINGLE).is_file():
        return [path / SINGLE], None
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"checkpoint {path} is a folder without a .safetensors file; expected one, several, or "
            "an index of them (a .gguf file is given by its own path)"
        )
    _require_whole_series(path, files)
    return files, None


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names, all of them there."""
    if not index.is_file():
        raise CheckpointError(f"checkpoint {index} does not exist; expected an index of shards")
    shards: dict[str, str] = {}
    for tensor, shard in sorted(_weight_map(index).items()):
        shards.setdefault(shard, tensor)
    for shard, tensor in sorted(shards.items()):
        if not index.with_name(shard).is_file():
            raise CheckpointError(
                f"checkpoint {index}: shard {shard} does not exist; it should hold tensor "
                f"{tensor!r}"
            )
    return [index.with_name(shard) for shard in sorted(shards)]


def _weight_map(index: Path) -> dict[str, str]:
    named = _json(index).get("weight_map")
    fits = isinstance(named, dict) and all(
        isinstance(shard, str) and Path(shard).name == shard for shard in named.values()
    )
    if not named or not fits:
        raise CheckpointError(
            f"checkpoint {index} has no weight_map of tensors to files in its own folder"
        )
    return named  # type: ignore[no-any-return]


def _against_index(index: Path, tensors: Mapping[str, StoredTensor]) -> tuple[str, ...]:
    """What an index says that the headers of the shards do not bear out: they win.

    Raises CheckpointError for a tensor that no shard has.
    """
    named = _weight_map(index)
    absent = sorted(name for name in named if name not in tensors)
    if absent:
        raise CheckpointError(
            f"checkpoint {index} names tensor {absent[0]!r} in {named[absent[0]]}, which no shard "
            f"has ({len(absent)} such)"
        )
    moved = sum(tensors[name].source != shard for name, shard in named.items())
    unnamed = len(tensors) - len(named)
    notes = []
    if moved:
        notes.append(f"{index.name} is out of date: {moved} tensors are in another shard")
    if unnamed:
        notes.append(f"{index.name} is out of date: it does not name {unnamed} tensors")
    return tuple(notes)


def _require_whole_series(folder: Path, files: list[Path]) -> None:
    """Of a numbered series, model-00001-of-00003.safetensors, none may be missing."""
    for file in files:
        if match := NUMBERED.search(file.name):
            start, total = file.name[: match.start()], match[2]
            for number in range(1, int(total) + 1):
                other = f"{start}-{number:0{len(match[1])}}-of-{total}.safetensors"
                if not (folder / other).is_file():
                    raise CheckpointError(
                        f"checkpoint {folder}: shard {other} does not exist, as {file.name} does"
                    )


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is not there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"checkpoint file {path} is not JSON: {error}") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint file {path} is no JSON object")
    return content


def _quantization(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is said of the quantization: in config.json, else in a file of its own."""
    for said in (config, config.get("text_config", {})):
        for key in ("quantization_config", "compression_config", "quantization"):
            if isinstance(said, Mapping) and isinstance(said.get(key), dict):
                return dict(said[key])
    found = next((said for name in QUANTIZATION_FILES if (said := _json(folder / name))), {})
    inner = found.get("quantization")  # hf_quant_config.json has the producer beside it
    return {**found, **inner} if isinstance(inner, dict) else found
