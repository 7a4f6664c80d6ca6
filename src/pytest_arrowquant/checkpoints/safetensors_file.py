"""A safetensors file: its header checked, its tensors mapped."""

import json
import re
from collections import Counter
from math import prod
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import CheckpointError
from .shards import ACCEPTED
from .stored_tensor import StoredTensor

FLOATS_OF_8 = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", *FLOATS_OF_8), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
LENGTH = 8  # bytes of the header's length
MOST_HEADER = 100_000_000  # bytes; the limit of the format's own library
MOST_DIMENSIONS = 64  # of a numpy array
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
TOO_MANY_BITS = 2**66  # an array counts its bytes in 63 bits, as if no dimension were 0


def read_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a file by name, and its metadata.

    The data is mapped, not read. Raises CheckpointError, naming file and tensor, for a file that
    is missing or truncated, or whose header is malformed, overlaps or leaves holes. What the
    format's own library refuses is refused, and a name that comes twice, where it keeps the last.
    """
    content = _mapped(path)
    header, start = _header(path, content)
    metadata = _metadata(path, header.pop("__metadata__", None))
    data = content[start:]
    spans = {name: _span(path, name, entry, data.size) for name, entry in header.items()}
    _require_contiguous(path, spans, data.size)
    source = path.name
    tensors = {
        name: StoredTensor(
            source, name, tuple(entry["shape"]), entry["dtype"], data[slice(*spans[name])]
        )
        for name, entry in sorted(header.items())
    }
    return tensors, metadata


def _mapped(path: Path) -> Array:
    """The bytes of a file, mapped."""
    try:
        if path.stat().st_size < LENGTH:
            raise CheckpointError(f"checkpoint {path} is truncated: it has no header")
        return np.asarray(np.memmap(path, np.uint8, "r"))
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} does not exist; {ACCEPTED}") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from None


def _header(path: Path, content: Array) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    length = int.from_bytes(content[:LENGTH].tobytes(), "little")
    most = min(content.size - LENGTH, MOST_HEADER)
    if length > most:
        raise CheckpointError(
            f"checkpoint {path} is truncated or no safetensors file: its header should take "
            f"{length} bytes, there is room for {most}"
        )
    try:
        text = content[LENGTH : LENGTH + length].tobytes().decode()
        header = json.loads(text, object_pairs_hook=_object, parse_constant=_refused)
        if SURROGATE.search(text):  # half of a pair, which JSON can escape, cannot be printed
            json.dumps(header, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"checkpoint {path} is truncated or no safetensors file: its header is no JSON: {error}"
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"checkpoint {path}: its header is no JSON object")
    return header, LENGTH + length


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object none of whose keys comes twice: of two tensors of one name, which is meant?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} comes twice")
    return found


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _metadata(path: Path, given: Any) -> dict[str, str]:
    """The texts of a header that are no tensor."""
    metadata = {} if given is None else given
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"checkpoint {path}: its __metadata__ is no object of texts")
    return metadata


def _span(path: Path, name: str, entry: Any, size: int) -> tuple[int, int]:
    """Where a tensor's bytes lie in the data."""
    where = f"checkpoint {path}: tensor {name!r}"
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(
            f"{where} is described by {brief(entry)}; expected dtype, shape and two data_offsets"
        ) from None
    if not isinstance(dtype, str) or dtype not in BITS:
        raise CheckpointError(f"{where} has dtype {brief(dtype)}; known are {', '.join(BITS)}")
    numbers = [begin, end, *shape] if isinstance(shape, list) else [None]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise CheckpointError(
            f"{where} has shape {brief(shape)} and data_offsets {brief([begin, end])}; "
            "expected whole numbers from 0"
        )
    if len(shape) > MOST_DIMENSIONS or prod(n or 1 for n in shape) * BITS[dtype] >= TOO_MANY_BITS:
        raise CheckpointError(
            f"{where} has shape {brief(shape)}; expected at most {MOST_DIMENSIONS} dimensions and "
            "2^63 - 1 bytes"
        )
    if not begin <= end <= size:
        raise CheckpointError(
            f"{where} lies at bytes {brief(begin)} to {brief(end)} of {size}: the file is "
            "truncated or its header wrong"
        )
    bits = prod(shape) * BITS[dtype]
    if (end - begin) * 8 != bits:
        taken = f"{bits // 8}" if bits % 8 == 0 else f"{bits // 8} and a part of one"
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
