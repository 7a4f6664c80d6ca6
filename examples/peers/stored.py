"""What a peer keeps of a weight, as pytest-arrowquant takes it from `quantize()`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stored:
    """How to restore a weight, the bytes that it takes until then, and the grid if of floats."""

    restore: Callable[[], Any]
    nbytes: int
    grid: Any = None

    def dequantize(self) -> Any:
        """The restored weight."""
        return self.restore()


def bytes_of(*tensors: Any) -> int:
    """The bytes of torch tensors, all together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
