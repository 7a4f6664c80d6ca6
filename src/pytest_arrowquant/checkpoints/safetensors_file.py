"""A safetensors file: what it holds, which tensors can be quantized, and their values."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..arrays import Array
from ..errors import CheckpointError
from ..subject import Subject

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    "F4": 4,
}
FLOAT_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class CheckpointTensor:
    """One tensor of a file; as a model of one layer, its own only layer.

    Its weight is read when it is asked for, at the dtype it has on disk.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    stored_dtype: str

    @property
    def weight(self) -> Array:
        """The values, in the file's dtype."""
        import ml_dtypes  # noqa: F401  its import makes bfloat16 known to numpy

        with _opened(self.path) as file:
            try:
                return file.get_tensor(self.name)  # type: ignore[no-any-return]
            except SafetensorError as error:
                raise CheckpointError(f"{self.path.name}: tensor {self.name!r}: {error}") from None

    @property
    def subject(self) -> Subject:
        """What the record says of it."""
        return Subject("checkpoint", source=self.path.name)

    @property
    def stored_bytes(self) -> int:
        """The size of its values in the file."""
        bits = BITS.get(self.stored_dtype)
        if bits is None:
            raise CheckpointError(
                f"{self.path.name}: tensor {self.name!r} has dtype {self.stored_dtype}; "
                f"known are {', '.join(BITS)}"
            )
        return -(-prod(self.shape) * bits // 8)

    @property
    def reason_left(self) -> str:
        """Why it stays in full precision; empty if it can be quantized."""
        if self.stored_dtype not in FLOAT_DTYPES:
            return f"dtype {self.stored_dtype} is not a floating type of 16 bits or more"
        if len(self.shape) < 2:
            return f"{len(self.shape)} dimension{'s' * (len(self.shape) != 1)}, fewer than 2"
        if 0 in self.shape:
            return "it is empty"
        return ""

    def __iter__(self) -> Iterator["CheckpointTensor"]:
        return iter((self,))

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """The tensors of one file, in the order of their names."""

    path: Path
    tensors: tuple[CheckpointTensor, ...]

    @classmethod
    def open(cls, path: Path) -> "SafetensorsFile":
        """Read the header; CheckpointError for a missing, truncated or malformed file."""
        with _opened(path) as file:
            tensors = []
            for name in sorted(file.keys()):
                entry = file.get_slice(name)
                tensors.append(
                    CheckpointTensor(path, name, tuple(entry.get_shape()), entry.get_dtype())
                )
        return cls(path, tuple(tensors))

    @property
    def quantizable(self) -> tuple[CheckpointTensor, ...]:
        """Floating tensors of two or more dimensions."""
        return tuple(tensor for tensor in self.tensors if not tensor.reason_left)

    @property
    def left(self) -> tuple[CheckpointTensor, ...]:
        """The others, which stay in full precision, each with its `reason_left`."""
        return tuple(tensor for tensor in self.tensors if tensor.reason_left)


def _opened(path: Path) -> Any:
    """The file opened by the safetensors library, its errors in words that name the file."""
    if not path.is_file():
        found = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise CheckpointError(f"checkpoint {path} {found}; expected a .safetensors file")
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path} is truncated or no safetensors file: {error}"
        ) from None
