"""One tensor as a checkpoint stores it: its name, type and shape, and its bytes where they lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ..arrays import Array
from ..errors import CheckpointError
from ..subject import Subject

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """One tensor of a file; as a model of one layer, its own only layer.

    source: the file's name. stored_dtype: as safetensors names it. raw: its bytes, uint8, mapped
    from the file and read when they are looked at.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    stored_dtype: str
    raw: Array

    @property
    def array(self) -> Array:
        """The values in their own type and shape, read-only: a view of the file."""
        try:
            values: Array = self.raw.view(DTYPES[self.stored_dtype])
        except KeyError:
            raise CheckpointError(
                f"{self} has dtype {self.stored_dtype}; known are {', '.join(DTYPES)}"
            ) from None
        return values.reshape(self.shape)

    @property
    def weight(self) -> Array:
        """The same, as a layer calls it."""
        return self.array

    @property
    def subject(self) -> Subject:
        """What the record says of it."""
        return Subject("checkpoint", source=self.source)

    @property
    def stored_bytes(self) -> int:
        """The size of its values in the file."""
        return self.raw.size

    @property
    def reason_left(self) -> str:
        """Why it stays in full precision; empty if it can be quantized."""
        if self.stored_dtype not in FLOATS:
            return f"dtype {self.stored_dtype} is not a floating type of 16 bits or more"
        if len(self.shape) < 2:
            return f"{len(self.shape)} dimension{'s' * (len(self.shape) != 1)}, fewer than 2"
        if 0 in self.shape:
            return "it is empty"
        return ""

    def require(self, shape: tuple[int, ...], *dtypes: str, why: str = "") -> Array:
        """The values, if they have this shape and one of these types; else CheckpointError.

        why: what asks for them, as in "for 4-bit codes of 128 x 256 weights".
        """
        if self.shape == shape and self.stored_dtype in dtypes:
            return self.array
        wanted = f"{' or '.join(dtypes)} {shape}"
        raise CheckpointError(
            f"{self} is {self.stored_dtype} {self.shape}; expected {wanted}{why and ' ' + why}"
        )

    def __str__(self) -> str:
        return f"{self.source}: tensor {self.name!r}"

    def __iter__(self) -> Iterator["StoredTensor"]:
        return iter((self,))

    def __len__(self) -> int:
        return 1
