"""A QuantizedTensor as arrays and a description in plain values, and back: what a file holds."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from .arrays import Array
from .binary_terms import BinaryTerms
from .decoding import Affine
from .errors import SchemeError, TensorError
from .scheme import Scheme
from .super_blocks import SuperBlockAffine, SuperBlocks
from .tensor import QuantizedTensor

DECODINGS: dict[str, Any] = {
    "affine": Affine,
    "super_blocks": SuperBlockAffine,
    "binary_terms": BinaryTerms,
}
CODES, BLOCKS = "codes", "blocks"


def taken_apart(tensor: QuantizedTensor) -> tuple[dict[str, Any], dict[str, Array]]:
    """(the description, as JSON holds it; the arrays by role) of a quantized tensor."""
    kind = next((k for k, known in DECODINGS.items() if type(tensor.decoding) is known), None)
    if kind is None:
        raise TensorError(
            f"it decodes by {type(tensor.decoding).__name__}; can be stored: {', '.join(DECODINGS)}"
        )
    described = {
        "decoding": kind,
        **asdict(tensor.scheme),
        "shape": list(tensor.shape),
        "notes": list(tensor.notes),
    }
    arrays = {CODES: tensor.codes}
    for role in _roles(kind):
        arrays[role] = getattr(tensor.decoding, role)
    if kind == "super_blocks":
        described[BLOCKS] = asdict(tensor.decoding.blocks)  # type: ignore[attr-defined]
    return described, arrays


def put_together(described: Mapping[str, Any], arrays: Mapping[str, Array]) -> QuantizedTensor:
    """The quantized tensor again; TensorError for a description that does not fit its arrays."""
    try:
        kind = described["decoding"]
        scheme = Scheme(described["bits"], described["zero"], described["group_size"])
        shape = tuple(int(length) for length in described["shape"])
        extra = {BLOCKS: SuperBlocks(**described[BLOCKS])} if kind == "super_blocks" else {}
        decoding = DECODINGS[kind](**extra, **{role: arrays[role] for role in _roles(kind)})
        made = QuantizedTensor(arrays[CODES], decoding, scheme, shape, (*described["notes"],))
    except (KeyError, TypeError, ValueError, SchemeError) as error:
        raise TensorError(f"it is described as {dict(described)!r}: {error}") from None
    _require_fit(made)
    return made


def roles(described: Mapping[str, Any]) -> tuple[str, ...]:
    """The roles of the arrays that a described tensor is made of."""
    kind = described.get("decoding")
    if kind not in DECODINGS:
        raise TensorError(f"it decodes by {kind!r}; known are {', '.join(DECODINGS)}")
    return (CODES, *_roles(kind))


def _roles(kind: str) -> tuple[str, ...]:
    return tuple(field.name for field in fields(DECODINGS[kind]) if field.name != BLOCKS)


def _require_fit(tensor: QuantizedTensor) -> None:
    """TensorError where an array is of another shape or type than one made anew would have."""
    layout = tensor.layout
    expected = {CODES: ((layout.rows, layout.row_bytes), "uint8")}
    zero, decoding = tensor.scheme.zero, tensor.decoding
    none, each = (0, 0), layout.parameter_shape
    if isinstance(decoding, Affine):
        expected |= {
            "scale": (each, "float32"),
            "zero_point": (each if zero == "integer" else none, "uint8"),
            "minimum": (each if zero == "float" else none, "float32"),
        }
    elif isinstance(decoding, BinaryTerms):
        expected |= {
            "first": (each, "bfloat16"),
            "second": (each, "bfloat16"),
            "mean": (each if zero == "float" else none, "bfloat16"),
        }
    elif isinstance(decoding, SuperBlockAffine):
        starts = decoding.blocks.starts(layout)
        packed = (-(-int(starts[-1]) * decoding.blocks.scale_bits // 8),)
        expected |= {
            "scale_codes": (packed, "uint8"),
            "middle_codes": (packed, "uint8"),
            "steps": ((starts.size - 1, 2), "bfloat16"),
            "offsets": ((starts.size - 1,), "int16"),
        }
    for role, (shape, dtype) in expected.items():
        array = tensor.codes if role == CODES else getattr(decoding, role)
        if (array.shape, array.dtype.name) != (shape, dtype):
            raise TensorError(
                f"its {role} is {array.dtype} {array.shape}; expected {dtype} {shape} for "
                f"{tensor.scheme} {tensor.shape}"
            )
