"""A QuantizedTensor as arrays and a description in plain values, and back: what a file holds."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from .arrays import Array
from .binary_terms import BinaryTerms
from .decoding import Affine, Decoding, Take
from .errors import SchemeError, TensorError
from .scheme import Scheme
from .super_blocks import SuperBlockAffine
from .tensor import QuantizedTensor

DECODINGS: Mapping[str, type[Decoding]] = {
    "affine": Affine,
    "super_blocks": SuperBlockAffine,
    "binary_terms": BinaryTerms,
}
CODES = "codes"


def taken_apart(tensor: QuantizedTensor) -> tuple[dict[str, Any], dict[str, Array]]:
    """(the description, as JSON holds it; the arrays by role) of a quantized tensor.

    Raises TensorError for a decoding that is not built in, and for arrays that do not fit.
    """
    decoding = tensor.decoding
    kind = next((kind for kind, known in DECODINGS.items() if type(decoding) is known), None)
    if kind is None:
        raise TensorError(
            f"it decodes by {type(decoding).__name__}; can be stored: {', '.join(DECODINGS)}"
        )
    described = {
        "decoding": kind,
        "options": decoding.options,
        "scheme": asdict(tensor.scheme),
        "shape": [int(length) for length in tensor.shape],
        "notes": list(tensor.notes),
        "feedback": tensor.feedback,
    }
    arrays: dict[str, Array] = {}

    def take(role: str, shape: tuple[int, ...], dtype: Any) -> Array:
        array: Array = tensor.codes if role == CODES else getattr(decoding, role)
        if (array.shape, array.dtype) != (shape, dtype):
            raise TensorError(
                f"its {role} is {array.dtype} {array.shape}; expected {np.dtype(dtype)} {shape} "
                f"for {tensor.scheme} {tensor.shape}"
            )
        arrays[role] = array
        return array

    put_together(described, take)
    return described, arrays


def put_together(described: Mapping[str, Any], take: Take) -> QuantizedTensor:
    """The quantized tensor again; take(role, shape, dtype) gives its arrays, the codes first.

    Raises TensorError for what describes none.
    """
    try:
        kind, shape, notes = described["decoding"], described["shape"], described["notes"]
        feedback = described["feedback"]
        scheme = Scheme(**described["scheme"])
        if not _are(int, shape) or min(shape, default=0) < 0 or not _are(str, notes):
            raise TypeError(f"shape is {shape!r} and notes are {notes!r}")
        if type(feedback) is not bool:
            raise TypeError(f"feedback is {feedback!r}; expected true or false")
        if kind not in DECODINGS:
            raise TypeError(f"decoding is {kind!r}; known are {', '.join(DECODINGS)}")
        layout = scheme.layout(tuple(shape))
        codes = take(CODES, (layout.rows, layout.row_bytes), np.uint8)
        decoding = DECODINGS[kind].made_of(described["options"], scheme, layout, take)
    except KeyError as error:
        raise TensorError(f"it is described without {error}") from None
    except (TypeError, SchemeError) as error:
        raise TensorError(f"it is described wrongly: {error}") from None
    return QuantizedTensor(codes, decoding, scheme, tuple(shape), tuple(notes), feedback)


def _are(kind: type, values: object) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
