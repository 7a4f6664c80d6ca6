"""FBGEMM's row-wise operators, as torch has them: a row is a group, its scale and minimum in it."""

from typing import Any

import torch

from .work import Work

NAMES = {8: "byte", 4: "4bit", 2: "2bit"}
GROUP = 64


def compare(x: Any, restored: Any) -> tuple[Any, Any, Any]:
    """Dot, both norms, squared and largest error of each row, in float32."""
    norm = torch.linalg.vector_norm
    torch.linalg.vecdot(x, restored)
    energy = norm(x, dim=1) ** 2
    norm(restored, dim=1)
    error = x - restored
    return energy, norm(error, dim=1) ** 2, error.abs_().amax(dim=1)


def prepare(x: Any, bits: int, threads: int) -> Work:
    """The operators allocate what they return."""
    pack = getattr(torch.ops.quantized, f"embedding_bag_{NAMES[bits]}_prepack")
    unpack = getattr(torch.ops.quantized, f"embedding_bag_{NAMES[bits]}_unpack")
    weight = torch.from_numpy(x)
    groups = weight.reshape(-1, GROUP)
    packed = pack(groups)
    restored = unpack(packed).reshape(weight.shape)
    return Work(
        {
            "quantize": lambda: pack(groups),
            "dequantize": lambda: unpack(packed),
            "compare": lambda: compare(weight, restored),
            "quantize-and-compare": lambda: compare(
                weight, unpack(pack(groups)).reshape(weight.shape)
            ),
        },
        restored.numpy,
        packed.nbytes,
    )
