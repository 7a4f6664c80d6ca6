"""hqq: a float zero point for every 64 weights, searched for or not."""

from typing import Any

import torch
from hqq.core.quantize import Quantizer

from .work import Work

GROUP = 64


def prepare(x: Any, bits: int, threads: int, optimize: bool) -> Work:
    """optimize: whether its half-quadratic search runs."""
    weight = torch.from_numpy(x)

    def quantize() -> Any:
        return Quantizer.quantize(
            weight,
            nbits=bits,
            group_size=GROUP,
            axis=1,
            device="cpu",
            optimize=optimize,
            compute_dtype=torch.float32,
        )

    codes, meta = quantize()
    return Work(
        {"quantize": quantize, "dequantize": lambda: Quantizer.dequantize(codes, meta)},
        lambda: Quantizer.dequantize(codes, meta).numpy(),
        sum(part.nbytes for part in (codes, meta["scale"], meta["zero"])),
    )
