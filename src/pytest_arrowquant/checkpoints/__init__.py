"""Checkpoints on disk: containers, formats, and which tensors of two of them belong together."""

from .checkpoint import Checkpoint, open_checkpoint
from .stored_tensor import StoredTensor

__all__ = ["Checkpoint", "StoredTensor", "open_checkpoint"]
