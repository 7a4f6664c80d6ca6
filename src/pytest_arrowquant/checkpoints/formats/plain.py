"""A checkpoint whose tensors are stored as they are: nothing is quantized."""

from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from ..entries import Contents, contents


def claims(checkpoint: Checkpoint) -> bool:
    """Always: what no other format knows is plain."""
    return True


def read(checkpoint: Checkpoint) -> Contents:
    """Every tensor as it is; CheckpointError where the config says otherwise."""
    method = checkpoint.quantization.get("quant_method")
    if method is not None:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} says quant_method {method!r}, and no tensor of it is "
            "stored in a way that is known of it"
        )
    return contents("plain", checkpoint, ())
