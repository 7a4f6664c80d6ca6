"""This project's own format: what save_checkpoint() writes."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ...arrays import Array
from ...binary_terms import BinaryTerms
from ...codes import Codes, Grid, codes_of
from ...errors import CheckpointError
from ...super_blocks import SuperBlockAffine
from ...tensor import QuantizedTensor
from ..checkpoint import Checkpoint
from ..entries import Contents, Entry, Parts, contents
from ..saving import KEY, described_names, quantized_tensor
from ..weight import CodedWeight, RestoredWeight, StoredWeight


def claims(checkpoint: Checkpoint) -> bool:
    """The header says so."""
    return KEY in checkpoint.metadata


def read(checkpoint: Checkpoint) -> Contents:
    """An entry a quantized tensor of the header."""
    entries = [
        Entry(name, _parts(checkpoint, name), partial(_load, checkpoint, name))
        for name in described_names(checkpoint)
    ]
    return contents("arrowquant", checkpoint, entries)


def _parts(checkpoint: Checkpoint, name: str) -> Parts:
    """What a tensor is stored in; of one that load() will refuse, what seems to belong to it."""
    try:
        return quantized_tensor(checkpoint, name)[1]
    except CheckpointError:
        prefix = f"{name}."
        beside = {
            stored.removeprefix(prefix): tensor
            for stored, tensor in checkpoint.tensors.items()
            if stored.startswith(prefix)
        }
        if not beside:
            raise
        return beside


def _load(checkpoint: Checkpoint, name: str) -> StoredWeight:
    tensor, _ = quantized_tensor(checkpoint, name)
    scheme, layout, decoding = tensor.scheme, tensor.layout, tensor.decoding
    binary = isinstance(decoding, BinaryTerms)
    if isinstance(decoding, SuperBlockAffine):
        decoding = decoding.expanded(layout, scheme.bits)
    rows = _Rows(replace(tensor, decoding=decoding), decoding.arrays(layout))  # type: ignore[attr-defined]
    grid = Grid(scheme.bits, scheme.zero, scheme.group_size, feedback=tensor.feedback)
    if binary:
        return RestoredWeight(tensor.shape, grid, tensor.nbytes, rows.restore)
    return CodedWeight(tensor.shape, grid, tensor.nbytes, rows.codes)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """A quantized tensor, and its parameters a row of groups each; some rows of it."""

    tensor: QuantizedTensor
    parameters: tuple[Array, ...]

    def at(self, start: int, stop: int) -> QuantizedTensor:
        """Rows start to stop as a tensor of their own."""
        kind: Any = type(self.tensor.decoding)
        some = (part[start:stop] for part in self.parameters)
        codes = self.tensor.codes[start:stop]
        shape = (len(codes), self.tensor.layout.columns)
        return replace(self.tensor, codes=codes, decoding=kind(*some), shape=shape)

    def codes(self, start: int, stop: int) -> Codes:
        """Codes of rows start to stop, of an affine decoding."""
        codes = codes_of(self.at(start, stop))
        assert codes is not None
        return codes

    def restore(self, start: int, stop: int) -> Array:
        """Values of rows start to stop."""
        return self.at(start, stop).dequantize()
