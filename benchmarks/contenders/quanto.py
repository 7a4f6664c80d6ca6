"""optimum-quanto: 2 and 4 bits in groups, 8 bits by row (of 64 weights, so a group)."""

from typing import Any

import torch
from optimum.quanto import (
    AbsmaxOptimizer,
    HqqOptimizer,
    MaxOptimizer,
    qint2,
    qint4,
    qint8,
    quantize_weight,
)

from .work import Work

GROUP = 64
TYPES = {2: qint2, 4: qint4}


def prepare(x: Any, bits: int, threads: int, search: bool) -> Work:
    """search: by HQQ, else scales from the range."""
    weight = torch.from_numpy(x)
    if bits == 8:
        return _by_row(weight)
    optimizer = HqqOptimizer() if search else MaxOptimizer()

    def quantize() -> Any:
        scale, shift = optimizer(weight, TYPES[bits], 0, GROUP)
        return quantize_weight(weight, TYPES[bits], 0, scale, shift, GROUP, optimized=False)

    kept = quantize()
    scales = kept._scale.nbytes + kept._shift.nbytes
    return Work(
        {"quantize": quantize, "dequantize": kept.dequantize},
        lambda: kept.dequantize().numpy(),
        weight.numel() * bits // 8 + scales,
    )


def _by_row(weight: Any) -> Work:
    rows = weight.reshape(-1, GROUP)
    absmax = AbsmaxOptimizer()

    def quantize() -> Any:
        return quantize_weight(rows, qint8, 0, absmax(rows, qint8, 0))

    kept = quantize()
    return Work(
        {"quantize": quantize, "dequantize": kept.dequantize},
        lambda: kept.dequantize().reshape(weight.shape).numpy(),
        kept._data.nbytes + kept._scale.nbytes,
    )
