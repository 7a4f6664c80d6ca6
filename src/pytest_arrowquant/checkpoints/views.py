"""Parts of a stored tensor as tensors of their own: views of the file, nothing is copied."""

from dataclasses import replace
from math import prod

from ..scheme import rows_and_columns
from .entries import Entry
from .pair import Pair
from .stored_tensor import StoredTensor


def part(tensor: StoredTensor, name: str, start: int, shape: tuple[int, ...]) -> StoredTensor:
    """The values from number `start` on, in `shape`."""
    size = _item_size(tensor)
    raw = tensor.raw.reshape(-1)[start * size : (start + prod(shape)) * size]
    return replace(tensor, name=name, shape=shape, raw=raw)


def half_of_columns(
    tensor: StoredTensor, name: str, which: int, interleaved: bool = False
) -> StoredTensor:
    """The first (0) or second (1) half of the columns; of every two, if they are interleaved."""
    rows, columns = rows_and_columns(tensor.shape)
    size, half = _item_size(tensor), columns // 2
    if interleaved:
        raw = tensor.raw.reshape(rows, half, 2, size)[:, :, which]
    else:
        raw = tensor.raw.reshape(rows, 2, half * size)[:, which]
    return replace(tensor, name=name, shape=(*tensor.shape[:-1], half), raw=raw)


def rows_of(entry: Entry, tensor: StoredTensor, first_row: int, transposed: bool = False) -> Pair:
    """The pair of an original's tensor and the rows of an entry that hold it.

    A plain entry is narrowed to them, so that the pair has all of it.
    """
    shape = tensor.shape[::-1] if transposed else tensor.shape
    if entry.plain is None:
        found = Pair(tensor.name, tensor, entry, first_row=first_row, rows=shape[0])
    else:
        found = Pair(tensor.name, tensor, _narrowed(entry, entry.plain, first_row, shape))
    return replace(found, transposed=transposed)


def _narrowed(entry: Entry, plain: StoredTensor, first_row: int, shape: tuple[int, ...]) -> Entry:
    """A part of a plain entry; all of it, where it has no such part: its shape then tells."""
    start = first_row * prod(shape[1:])
    same_rows = plain.shape[len(plain.shape) - len(shape) + 1 :] == shape[1:]
    if not same_rows or start + prod(shape) > prod(plain.shape):
        return entry
    return replace(entry, parts={"plain": part(plain, plain.name, start, shape)})


def _item_size(tensor: StoredTensor) -> int:
    return tensor.raw.size // max(prod(tensor.shape), 1)
