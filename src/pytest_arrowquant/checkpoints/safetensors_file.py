"""A safetensors file: its header checked, its tensors mapped."""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import CheckpointError
from .stored_tensor import StoredTensor

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
LENGTH = 8  # bytes of the header's length
MOST_HEADER = 100_000_000  # bytes; the limit of the format's own library


def read_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a file by name, and its metadata.

    The data is mapped, not read. Raises CheckpointError, naming file and tensor, for a file that
    is missing or truncated, or whose header is malformed, overlaps or leaves holes.
    """
    content = _mapped(path)
    header, start = _header(path, content)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"checkpoint {path}: its __metadata__ is no object of texts")
    data = content[start:]
    spans = {name: _span(path, name, entry, data.size) for name, entry in header.items()}
    _require_contiguous(path, spans, data.size)
    tensors = {
        name: StoredTensor(
            path.name,
            name,
            tuple(header[name]["shape"]),
            header[name]["dtype"],
            data[slice(*spans[name])],
        )
        for name in sorted(spans)
    }
    return tensors, metadata


def _mapped(path: Path) -> Array:
    """The bytes of a file, mapped."""
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} does not exist; expected a .safetensors or .gguf file, a folder of "
            "shards or their index"
        )
    try:
        if path.stat().st_size < LENGTH:
            raise CheckpointError(f"checkpoint {path} is truncated: it has no header")
        return np.asarray(np.memmap(path, np.uint8, "r"))
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from None


def _header(path: Path, content: Array) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    length = int.from_bytes(content[:LENGTH].tobytes(), "little")
    if length > min(content.size - LENGTH, MOST_HEADER):
        raise CheckpointError(
            f"checkpoint {path} is truncated or no safetensors file: its header should take "
            f"{length} bytes, the file has {content.size}"
        )
    try:
        header = json.loads(
            content[LENGTH : LENGTH + length].tobytes(), object_pairs_hook=_without_repeats
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint {path} is truncated or no safetensors file: its header is no JSON: {error}"
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"checkpoint {path}: its header is no JSON object")
    return header, LENGTH + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object none of whose keys comes twice: of two tensors of one name, which is meant?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"{twice!r} comes twice")
    return found


def _span(path: Path, name: str, entry: Any, size: int) -> tuple[int, int]:
    """Where a tensor's bytes lie in the data."""
    where = f"checkpoint {path}: tensor {name!r}"
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(
            f"{where} is described by {entry!r}; expected dtype, shape and two data_offsets"
        ) from None
    if not isinstance(dtype, str) or dtype not in BITS:
        raise CheckpointError(f"{where} has dtype {dtype!r}; known are {', '.join(BITS)}")
    numbers = [begin, end, *shape] if isinstance(shape, list) else [None]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise CheckpointError(
            f"{where} has shape {shape!r} and data_offsets {[begin, end]!r}; "
            "expected whole numbers from 0"
        )
    if not begin <= end <= size:
        raise CheckpointError(
            f"{where} lies at bytes {begin} to {end} of {size}: the file is truncated or its "
            "header wrong"
        )
    taken = -(-prod(shape) * BITS[dtype] // 8)
    if end - begin != taken:
        raise CheckpointError(
            f"{where} takes {end - begin} bytes; {dtype} {tuple(shape)} takes {taken}"
        )
    return begin, end


def _require_contiguous(path: Path, spans: dict[str, tuple[int, int]], size: int) -> None:
    """Tensors lie one after the other, without a hole, up to the end of the file."""
    at, before = 0, "the header"
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != at:
            what = "overlaps" if begin < at else "leaves a hole after"
            raise CheckpointError(
                f"checkpoint {path}: tensor {name!r} at bytes {begin} to {end} {what} {before}, "
                f"which ends at {at}"
            )
        at, before = end, f"tensor {name!r}"
    if at != size:
        raise CheckpointError(
            f"checkpoint {path}: {size - at} bytes after {before} belong to no tensor"
        )
