"""torchao's weights of integers in groups on a CPU, run eagerly."""

from typing import Any

import torch
from torchao.quantization import IntxUnpackedToInt8Tensor

from .work import Work

GROUP = 64


def prepare(x: Any, bits: int, threads: int) -> Work:
    """Codes lie one a byte at every width."""
    weight = torch.from_numpy(x)
    dtype = getattr(torch, f"int{bits}")

    def quantize() -> Any:
        return IntxUnpackedToInt8Tensor.from_hp(weight, (1, GROUP), dtype)

    kept = quantize()
    return Work(
        {"quantize": quantize, "dequantize": kept.dequantize},
        lambda: kept.dequantize().numpy(),
        sum(part.nbytes for part in (kept.qdata, kept.scale, kept.zero_point)),
    )
