"""The formats of quantized checkpoints, a module each, in the order in which they are tried."""

from importlib import import_module
from typing import Any

from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from ..entries import Contents

FORMATS = (
    "arrowquant",
    "gguf",
    "gptq",
    "awq",
    "compressed_tensors",
    "bitsandbytes",
    "modelopt",
    "fp8",
    "hqq",
    "torchao",
    "mlx",
    "plain",
)


def _module(name: str) -> Any:
    return import_module(f".{name}", __name__)


def read_contents(checkpoint: Checkpoint) -> Contents:
    """What a checkpoint holds, by the first format that knows it.

    Raises CheckpointError where its config names a quantization that no format here reads, or one
    whose tensors are not there.
    """
    for name in FORMATS:
        module = _module(name)
        if module.claims(checkpoint):
            contents: Contents = module.read(checkpoint)
            return contents
    raise CheckpointError(f"checkpoint {checkpoint.path} is of no known format")
