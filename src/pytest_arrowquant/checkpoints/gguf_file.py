"""A GGUF file, or a series of them: its header checked, its tensors mapped.

Source: ggml's docs/gguf.md, versions 2 and 3. Sizes of types are those of the gguf package.
"""

import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import CheckpointError
from .checkpoint import Checkpoint
from .stored_tensor import StoredTensor

VERSION = "GGUF.version"  # in the metadata, as the gguf package calls it
VERSIONS = (2, 3)
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
TEXT, ARRAY = 8, 9
LONGEST = 4096  # values of an array that are kept; vocabularies are longer
ALIGNMENT = "general.alignment"
NUMBERED = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def read_gguf(path: Path) -> Checkpoint:
    """The checkpoint in a file, or in all files of the series that its name says it is one of.

    Tensors are [out, in], of the types that GGUF names. Metadata: texts as they are, other values
    as JSON; arrays of more than 4096 values are left out. Raises CheckpointError, naming file and
    tensor, for what is missing, truncated or malformed, or without the gguf package.
    """
    sizes = _sizes(path)
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    for file in _series(path):
        found, said = _read(file, sizes)
        twice = next((name for name in found if name in tensors), None)
        if twice is not None:
            raise CheckpointError(
                f"checkpoint {path}: tensor {twice!r} is in both {tensors[twice].source} "
                f"and {file.name}"
            )
        tensors |= found
        metadata = said | metadata
    return Checkpoint(path, dict(sorted(tensors.items())), metadata)


def _sizes(path: Path) -> Mapping[int, tuple[str, int, int]]:
    """By number of a type: its name, and weights and bytes of a block."""
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError:
        raise CheckpointError(
            f"checkpoint {path} is in GGUF, which is read with the gguf package; "
            "install pytest-arrowquant[gguf]"
        ) from None
    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


def _series(path: Path) -> list[Path]:
    """The file and the others of its series, of which none may be missing."""
    numbered = NUMBERED.search(path.name)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist; expected a .gguf file")
    if numbered is None:
        return [path]
    stem, count = path.name[: numbered.start()], int(numbered[2])
    names = [f"{stem}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]
    missing = next((name for name in names if not path.with_name(name).is_file()), None)
    if missing is not None:
        raise CheckpointError(
            f"checkpoint {path} is one of {count} files; {missing} does not exist"
        )
    return [path.with_name(name) for name in names]


def _read(
    path: Path, sizes: Mapping[int, tuple[str, int, int]]
) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of one file by name, and its metadata."""
    if not path.stat().st_size:
        raise CheckpointError(f"checkpoint {path} is empty; expected a .gguf file")
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    header = _Header(path, content.data)
    version, tensor_count, pair_count = header.preamble()
    said = {VERSION: version} | dict(header.pair() for _ in range(pair_count))
    infos = [header.info() for _ in range(tensor_count)]
    alignment = said.get(ALIGNMENT, 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise CheckpointError(f"checkpoint {path}: its {ALIGNMENT} is {alignment!r}")
    data = content[-(-header.at // alignment) * alignment :]
    tensors: dict[str, StoredTensor] = {}
    for info in infos:
        if info.name in tensors:
            raise CheckpointError(f"checkpoint {path}: tensor {info.name!r} is there twice")
        tensors[info.name] = info.tensor(path, data, sizes)
    _require_apart(path, infos, tensors)
    metadata = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in said.items()
        if value is not None
    }
    return tensors, metadata


@dataclass(slots=True)
class _Header:
    """The bytes of a file, and how far they are read."""

    path: Path
    content: memoryview
    at: int = 0

    def preamble(self) -> tuple[int, int, int]:
        """Version, number of tensors, number of pairs of metadata."""
        if bytes(self.content[:4]) != b"GGUF":
            raise CheckpointError(f"checkpoint {self.path} is no GGUF file: it begins otherwise")
        self.at = 4
        version = self.number("I")
        if version not in VERSIONS:
            raise CheckpointError(
                f"checkpoint {self.path} is of GGUF version {version}; read are "
                f"{' and '.join(map(str, VERSIONS))}, little-endian"
            )
        return version, self.number("Q"), self.number("Q")

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        if size > len(self.content) - self.at:
            raise CheckpointError(
                f"checkpoint {self.path} is truncated: its header wants {size} bytes from "
                f"{self.at} on, the file has {len(self.content)}"
            )
        self.at += size
        return self.content[self.at - size : self.at]

    def number(self, code: str) -> Any:
        """One number, of this code of struct."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        """A length and so many bytes."""
        raw = bytes(self.take(self.number("Q")))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")  # some vocabularies hold halves of characters

    def pair(self) -> tuple[str, Any]:
        """A key and its value; None for a long array."""
        key = self.text()
        return key, self.value(key, self.number("I"))

    def value(self, key: str, kind: int) -> Any:
        """A value of this kind; None for a long array."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            raise CheckpointError(
                f"checkpoint {self.path}: {key!r} has a value of type {kind}; known are 0 to 12"
            )
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            raw = self.take(count * struct.calcsize(f"<{SCALARS[kind]}"))
            return (
                list(struct.unpack(f"<{count}{SCALARS[kind]}", raw)) if count <= LONGEST else None
            )
        if count > len(self.content):
            self.take(count)
        values = [self.value(key, kind) for _ in range(count)]
        return values if count <= LONGEST else None

    def info(self) -> "_Info":
        """What is said of one tensor."""
        name = self.text()
        dimensions = self.number("I")
        extents = struct.unpack(f"<{dimensions}Q", self.take(8 * dimensions))
        return _Info(name, extents[::-1], self.number("I"), self.number("Q"))


@dataclass(frozen=True, slots=True)
class _Info:
    """A tensor as the header tells of it: shape [out, in], number of its type, where it begins."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    def tensor(
        self, path: Path, data: Array, sizes: Mapping[int, tuple[str, int, int]]
    ) -> StoredTensor:
        """The tensor, mapped."""
        where = f"checkpoint {path}: tensor {self.name!r}"
        if self.kind not in sizes:
            raise CheckpointError(
                f"{where} is of type {self.kind}, which the gguf package does not know; it knows "
                f"{', '.join(name for name, *_ in sizes.values())}"
            )
        name, weights, nbytes = sizes[self.kind]
        columns = self.shape[-1] if self.shape else 1
        if columns % weights:
            raise CheckpointError(
                f"{where} of shape {self.shape} is {name}, whose rows are whole blocks of {weights}"
            )
        size = prod(self.shape) // weights * nbytes
        if self.offset + size > data.size:
            raise CheckpointError(
                f"{where} lies at bytes {self.offset} to {self.offset + size} of {data.size}: the "
                "file is truncated or its header wrong"
            )
        raw = data[self.offset : self.offset + size]
        return StoredTensor(path.name, self.name, self.shape, name, raw)


def _require_apart(path: Path, infos: Iterable[_Info], tensors: Mapping[str, StoredTensor]) -> None:
    end, before = 0, ""
    for info in sorted(infos, key=lambda info: info.offset):
        if info.offset < end:
            raise CheckpointError(
                f"checkpoint {path}: tensor {info.name!r} at byte {info.offset} overlaps tensor "
                f"{before!r}, which ends at {end}"
            )
        end, before = info.offset + tensors[info.name].stored_bytes, info.name
