"""bitsandbytes: int8 by row, and tables of 256 and 16 levels by block."""

from typing import Any

import torch
from bitsandbytes import functional

from .work import Work

BLOCK = 64


def prepare(x: Any, bits: int, threads: int, kind: str) -> Work:
    """kind: "int8", "dynamic8" or "nf4"."""
    return {"int8": _int8, "dynamic8": _dynamic, "nf4": _nf4}[kind](torch.from_numpy(x))


def _int8(weight: Any) -> Work:
    groups = weight.reshape(-1, BLOCK)
    codes, largest, _ = functional.int8_vectorwise_quant(groups)
    return Work(
        {
            "quantize": lambda: functional.int8_vectorwise_quant(groups),
            "dequantize": lambda: functional.int8_vectorwise_dequant(codes, largest),
        },
        lambda: functional.int8_vectorwise_dequant(codes, largest).reshape(weight.shape).numpy(),
        codes.nbytes + largest.nbytes,
    )


def _dynamic(weight: Any) -> Work:
    codes, state = functional.quantize_blockwise(weight, blocksize=BLOCK)

    def dequantize() -> Any:
        return functional.dequantize_blockwise(codes, state)

    return Work(
        {
            "quantize": lambda: functional.quantize_blockwise(weight, blocksize=BLOCK),
            "dequantize": dequantize,
        },
        lambda: dequantize().numpy(),
        codes.nbytes + state.absmax.nbytes,
    )


def _nf4(weight: Any) -> Work:

    def quantize() -> Any:
        return functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")

    codes, state = quantize()

    def dequantize() -> Any:
        return functional.dequantize_4bit(codes, state)

    return Work(
        {"quantize": quantize, "dequantize": dequantize},
        lambda: dequantize().numpy(),
        codes.nbytes + state.absmax.nbytes,
    )
