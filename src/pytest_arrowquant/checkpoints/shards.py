"""Which files a checkpoint is made of: one, the shards in a folder, or those of an index."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError
from .config import json_object
from .stored_tensor import StoredTensor

INDEX = ".safetensors.index.json"
USUAL = "model"  # how the files of a checkpoint begin, where a folder holds others, too
NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)\.(safetensors|gguf)")
ACCEPTED = "expected a .safetensors or .gguf file, a folder of shards or their index"
ASIDE = ("adapter_", "consolidated")  # what lies beside a checkpoint, or is its duplicate


@dataclass(frozen=True, slots=True)
class Shards:
    """The files of a checkpoint, and the shard that an index, if there is one, names a tensor in.

    notes: which files of the folder were left aside.
    """

    files: tuple[Path, ...]
    index: Path | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def against(self, tensors: Mapping[str, StoredTensor]) -> tuple[str, ...]:
        """What the index says that the headers of the shards do not bear out: they win.

        Raises CheckpointError for a tensor that no shard has.
        """
        if self.index is None:
            return ()
        absent = sorted(name for name in self.named if name not in tensors)
        if absent:
            raise CheckpointError(
                f"checkpoint {self.index} names tensor {absent[0]!r} in {self.named[absent[0]]}, "
                f"which no shard has ({len(absent)} such)"
            )
        known, there = len(self.named), len(tensors)
        moved = sum(tensors[name].source != shard for name, shard in self.named.items())
        said = []
        if moved:
            said.append(f"{moved} of the {known} tensors that it names are in another shard")
        if known < there:
            said.append(f"it names {known} of {there} tensors")
        return tuple(f"{self.index.name} is out of date: {text}" for text in said)


def find_shards(path: Path) -> Shards:
    """The files of the checkpoint at `path`: a file, a folder, or an index of shards.

    A folder's index decides; without one, model.safetensors does; without that, all .safetensors
    files but adapters and consolidated duplicates; without any, a .gguf file. Raises
    CheckpointError for a shard that is missing and where it is not clear what is meant.
    """
    try:
        if path.name.endswith(INDEX):
            return _indexed(path, _names(path.parent))
        if not path.is_dir():
            return Shards((path,))
        return _in_folder(path, _names(path))
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist; {ACCEPTED}") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from None


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _in_folder(folder: Path, names: list[str]) -> Shards:
    indices = [name for name in names if name.endswith(INDEX)]
    if indices:
        return _indexed(folder / _one(folder, indices, "indices", USUAL + INDEX), names)
    tensors = [name for name in names if name.endswith(".safetensors")]
    if not tensors:
        return Shards((folder / _gguf(folder, names),))
    usual = f"{USUAL}.safetensors"
    chosen = [usual] if usual in tensors else [n for n in tensors if not n.startswith(ASIDE)]
    chosen = chosen or tensors
    _require_whole_series(folder, chosen)
    return Shards(tuple(folder / name for name in chosen), notes=_left_aside(chosen, tensors))


def _gguf(folder: Path, names: list[str]) -> str:
    """The .gguf file, or the first of the series of them, in a folder without .safetensors."""
    found = [name for name in names if name.endswith(".gguf")]
    if not found:
        raise CheckpointError(
            f"checkpoint {folder} is a folder without a .safetensors or .gguf file; expected one, "
            "several shards, or an index of them"
        )
    series = {_series(name) or name for name in found}
    return found[0] if len(series) == 1 else _one(folder, found, ".gguf files")


def _one(folder: Path, names: list[str], what: str, usual: str = "") -> str:
    """The only one of them, or the usual one."""
    if len(names) > 1 and usual not in names:
        raise CheckpointError(
            f"checkpoint {folder} has several {what}, {', '.join(names)}; give the one meant"
        )
    return usual if usual in names else names[0]


def _indexed(index: Path, names: list[str]) -> Shards:
    """The shards that an index names, all of them there, and others of their series."""
    if index.name not in names:
        raise CheckpointError(f"checkpoint {index} does not exist; {ACCEPTED}")
    named = _weight_map(index)
    first = {shard: tensor for tensor, shard in reversed(named.items())}
    for shard, tensor in first.items():
        if not index.with_name(shard).is_file():
            raise CheckpointError(
                f"checkpoint {index}: shard {shard} does not exist; it should hold tensor "
                f"{tensor!r}"
            )
    series = {_series(shard) for shard in first} - {None}
    chosen = [name for name in names if name in first or _series(name) in series]
    tensors = [name for name in names if name.endswith(".safetensors")]
    return Shards(
        tuple(map(index.with_name, chosen)), index, named, _left_aside(chosen, tensors, index.name)
    )


def _weight_map(index: Path) -> dict[str, str]:
    """The shard of every tensor, in the order of their names."""
    named = json_object(index).get("weight_map")
    if isinstance(named, dict) and named and all(map(_is_name, named.values())):
        return dict(sorted(named.items()))
    raise CheckpointError(
        f"checkpoint {index} has no weight_map of tensors to files in its own folder"
    )


def _is_name(shard: object) -> bool:
    return isinstance(shard, str) and shard != "" and Path(shard).name == shard


def _series(name: str) -> tuple[str, ...] | None:
    """What the names of one series of shards share, model-00001-of-00003.safetensors."""
    numbered = NUMBERED.fullmatch(name)
    return numbered.group(1, 3, 4) if numbered else None


def _require_whole_series(folder: Path, chosen: Iterable[str]) -> None:
    """Of a series of shards, which counts from 1 or from 0, none may be missing."""
    there = {name: numbered for name in chosen if (numbered := NUMBERED.fullmatch(name))}
    for name in {_series(name): name for name in reversed(there)}.values():
        stem, number, total, suffix = there[name].groups()
        start = min(int(number), 1)
        for i in range(start, start + int(total)):
            other = f"{stem}-{i:0{len(number)}}-of-{total}.{suffix}"
            if other not in there:
                raise CheckpointError(
                    f"checkpoint {folder}: shard {other} does not exist, as {name} does"
                )


def _left_aside(chosen: Iterable[str], tensors: Iterable[str], index: str = "") -> tuple[str, ...]:
    left = sorted(set(tensors) - set(chosen))
    why = f", which {index} does not name" if index else ""
    return (f"left aside: {', '.join(left)}{why}",) if left else ()
