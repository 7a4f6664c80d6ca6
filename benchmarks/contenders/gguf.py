"""gguf, llama.cpp's numpy package: blocks of 32 weights with a float16 scale."""

from typing import Any

from gguf import GGMLQuantizationType, dequantize, quantize

from .work import Work

KINDS = {8: GGMLQuantizationType.Q8_0, 4: GGMLQuantizationType.Q4_0}


def prepare(x: Any, bits: int, threads: int) -> Work:
    """On one thread, whatever is said."""
    kind = KINDS[bits]
    packed = quantize(x, kind)
    return Work(
        {"quantize": lambda: quantize(x, kind), "dequantize": lambda: dequantize(packed, kind)},
        lambda: dequantize(packed, kind),
        packed.nbytes,
    )
