"""This project's own format: what save_checkpoint() writes."""

from dataclasses import fields, replace
from functools import partial
from typing import Any

from ...arrays import Array
from ...codes import Codes, Grid, codes_of
from ...errors import CheckpointError, TensorError
from ...scheme import rows_and_columns
from ...stored_form import roles
from ...super_blocks import SuperBlockAffine
from ...tensor import QuantizedTensor
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, contents
from ..saving import DESCRIBED, descriptions, quantized_tensor
from ..weight import CodedWeight, RestoredWeight, StoredWeight


def claims(checkpoint: Checkpoint) -> bool:
    """The header says so."""
    return DESCRIBED in checkpoint.metadata


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a quantized tensor of the header."""
    entries = []
    for name, described in descriptions(checkpoint).items():
        try:
            names = {role: f"{name}.{role}" for role in roles(described)}
        except TensorError as error:
            raise CheckpointError(f"{checkpoint.path.name}: tensor {name!r}: {error}") from None
        parts = {r: checkpoint.tensors[n] for r, n in names.items() if n in checkpoint.tensors}
        if not parts:
            raise CheckpointError(
                f"{checkpoint.path.name}: tensor {name!r} is described in the header, and none of "
                f"{', '.join(names.values())} is there"
            )
        entries.append(Entry(name, parts, partial(_load, checkpoint, name, described)))
    return contents("arrowquant", checkpoint, entries)


def _load(checkpoint: Checkpoint, name: str, described: dict[str, Any]) -> StoredWeight:
    tensor = quantized_tensor(checkpoint, name, described)
    scheme, nbytes = tensor.scheme, tensor.nbytes
    if isinstance(tensor.decoding, SuperBlockAffine):  # its groups do not lie a row's each
        affine = tensor.decoding.expanded(tensor.layout, scheme.bits)
        tensor = replace(tensor, decoding=affine)
    grid = Grid(scheme.bits, scheme.zero, scheme.group_size)
    if codes_of(_rows(tensor, 0, 0)) is None:
        return RestoredWeight(tensor.shape, grid, nbytes, partial(_restored, tensor))
    return CodedWeight(tensor.shape, grid, nbytes, partial(_codes, tensor))


def _codes(tensor: QuantizedTensor, start: int, stop: int) -> Codes:
    codes = codes_of(_rows(tensor, start, stop))
    assert codes is not None
    return codes


def _restored(tensor: QuantizedTensor, start: int, stop: int) -> Array:
    return _rows(tensor, start, stop).dequantize()


def _rows(tensor: QuantizedTensor, start: int, stop: int) -> QuantizedTensor:
    """Rows start to stop of a quantized tensor, as one."""
    each = tensor.layout.parameter_shape
    decoding = tensor.decoding
    parts = {field.name: getattr(decoding, field.name) for field in fields(decoding)}  # type: ignore[arg-type]
    if tensor.scheme.group_size != "tensor":
        parts = {r: part[start:stop] if part.shape == each else part for r, part in parts.items()}
    shape = (stop - start, rows_and_columns(tensor.shape)[1])
    return replace(
        tensor,
        codes=tensor.codes[start:stop],
        decoding=type(decoding)(**parts),
        shape=shape,
    )
