"""What one checkpoint has and the other need not: buffers, biases of zeros, layers to come."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .pair import Unpaired
from .stored_tensor import FLOATS, StoredTensor
from .tensor_names import canonical, is_buffer, some

LAYER = re.compile(r"(?:layers|blk)\.(\d+)\.")
PREDICTION = "mtp."


def left_out(left: Unpaired, entry_names: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """Takes these out, and says what of them there was. config: of the original."""
    plain = [entry.plain for entry in left.entries.values() if entry.plain is not None]
    one_sided = {
        "the original alone has them, and they hold no weights": [
            name for name, tensor in left.originals.items() if is_buffer(tensor)
        ],
        "the original alone has them, for multi-token prediction past the model's layers": (
            _past_the_layers(left.originals, entry_names, config)
        ),
        "the quantized checkpoint alone has them, and they hold no weights": [
            tensor.name for tensor in plain if is_buffer(tensor)
        ],
        "the quantized checkpoint alone has them, and they are biases of zeros": [
            tensor.name for tensor in plain if _is_zero_bias(tensor)
        ],
    }
    for names in one_sided.values():
        for name in names:
            left.originals.pop(name, None)
            left.entries.pop(name, None)
    return [f"not compared, as {why}: {some(names)}" for why, names in one_sided.items() if names]


def _past_the_layers(
    names: Iterable[str], entry_names: Iterable[str], config: Mapping[str, Any]
) -> list[str]:
    """Tensors of layers that the config does not count and the quantized checkpoint has none of."""
    there = [canonical(name) for name in entry_names]
    numbers = [int(found[1]) for name in there if (found := LAYER.match(name))]
    counted = config.get("num_hidden_layers")
    past = max([*numbers, int(counted) - 1], default=-1) if isinstance(counted, int) else None
    predicts = any(name.startswith(PREDICTION) for name in there)

    def is_past(name: str) -> bool:
        bare = canonical(name)
        if bare.startswith(PREDICTION):
            return not predicts
        found = LAYER.match(bare)
        return found is not None and past is not None and int(found[1]) > past

    return [name for name in names if is_past(name)]


def _is_zero_bias(tensor: StoredTensor) -> bool:
    named = tensor.name.endswith(".bias") and len(tensor.shape) == 1
    return named and tensor.stored_dtype in FLOATS and not tensor.array.any()
